"""Attention over divided sequences has the values and gradients of undivided attention, and sends only what it
needs."""

import math
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import ConfigError
from gptjax.data.facts import DataFacts
from gptjax.model.attention import attention
from gptjax.model.attention_scores import Scores
from gptjax.parallel.mesh import AXES, make_mesh
from gptjax.parallel.placement import MeshPlacement
from gptjax.parallel.ring import Ring
from gptjax.parallel.traffic import collectives_of
from gptjax.planning import plan
from gptjax.settings import MeshSettings

B, T, H = 2, 32, 4


def mesh_of(**sizes):
    settings = MeshSettings(**{"data": 1} | sizes)
    devices = math.prod(sizes.get(axis, 1) for axis in AXES)
    return settings, make_mesh(settings, jax.devices()[:devices])


def of_one_and_of_many(heads, kv_heads, scores=None, length=T, key_length=None, options=None, **sizes):
    """(value, gradients) of attention to random numbers on one device and on a mesh."""
    draw, options = np.random.default_rng(0), options or {}
    key_length = key_length or length
    shapes = [(B, length, heads, H), *[(B, key_length, kv_heads, H)] * 2, (B, length, heads, H)]
    q, k, v, direction = (jnp.asarray(draw.normal(size=shape), jnp.float32) for shape in shapes)
    sinks_N = jnp.asarray(draw.normal(size=heads), jnp.float32)
    settings, mesh = mesh_of(**sizes)

    def value(attend, q, k, v, sinks_N):
        made = Scores() if scores is None else scores(sinks_N)
        return (attend(q, k, v, backend="xla", block=8, scores=made, **options) * direction).sum()

    def divided(*arrays, **options):
        return MeshPlacement(settings).attention(attention, *arrays, **options)

    def run(attend):
        return jax.jit(jax.value_and_grad(lambda *of: value(attend, *of), (0, 1, 2, 3)))(q, k, v, sinks_N)

    alone = run(attention)
    with jax.set_mesh(mesh):
        return alone, run(divided)


def biased(sinks_N):
    """Options that modify logits, all at once and different for each head."""

    def bias(distance_BTS):
        slopes_N11 = np.linspace(-0.2, 0.3, sinks_N.size, dtype=np.float32)[:, None, None]
        return slopes_N11 * jnp.abs(distance_BTS)[:, None]

    return Scores(0.3, 5.0, bias, sinks_N)


SEGMENTS = jnp.repeat(jnp.array([[1, 1, 1, 1, 2, 2, 2, 0], [3, 4, 4, 4, 4, 4, 4, 4]]), T // 8, axis=1)
CASES = {
    "plain": dict(heads=4, kv_heads=4, context=4),
    "fewer_kv_heads_packed_window": dict(
        heads=8, kv_heads=2, options=dict(window=11, segments_BT=SEGMENTS), context=4, data=2
    ),
    "heads_over_tensor_too": dict(heads=8, kv_heads=2, scores=biased, context=2, tensor=2, fsdp=2),
    "both_sides": dict(heads=4, kv_heads=1, options=dict(causal=False, segments_BT=SEGMENTS), context=4),
    "another_sequence": dict(
        heads=4, kv_heads=2, options=dict(causal=False, key_lengths_B=jnp.array([3, 12])), key_length=12, context=4
    ),
    "dropout": dict(
        heads=4,
        kv_heads=1,
        options=dict(dropout=0.3, dropout_keys_B=jax.random.split(jax.random.key(0), B)),
        context=2,
        tensor=1,
    ),
}


def always(cases, *names):
    """Runs the named cases always, and the others only in `make test-exhaustive`."""
    return [pytest.param(case, marks=[] if case in names else pytest.mark.exhaustive) for case in cases]


@pytest.mark.parametrize(
    "case", always(CASES, "fewer_kv_heads_packed_window", "heads_over_tensor_too", "another_sequence", "dropout")
)
def test_all_to_all_equals_undivided_attention(case):
    alone, divided = of_one_and_of_many(**CASES[case])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5), alone, divided)


RING = {
    "zigzag": dict(heads=3, kv_heads=3, context=4),
    "zigzag_on_three_packed_and_grouped": dict(
        heads=4, kv_heads=2, options=dict(segments_BT=SEGMENTS[:, :24]), length=24, context=3, tensor=2
    ),
    "bent": dict(heads=4, kv_heads=2, scores=biased, context=2, tensor=2, data=2),
    "window_within_a_device": dict(heads=2, kv_heads=1, options=dict(window=6, segments_BT=SEGMENTS), context=4),
    "window_over_devices": dict(heads=2, kv_heads=2, options=dict(window=11), scores=biased, context=4),
    "both_sides": dict(heads=2, kv_heads=1, options=dict(causal=False, window=5, segments_BT=SEGMENTS), context=4),
    "odd_parts": dict(heads=2, kv_heads=1, length=20, context=4),
    "another_sequence": dict(
        heads=3, kv_heads=3, options=dict(causal=False, key_lengths_B=jnp.array([3, 12])), key_length=12, context=4
    ),
    "packed_pairs": dict(
        heads=2,
        kv_heads=1,
        options=dict(
            causal=False,
            segments_BT=SEGMENTS.clip(1, 3),
            key_segments_BS=jnp.array([[1] * 9 + [2] * 4 + [0] * 3, [3] * 16]),
        ),
        key_length=16,
        context=4,
        data=2,
    ),
}


