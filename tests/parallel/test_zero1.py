"""ZeRO-1: the optimizer's state divided over the devices of `data`, which hold whole parameters."""

import math

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from one_step import random_batch

from gptjax.data.facts import DataFacts
from gptjax.model.families import family_of
from gptjax.model.tree import leaves_by_path
from gptjax.parallel.distributed import local_rows, put_batch
from gptjax.parallel.mesh import make_mesh
from gptjax.parallel.sharding import update_spec
from gptjax.planning import plan


def after_steps(config, steps=2):
    """The state after some steps on random batches, starting from random parameters."""
    made = plan(config, DataFacts(vocab_size=32), jax.devices()[: config.mesh.data])
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda x: draw.normal(0, 0.3, x.shape).astype(x.dtype), made.abstract_state.params)
    rows = local_rows(made.mesh, config.training.batch_size, 1)
    with jax.set_mesh(made.mesh):
        compiled, state = made.trainer.compile_train_step(made.abstract_batch), made.trainer.init(params)
        for _ in range(steps):
            batch = random_batch(made.trainer.objective.row_fields(), config.training.batch_size, draw)
            state, _ = compiled(state, put_batch(made.mesh, batch, rows, config.training.batch_size, 1))
    return state, compiled


def test_the_update_equals_that_of_one_device_and_its_state_is_divided(tiny_config):
    fields = dict(optimizer__name="muon", training__ema_decay=0.9, training__batch_size=4, model__layers="scan")
    alone, _ = after_steps(tiny_config(**fields, mesh__data=1))
    divided, compiled = after_steps(tiny_config(**fields, mesh__data=4, mesh__zero1=True))

    def same(one, other):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)

    jax.tree.map(same, *jax.device_get((alone, divided)))
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(divided.params))
    for leaf in jax.tree.leaves((divided.opt_state, divided.ema)):
        assert leaf.addressable_shards[0].data.size == leaf.size / (4 if leaf.size > 4 else 1), leaf.shape
    _, whole = after_steps(tiny_config(**fields, mesh__data=4), steps=0)
    size_of_parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(divided.params))
    saved = whole.memory_analysis().argument_size_in_bytes - compiled.memory_analysis().argument_size_in_bytes
    assert saved > 1.5 * size_of_parameters  # three quarters of the averages, momenta and second moments


@pytest.mark.parametrize(
    "mesh, specs",
    [
        (
            dict(data=2),
            {
                "layers/attention/query": P(("pipeline", "data"), "fsdp", "tensor"),
                "embedding": P("data", ("pipeline", "fsdp", "tensor")),
            },
        ),
        (
            dict(data=4),
            {
                "layers/attention/query": P("pipeline", ("fsdp", "data"), "tensor"),
                "embedding": P("data", ("pipeline", "fsdp", "tensor")),
            },
        ),
        (dict(data=2, fsdp=2, tensor=2), {"final_norm/scale": P("data")}),
        (dict(data=3), {"layers/attention/query": P("pipeline", "fsdp", "tensor"), "final_norm/scale": P()}),
    ],
    ids=str,
)
def test_which_axis_is_divided_over_data(tiny_config, mesh, specs):
    fields = {f"mesh__{axis}": size for axis, size in mesh.items()}
    config = tiny_config(**fields)
    declared = leaves_by_path(family_of(config.model).declarations)
    divided = make_mesh(config.mesh, jax.devices()[: math.prod(mesh.values())])
    found = {path: update_spec(declared[path], divided) for path in specs}
    assert found == specs
