"""Gradients are summed over devices once per step, and no device repeats the work of another."""

import functools
import math

import jax
import pytest
from compiled_work import work_of

from gptjax.data.facts import DataFacts
from gptjax.parallel.traffic import collectives_of
from gptjax.planning import plan


def compiled_step(config, devices):
    made = plan(config, DataFacts(vocab_size=32), jax.devices()[:devices])
    with jax.set_mesh(made.mesh):
        return made, made.trainer.compile_train_step(made.abstract_batch)


@pytest.mark.parametrize("mesh", [dict(data=4), dict(data=2, fsdp=2)], ids=str)
def test_replicas_sum_their_gradients_once_per_step(tiny_config, mesh):
    """The all-reduce is neither in the loop over micro-batches nor in the loop over layers, and each device sends only
    its part of the gradients.
    """
    fields = {f"mesh__{axis}": size for axis, size in mesh.items()} | dict(training__gradient_accumulation_steps=2)
    made, compiled = compiled_step(tiny_config(model__layers="scan", **fields), 4)
    replica = set(range(mesh.get("fsdp", 1)))
    sent = [each for each in collectives_of(compiled.as_text(), 4) if not set(each.group) <= replica]
    assert {(each.kind, each.times) for each in sent} == {("all-reduce", 1)}
    parts = [leaf.sharding.shard_shape(leaf.shape) for leaf in jax.tree.leaves(made.abstract_state.params)]
    gradients = 4 * sum(map(math.prod, parts))
    assert gradients <= sum(each.bytes for each in sent) < 1.1 * gradients


@functools.cache
def products_of_one_device(config):
    return work_of(compiled_step(config, 1)[1])["products"]


@pytest.mark.parametrize("mesh", [dict(data=2, fsdp=2), dict(tensor=2), dict(context=2)], ids=str)
def test_the_work_of_one_device_is_divided_equally(tiny_config, mesh):
    """Compares FLOPs of matrix products; with `data`, two micro-batches per step."""
    fields = {f"mesh__{axis}": size for axis, size in (dict(data=1) | mesh).items()}
    fields |= dict(training__gradient_accumulation_steps=2) if "data" in mesh else {}
    devices = math.prod(mesh.values())
    work = work_of(compiled_step(tiny_config(model__layers="scan", **fields), devices)[1])
    assert work["products"] * devices == products_of_one_device(tiny_config(model__layers="scan", mesh__data=1))
