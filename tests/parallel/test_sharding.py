"""The table of shardings: each parameter in exactly one row, statistics placed like their parameters."""

import functools

import jax
import pytest
from jax.sharding import PartitionSpec as P

from gptjax.config import ConfigError
from gptjax.model.decoder import init_params
from gptjax.parallel.mesh import make_mesh
from gptjax.parallel.sharding import matching_rows, params_sharding, spec_of
from gptjax.training.trainer import make_trainer
from gptjax.tree import leaves_by_path

EVERYTHING = dict(
    model__bias="all",
    model__norm="layernorm",
    model__qk_norm=True,
    model__position="learned",
    model__tied_embeddings=False,
)


def shapes_of(config):
    return jax.eval_shape(functools.partial(init_params, config.model), jax.random.key(0))


@pytest.mark.parametrize("fields", [EVERYTHING, {}, dict(model__feedforward="relu2")], ids=["all", "default", "relu2"])
def test_every_parameter_matches_exactly_one_row(tiny_config, fields):
    shapes = leaves_by_path(shapes_of(tiny_config(**fields)))
    assert {path: len(matching_rows(path)) for path in shapes} == dict.fromkeys(shapes, 1)
    for path, leaf in shapes.items():
        assert len(spec_of(path)) <= leaf.ndim, path
        if path.startswith("layers/"):
            assert not spec_of(path) or spec_of(path)[0] is None, f"{path}: the stack axis is never split"


def test_a_parameter_that_the_table_does_not_know_is_an_error():
    with pytest.raises(ConfigError, match=r"attention/gate' matches 0 rows of TABLE in gptjax/parallel/sharding\.py"):
        spec_of("layers/attention/gate")


def test_a_mesh_that_does_not_divide_a_parameter_is_refused(tiny_config):
    config = tiny_config(mesh__data=1, mesh__tensor=8)
    with pytest.raises(ConfigError, match=r"layers/attention/.*\(2, 16, \d, 4\).*mesh\.tensor = 8"):
        params_sharding(make_mesh(config.mesh), shapes_of(config))


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "lion", "sgd", "adafactor"])
def test_statistics_are_placed_like_their_parameters(tiny_config, optimizer):
    config = tiny_config(mesh__data=2, mesh__fsdp=2, mesh__tensor=2, optimizer__name=optimizer)
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        state = make_trainer(config, mesh, 20, lambda text: 1).abstract_state
    params = leaves_by_path(state.params)
    mirrored = 0
    for path, leaf in leaves_by_path(state.opt_state).items():
        tail = next((name for name in params if path.endswith("/" + name)), None)
        if tail and params[tail].shape == leaf.shape:
            assert leaf.sharding == params[tail].sharding, path
            mirrored += 1
    assert mirrored >= (1 if optimizer == "adafactor" else len(params))
    assert params["layers/attention/query"].sharding.spec == P(None, "fsdp", "tensor", None)
