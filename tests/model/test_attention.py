"""The backends against the reference, in values and gradients; their cost; what they refuse."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled_products import library_products

from gptjax.config import ConfigError, default
from gptjax.model.attention import attend, attention, cached_attention
from gptjax.model.attention_backends import BACKENDS, select_backend
from gptjax.model.attention_scores import Scores
from gptjax.model.dropout import row_keys
from gptjax.model.resolve import resolve_model


def inputs(length, num_heads=4, num_kv_heads=2, batch=2, head_width=8, dtype=np.float32):
    rng = np.random.default_rng(0)
    heads = (num_heads, num_kv_heads, num_kv_heads)
    return tuple(rng.standard_normal((batch, length, n, head_width)).astype(dtype) for n in heads)


def value_and_gradients(backend, length, segments_BT=None, num_kv_heads=2, **options):
    def loss(q, k, v):
        out = attention(q, k, v, backend=backend, segments_BT=segments_BT, **options)
        return (jnp.sin(out) * jnp.arange(out.size).reshape(out.shape)).sum() / out.size, out

    q, k, v = inputs(length, num_kv_heads=num_kv_heads)
    (_, out), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    return out, *gradients


SEGMENTS = np.stack([np.repeat([1, 2, 3, 0], [7, 3, 5, 2]), np.repeat([1, 2], [1, 16])]).astype(np.int32)

BENT = Scores(
    scale=0.7, softcap=1.5, bias=lambda d_BTS: -0.1 * d_BTS[:, None] * jnp.ones((1, 4, 1, 1)), sinks_N=jnp.arange(4.0)
)

# T = 17 in blocks of 4: twice two blocks in a loop, and a last block of one row
CASES = {
    "loops": dict(),
    "written_out": dict(block=12),
    "one_block": dict(block=64, num_kv_heads=4),
    "window_in_a_block": dict(window=3),
    "window_over_blocks": dict(window=6, num_kv_heads=1),
    "window_past_the_start": dict(window=40),
    "window_of_one_written_out": dict(block=9, window=1),
    "segments": dict(segments_BT=SEGMENTS),
    "segments_window": dict(segments_BT=SEGMENTS, window=5),
    "bent": dict(scores=BENT),
    "bent_window": dict(scores=BENT, window=6, segments_BT=SEGMENTS),
}


def test_the_definition_equals_numpy_with_keys_of_another_sequence():
    """Computed head by head in float64, with queries of one sequence, keys and values of a longer one, and any mask."""
    q, _, _ = inputs(5)
    _, k, v = inputs(9)
    mask = np.random.default_rng(3).random((2, 5, 9)) < 0.5
    mask[:, :, 4] = True  # every query sees a key
    out = attend(q, k, v, jnp.asarray(mask))
    for row, head in np.ndindex(2, 4):
        queries, keys, values = (np.float64(x[row, :, n]) for x, n in ((q, head), (k, head // 2), (v, head // 2)))
        weights = np.where(mask[row], np.exp(queries @ keys.T / np.sqrt(8)), 0)
        expected = weights / weights.sum(-1, keepdims=True) @ values
        np.testing.assert_allclose(out[row, :, head], expected, rtol=1e-5, atol=1e-6)


@functools.cache
def of_reference(case, **options):
    return value_and_gradients("reference", 17, **options, **CASES[case])


def cases_and_kept_positions():
    """Each case without saved probabilities, and two cases with them; all combinations if exhaustive."""
    for case in CASES:
        yield pytest.param(case, 0, id=f"{case}-0")
        marks = [] if case in ("loops", "bent_window") else pytest.mark.exhaustive
        yield pytest.param(case, 17, id=f"{case}-17", marks=marks)


@pytest.mark.parametrize("case, kept_positions", list(cases_and_kept_positions()))
def test_xla_equals_reference(case, kept_positions, monkeypatch):
    monkeypatch.setattr("gptjax.model.attention_backends.MAX_PROGRAMS", 2)
    monkeypatch.setattr("gptjax.model.attention_backends.KEPT_POSITIONS", kept_positions)
    actual = value_and_gradients("xla", 17, **{"block": 4, **CASES[case]})
    for a, b in zip(actual, of_reference(case)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("platform, length, block", [("cpu", 2048, 64), ("cpu", 2049, 32), ("gpu", 4096, 512)])
def test_blocks_are_smaller_for_long_sequences_on_a_cpu(platform, length, block):
    made = resolve_model(default().model, platform=platform, vocab_size=32, sequence_length=length)
    assert made.attention_block == block


@pytest.mark.parametrize(
    "case",
    [
        *(pytest.param(case, marks=pytest.mark.exhaustive) for case in ("loops", "window_in_a_block", "segments")),
        "window_over_blocks",
    ],
)
def test_xla_drops_out_the_same_probabilities_as_the_reference(case, monkeypatch):
    monkeypatch.setattr("gptjax.model.attention_backends.MAX_PROGRAMS", 2)
    monkeypatch.setattr("gptjax.model.attention_backends.KEPT_POSITIONS", 0)
    options = {"block": 4, "dropout": 0.4, "dropout_keys_B": row_keys(jax.random.key(1), 0, 2), **CASES[case]}
    expected = value_and_gradients("reference", 17, **options)
    for a, b in zip(value_and_gradients("xla", 17, **options), expected):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert np.abs(of_reference(case)[0] - expected[0]).max() > 0.1


@pytest.mark.parametrize("num_kv_heads", [pytest.param(4, marks=pytest.mark.exhaustive), 2])
def test_dropout_zeroes_a_fraction_of_the_probabilities_and_scales_up_the_rest(num_kv_heads):
    """With one-hot values, the output is the row of probabilities, with zeros where they are dropped out."""
    length, rate = 24, 0.3
    q, k, _ = inputs(length, num_kv_heads=num_kv_heads, head_width=length)
    one_hot = jnp.broadcast_to(jnp.eye(length)[None, :, None], k.shape)
    plain = attention(q, k, one_hot, backend="reference")
    keys_B = row_keys(jax.random.key(2), 0, 2)
    dropped = attention(q, k, one_hot, backend="reference", dropout=rate, dropout_keys_B=keys_B)
    kept = dropped != 0
    np.testing.assert_allclose(dropped, jnp.where(kept, plain / (1 - rate), 0.0), rtol=1e-5)
    seen = np.asarray(plain) != 0
    assert np.asarray(kept)[seen].mean() == pytest.approx(1 - rate, abs=0.03)  # of 2,400
    masks = np.asarray(kept | ~seen).reshape(2, length, 4, length)
    assert not (masks[0] == masks[1]).all()
    for one, other in itertools.combinations(range(4), 2):
        assert not (masks[:, :, one] == masks[:, :, other]).all(), "heads differ"


@pytest.mark.parametrize(
    "field, scores",
    [
        ("attention_softcap", Scores(softcap=2.0)),
        ("position", Scores(bias=lambda distance_BTS: 0.0 * distance_BTS[:, None])),
        ("attention_sinks", Scores(sinks_N=jnp.zeros(4))),
    ],
)
def test_cudnn_refuses_options_that_act_between_its_products(field, scores):
    values = dict(attention_softcap=2.0, position="alibi", attention_sinks=True)
    section = default().model
    section.update({field: values[field], "attention": "auto"})
    facts = dict(vocab_size=32, sequence_length=256)
    assert resolve_model(section, platform="gpu", **facts).attention == "xla"
    section.attention = "cudnn"
    for refused in (
        lambda: resolve_model(section, platform="gpu", **facts),
        lambda: attention(*inputs(4, dtype="bfloat16"), backend="cudnn", scores=scores),
    ):
        with pytest.raises(ConfigError, match=rf"'cudnn': it does not support this model\.{field}; use xla"):
            refused()


def test_cudnn_refuses_dropout_and_auto_selects_a_backend_with_it():
    facts = dict(platform="gpu", dtype="bfloat16", sequence_length=256, head_width=64, packed=False)
    assert (select_backend("auto", **facts), select_backend("auto", **facts, needs=["model.attention_dropout"])) == (
        "cudnn",
        "xla",
    )
    with pytest.raises(
        ConfigError, match=r"model\.attention = 'cudnn': it does not support .*attention_dropout.*use xla"
    ):
        select_backend("cudnn", **facts, needs=["model.attention_dropout"])
    with pytest.raises(ConfigError, match="does not support"):
        attention(*inputs(4), backend="cudnn", dropout=0.1, dropout_keys_B=row_keys(jax.random.key(0), 0, 2))


@pytest.mark.parametrize("window, segments", [(0, None), (3, None), (0, SEGMENTS[:1, :11])])
@pytest.mark.parametrize("backend", ["reference", "xla"])
def test_gradients_show_which_keys_a_query_sees(backend, window, segments):
    """A query sees exactly the keys of its window and segment up to itself."""
    q, k, v = inputs(11, batch=1)

    def outputs(v):
        return attention(q, k, v, backend=backend, window=window, segments_BT=segments, block=4)[0].sum((1, 2))

    influence = np.abs(jax.jit(jax.jacrev(outputs))(v))[:, 0].max((2, 3))
    t, s = np.mgrid[:11, :11]
    expected = (s <= t) & (t - s < (window or 11))
    if segments is not None:
        expected &= segments[0][t] == segments[0][s]
    np.testing.assert_array_equal(influence > 0, expected)


@pytest.mark.parametrize("backend", ["reference", "xla"])
def test_softmax_is_float32_under_bfloat16(backend):
    """Logits of a few hundred that differ by 1/4 are equal in bfloat16; the softmax must still distinguish them."""
    q = jnp.full((1, 2, 1, 4), 16.0, jnp.bfloat16)
    k = jnp.array([[16.0, 16.0, 16.0, 16.0], [16.0, 16.0, 16.0, 15.9375]], jnp.bfloat16)[None, :, None]
    v = jnp.array([1.0, 0.0], jnp.bfloat16)[None, :, None, None] * jnp.ones(4, jnp.bfloat16)
    out = attention(q, k, v, backend=backend)
    logits = np.array([512.0, 511.5])
    expected = np.exp(logits[0] - 512) / np.exp(logits - 512).sum()
    np.testing.assert_allclose(np.float32(out[0, 1, 0]), expected, rtol=0.01)


def compiled(backend, length, window=0):
    shape = jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)
    loss = lambda q, k, v: jnp.square(attention(q, k, v, backend=backend, window=window, block=32)).sum()  # noqa: E731
    return jax.jit(jax.grad(loss, (0, 1, 2))).lower(shape, shape, shape).compile()


def test_xla_memory_grows_with_t_and_not_its_square():
    memory = {
        (backend, length): compiled(backend, length).memory_analysis().temp_size_in_bytes
        for backend in ("reference", "xla")
        for length in (512, 1024)
    }
    assert memory["reference", 1024] > 3.5 * memory["reference", 512]
    assert memory["xla", 1024] < 2.2 * memory["xla", 512]
    assert memory["xla", 1024] < 0.1 * memory["reference", 1024]


def test_xla_computes_only_the_lower_triangle():
    """Compares FLOPs of compiled programs without loops (XLA counts the body of a loop once)."""
    whole = compiled("reference", 128).cost_analysis()["flops"]
    assert compiled("xla", 128).cost_analysis()["flops"] < 0.66 * whole  # 10 of 16 blocks, nothing recomputed
    assert compiled("xla", 128, window=32).cost_analysis()["flops"] < 0.65 * whole  # at most 2 blocks per row


@pytest.mark.parametrize("num_kv_heads", [2, 4])
@pytest.mark.parametrize("backend", ["reference", "xla"])
def test_sharded_batch_and_heads_need_no_communication(backend, num_kv_heads):
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=auto)
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data", None, "tensor", None))
    shapes = [
        jax.ShapeDtypeStruct((4, 24, n, 8), jnp.float32, sharding=sharding) for n in (4, num_kv_heads, num_kv_heads)
    ]
    loss = lambda q, k, v: attention(q, k, v, backend=backend, block=4, window=9).sum()  # noqa: E731
    gradients = jax.jit(jax.grad(loss, (0, 1, 2)), out_shardings=sharding)
    assert not re.findall(r"all-\w+|collective-permute|reduce-scatter", gradients.lower(*shapes).compile().as_text())


GPU = dict(platform="gpu", dtype="bfloat16", sequence_length=1024, head_width=64, packed=False)


class TestSelectBackend:
    def test_auto_is_cudnn_where_it_runs_and_xla_elsewhere(self):
        assert select_backend("auto", **GPU) == "cudnn"
        for obstacle in (
            dict(platform="cpu"),
            dict(dtype="float32"),
            dict(sequence_length=1023),
            dict(head_width=60),
            dict(head_width=512),
            dict(packed=True),
        ):
            assert select_backend("auto", **{**GPU, **obstacle}) == "xla"

    @pytest.mark.parametrize("name", BACKENDS)
    def test_an_explicit_choice_is_kept(self, name):
        assert select_backend(name, **GPU) == name

    @pytest.mark.parametrize(
        "obstacle, said",
        [
            (dict(platform="cpu"), "cpu"),
            (dict(dtype="float32"), "float32"),
            (dict(sequence_length=1023), "1023"),
            (dict(head_width=60), "60"),
            (dict(packed=True), "packed"),
        ],
    )
    def test_an_impossible_choice_is_refused_with_the_alternative(self, obstacle, said):
        with pytest.raises(ConfigError, match=rf"model.attention = 'cudnn'.*{said}.*use xla"):
            select_backend("cudnn", **{**GPU, **obstacle})

    def test_unknown_names_are_refused(self):
        with pytest.raises(ConfigError, match=r"model.attention = 'flash'.*auto, reference, xla, cudnn"):
            select_backend("flash", **GPU)
        with pytest.raises(ConfigError, match=r"model.attention = 'auto'"):
            attention(*inputs(4), backend="auto")


@pytest.mark.parametrize(
    "dtype, length, head_width, segments, said",
    [
        ("float32", 8, 8, None, "float32"),
        ("bfloat16", 7, 8, None, "7"),
        ("bfloat16", 8, 12, None, "12"),
        ("bfloat16", 8, 8, np.ones((2, 8), np.int32), "packed"),
    ],
)
def test_cudnn_refuses_unsupported_inputs(dtype, length, head_width, segments, said):
    arrays = inputs(length, head_width=head_width, dtype=dtype)
    with pytest.raises(ConfigError, match=rf"model.attention = 'cudnn'.*{said}.*use xla"):
        attention(*arrays, backend="cudnn", segments_BT=segments)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="here cuDNN is")
def test_cudnn_is_refused_on_a_machine_without_it():
    with pytest.raises(ConfigError, match=r"model.attention = 'cudnn'.*use xla"):
        attention(*inputs(8, dtype="bfloat16"), backend="cudnn")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_products_of_a_new_token_with_the_cache_use_the_library(dtype):
    """With another order of axes, XLA:CPU does not use its library for the second product, which is ten times
    slower."""
    q, k = jnp.ones((8, 1, 6, 64), dtype), jnp.ones((8, 2, 128, 64), dtype)
    attend = functools.partial(cached_attention, positions_BT=jnp.full((8, 1), 100))
    operand = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    assert library_products(attend, q, k, k) == [f"{operand} {operand} -> f32"] * 2