@pytest.mark.parametrize(
    "case",
    always(
        RING,
        "zigzag_on_three_packed_and_grouped",
        "bent",
        "window_over_devices",
        "both_sides",
        "odd_parts",
        "packed_pairs",
    ),
)
def test_ring_equals_undivided_attention(case):
    alone, divided = of_one_and_of_many(**RING[case], context_attention="ring")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5), alone, divided)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_zigzag_gives_every_device_the_same_work_and_covers_every_pair_once(size):
    """Together, the blocks of all devices are the pairs that causal attention needs, each exactly once."""
    ring = Ring("context", size, 8, True, 0, 2, 0.0, 0.0, None)
    seen = np.zeros((8 * size, 8 * size), int)
    work = np.zeros((size, ring.steps), int)
    for device, step in np.ndindex(work.shape):
        rows_t, rows_s = np.asarray(ring.rows(device)), np.asarray(ring.rows((device - step) % size))
        blocks = list(zip(*ring.blocks(device, step if step == 0 else np.int32(step))))
        work[device, step] = len(blocks)
        for first, key in blocks:
            seen[np.ix_(rows_t[first : first + ring.queries], rows_s[key : key + ring.keys])] += 1
    assert (work == work[0]).all() and list(work[0]) == [6] + [4] * (size - 1)
    needed = np.tril(np.ones_like(seen)).astype(bool)
    assert seen.max() == 1 and (seen[needed] == 1).all()


def test_keys_travel_only_as_far_as_the_window_reaches():
    def steps(window, causal=True):
        return Ring("context", 8, 16, causal, window, 4, 0.0, 0.0, None).steps

    assert [steps(window) for window in (0, 1, 2, 17, 18, 1000)] == [8, 1, 2, 2, 3, 8]
    assert steps(2, causal=False) == 8


def sent(config, devices):
    """The number of collectives of each kind in the compiled step."""
    made = plan(config, DataFacts(32), jax.devices()[:devices])
    with jax.set_mesh(made.mesh):
        text = made.trainer.compile_train_step(made.abstract_batch).as_text()
    return Counter(re.findall(r" (all-\w+-?\w*|reduce-scatter|collective-permute)(?:-start)?\(", text))


def test_only_attention_sends_activations(tiny_config):
    """The one layer sends queries, keys, values and outputs once forward and once backward. Nothing is gathered."""
    counts = sent(tiny_config(mesh__data=1, mesh__context=4, model__num_layers=1), 4)
    assert counts["all-to-all"] == 4 * 2
    assert set(counts) == {"all-to-all", "all-reduce"}, counts


def test_devices_of_one_sequence_gather_the_matrices_of_layers_together(tiny_config):
    """Each of them sends its part of a matrix to all of the others, whatever their place in fsdp and context."""
    config = tiny_config(mesh__data=1, mesh__fsdp=2, mesh__context=2, model__layers="scan")
    made = plan(config, DataFacts(32), jax.devices()[:4])
    with jax.set_mesh(made.mesh):
        every = collectives_of(made.trainer.compile_train_step(made.abstract_batch).as_text(), 4)
    in_loops = [each for each in every if each.times == config.model.num_layers]
    assert {each.group for each in in_loops if each.kind == "all-gather"} == {(0, 1, 2, 3)}


def test_a_ring_sends_only_to_neighbours(tiny_config):
    config = tiny_config(mesh__data=1, mesh__context=4, mesh__context_attention="ring", model__num_layers=1)
    assert set(sent(config, 4)) == {"collective-permute", "all-reduce"}


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(mesh__context=3), r"^data\.sequence_length = 8: must be divisible by mesh\.context = 3"),
        (
            dict(mesh__context=4, mesh__tensor=2, mesh__context_attention="all_to_all"),
            r"^mesh\.context_attention = 'all_to_all' with model\.num_heads = 4: heads must be divisible by 8",
        ),
        (
            dict(mesh__context=4, mesh__tensor=2, model__attention_dropout=0.1),
            r"^model\.attention_dropout = 0\.1: must be 0 with mesh\.context_attention = 'auto', which is 'ring'",
        ),
        (dict(mesh__context_attention="ring"), r"^mesh\.context_attention = 'ring': must be 'auto' where"),
    ],
)
def test_configs_that_do_not_divide_are_refused(tiny_config, fields, message):
    config = tiny_config(**dict(mesh__data=1) | fields)
    devices = config.mesh.context * config.mesh.tensor
    with pytest.raises(ConfigError, match=message):
        plan(config, DataFacts(32), jax.devices()[:devices])
