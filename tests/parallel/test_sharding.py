"""The table of shardings: each parameter in exactly one row, statistics placed like their parameters."""

import functools

import jax
import pytest

from gptjax.config import ConfigError
from gptjax.data.facts import DataFacts
from gptjax.model.decoder import init_params
from gptjax.parallel.mesh import make_mesh
from gptjax.parallel.sharding import matching_rows, params_sharding, spec_of
from gptjax.planning import plan
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


# By hand, for fsdp 2 and tensor 2: the shape of each array, and that of the part which one device holds. The width
# of 16 is halved by fsdp, heads and feed-forward columns by tensor, the embedding by both; the stack of 2 layers
# and vectors are whole.
PARTS = {
    "embedding": ((32, 16), (32, 4)),
    "final_norm/scale": ((16,), (16,)),
    "layers/attention/query": ((2, 16, 4, 4), (2, 8, 2, 4)),
    "layers/attention/key": ((2, 16, 2, 4), (2, 8, 1, 4)),
    "layers/attention/value": ((2, 16, 2, 4), (2, 8, 1, 4)),
    "layers/attention/output": ((2, 4, 4, 16), (2, 2, 4, 8)),
    "layers/attention_norm/scale": ((2, 16), (2, 16)),
    "layers/feedforward/gate": ((2, 16, 64), (2, 8, 32)),
    "layers/feedforward/up": ((2, 16, 64), (2, 8, 32)),
    "layers/feedforward/down": ((2, 64, 16), (2, 32, 8)),
    "layers/feedforward_norm/scale": ((2, 16), (2, 16)),
}


@pytest.mark.parametrize("optimizer, copies", [("adamw", 2), ("muon", 1), ("lion", 1), ("sgd", 1), ("adafactor", 1)])
def test_a_device_holds_its_part_of_parameters_and_statistics(tiny_config, optimizer, copies):
    config = tiny_config(mesh__data=2, mesh__fsdp=2, mesh__tensor=2, optimizer__name=optimizer)
    state = plan(config, DataFacts(vocab_size=32), jax.devices()).abstract_state
    params = leaves_by_path(state.params)
    assert {path: (leaf.shape, leaf.sharding.shard_shape(leaf.shape)) for path, leaf in params.items()} == PARTS
    statistics = [(path, leaf) for path, leaf in leaves_by_path(state.opt_state).items() if leaf.size > 1]
    mirrors = {name: 0 for name in PARTS}
    for path, leaf in statistics:
        (name,) = (name for name in PARTS if path.endswith(f"/{name}"))
        assert (leaf.shape, leaf.sharding.shard_shape(leaf.shape)) == PARTS[name], path
        mirrors[name] += 1
    assert min(mirrors.values()) >= copies  # nothing was overlooked
