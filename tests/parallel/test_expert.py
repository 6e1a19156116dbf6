"""Experts divided over devices: what each exchange sends, and which configs are refused."""

import functools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from gptjax.config import ConfigError
from gptjax.data.facts import DataFacts
from gptjax.model.mixture_of_experts import mixture
from gptjax.parallel import expert
from gptjax.parallel.mesh import BATCH_AXES, make_mesh
from gptjax.parallel.traffic import collectives_of
from gptjax.planning import plan
from gptjax.settings import MeshSettings, ModelSettings

B, T, D, F, E, DEVICES = 8, 16, 12, 20, 8, 4  # rows per device: 2


def program(exchange, **fields):
    """The compiled gradient of a mixture on four devices."""
    model = ModelSettings(num_experts=E, feedforward_width=F, expert_products="loop", **fields)
    mesh = make_mesh(MeshSettings(expert=DEVICES), jax.devices()[:DEVICES])

    def loss(x_BTD, weights):
        real_BT = jnp.ones(x_BTD.shape[:2], bool)
        return jnp.sum(jnp.sin(expert.divided(functools.partial(mixture, model), x_BTD, real_BT, weights, exchange)[0]))

    with jax.set_mesh(mesh):
        split = functools.partial(jax.sharding.NamedSharding, mesh)
        shapes = dict(router=(D, E), gate=(E, D, F), up=(E, D, F), down=(E, F, D))
        specs = {name: P() if name == "router" else P("expert") for name in shapes}
        weights = {n: jax.ShapeDtypeStruct(s, jnp.float32, sharding=split(specs[n])) for n, s in shapes.items()}
        x_BTD = jax.ShapeDtypeStruct((B, T, D), jnp.float32, sharding=split(P(BATCH_AXES)))
        return jax.jit(jax.grad(loss, (0, 1))).lower(x_BTD, weights).compile().as_text()


def floats_sent(text):
    """The number of floats that a device sends in arrays as wide as the residual stream, by collective."""
    sent = dict.fromkeys(("all-gather", "reduce-scatter", "all-to-all"), 0.0)
    for line in text.splitlines():
        found = re.search(r" (all-gather|reduce-scatter|all-to-all)(?:-start)?\(", line)
        if found:
            result = line[: found.start()].partition(" = ")[2]
            sizes = [
                np.prod([int(n) for n in dims.split(",")]) for dims in re.findall(rf"f32\[([\d,]*\b{D})\]", result)
            ]
            times = DEVICES if found[1] == "reduce-scatter" else 1  # its result is one part of what is sent
            sent[found[1]] += times * sum(sizes) * (DEVICES - 1) / DEVICES
    return sent


def test_the_ring_sends_tokens_and_all_to_all_sends_choices():
    """Counts one forward and one backward pass; auto picks the exchange that sends less."""
    ring = floats_sent(program("ring", experts_per_token=4, expert_capacity=1.25))
    tokens = B * T * D * (DEVICES - 1) / DEVICES
    assert ring == {"all-gather": 2 * tokens, "reduce-scatter": 2 * tokens, "all-to-all": 0}
    exchanged = floats_sent(program("all_to_all", experts_per_token=2, expert_capacity=1.25))
    assert exchanged == {"all-gather": 0, "reduce-scatter": 0, "all-to-all": 4 * tokens / DEVICES * 2 * 1.25}
    assert floats_sent(program("auto", experts_per_token=2, expert_capacity=1.25)) == exchanged
    assert floats_sent(program("auto", experts_per_token=4, expert_capacity=1.25)) == ring


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(mesh__expert=3), "mesh.expert = 3 with model.num_experts = 4: must divide it"),
        (dict(mesh__expert_exchange="ring"), "mesh.expert_exchange = 'ring': must be 'auto' where mesh.expert is 1"),
        (dict(mesh__expert=2, mesh__expert_exchange="all_to_all"), "expert_capacity = 0: needs a capacity"),
        (dict(mesh__expert=2, model__num_experts=0), "mesh.expert = 2 with model.num_experts = 0: must be 1"),
    ],
    ids=str,
)
def test_configs_that_do_not_divide_are_refused(tiny_config, fields, message):
    config = tiny_config(**dict(model__num_experts=4, mesh__data=1, training__batch_size=6) | fields)
    with pytest.raises(ConfigError, match=re.escape(message)):
        plan(config, DataFacts(vocab_size=32), jax.devices()[: config.mesh.expert])


@pytest.mark.parametrize(
    "exchange, expected",
    [
        (
            "ring",
            {("all-gather", 1): 2, ("all-gather", 1 / 8): 2, ("reduce-scatter", 1): 2, ("reduce-scatter", 1 / 8): 1},
        ),
        ("all_to_all", {("all-to-all", 1 / 4 * 2): 4}),
    ],
)
def test_each_layer_sends_its_tokens_and_no_expert_is_ever_sent(tiny_config, exchange, expected):
    """By kind, and bytes as a multiple of those of the tokens of a micro-batch. A ring also gathers the numbers of each
    token's two experts and their shares: 2 numbers for 16. With a capacity of 1, a device sends both choices of its
    quarter of the tokens. Gradients of what all devices hold are all-reduced, those of experts are not sent.
    """
    layers, micro_batches, rows = 3, 2, 16
    fields = dict(model__num_experts=4, model__feedforward_width=12, model__num_layers=layers, model__layers="scan")
    fields |= dict(mesh__data=1, mesh__expert=DEVICES, mesh__expert_exchange=exchange, optimizer__name="adamw")
    fields |= dict(model__expert_capacity=1.0 if exchange == "all_to_all" else 0.0)
    config = tiny_config(**fields, training__gradient_accumulation_steps=micro_batches)
    made = plan(config, DataFacts(vocab_size=32), jax.devices()[:DEVICES])
    with jax.set_mesh(made.mesh):
        every = collectives_of(made.trainer.compile_train_step(made.abstract_batch).as_text(), DEVICES)
    tokens = 4 * rows // micro_batches * config.data.sequence_length * config.model.width
    others = [each for each in every if each.kind != "all-reduce"]
    assert Counter((each.kind, each.bytes / tokens) for each in others) == expected
    assert {each.times for each in others} == {layers * micro_batches}
