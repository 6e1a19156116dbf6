"""A parameter is declared in one line, and its declaration matches the array."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import ConfigError
from gptjax.data.facts import DataFacts
from gptjax.inference.decode import decoding_params
from gptjax.model import decoder, family, feedforward
from gptjax.model.families import family_of
from gptjax.model.parameters import (
    Parameter,
    abstract_params,
    count_parameters,
    declarations_of,
    lookup,
    matrix,
    stacked,
    vector,
)
from gptjax.model.tree import leaves_by_path
from gptjax.planning import plan
from gptjax.training.optimizers.treatments import METHODS, treatments_of

EVERYTHING = dict(bias="all", norm="layernorm", qk_norm=True, position="learned", tied_embeddings=False)
ONES = nn.initializers.ones


@pytest.mark.parametrize("changes", [EVERYTHING, {}, dict(feedforward="relu2", layers="scan", bias="qkv")])
def test_declarations_match_the_arrays(changes, model_config):
    config = model_config(**changes)
    made = jax.eval_shape(lambda: family_of(config).init_params(jax.random.key(0)))
    assert abstract_params(family_of(config).declarations) == made
    for path, parameter in leaves_by_path(family_of(config).declarations).items():
        assert parameter.stack == ({"layers": 2} if path.startswith("layers/") else {})
        assert parameter.size == np.prod(parameter.shape) and len(parameter.axes) == len(parameter.shape)


def test_the_decoders_parameters_are_declared_as_listed_here(model_config):
    declared = leaves_by_path(family_of(model_config(**EVERYTHING)).declarations)
    kinds = {kind: {path for path, p in declared.items() if p.kind == kind} for kind in ("matrix", "lookup", "vector")}
    attention = {f"layers/attention/{name}" for name in ("query", "key", "value", "output")}
    feedforward = {f"layers/feedforward/{name}" for name in ("gate", "up", "down")}
    assert kinds["matrix"] == attention | feedforward | {"head"}
    assert kinds["lookup"] == {"embedding", "positions"}
    assert all(path.rsplit("/")[-1].endswith(("scale", "bias")) for path in kinds["vector"])
    query, output = declared["layers/attention/query"], declared["layers/attention/output"]
    assert (query.inputs, query.outputs) == ({"embed": 16}, {"heads": 4, "head": 4})
    assert (output.inputs, output.outputs) == ({"heads": 4, "head": 4}, {"embed": 16})
    assert declared["layers/attention/key"].outputs == {"kv_heads": 2, "head": 4}
    assert declared["layers/attention/key_norm/scale"].outputs == {"head": 4}
    assert declared["layers/feedforward/up_bias"].outputs == {"mlp": 24}
    assert declared["embedding"].axes == ("vocab", "embed") and declared["positions"].axes == ("position", "embed")


def test_a_declaration_knows_its_file_and_line(model_config):
    where = family_of(model_config()).declarations["layers"]["feedforward"]["down"].where
    file, line = where.split(", line ")
    assert file.endswith("gptjax/model/feedforward.py")
    assert "linear(" in open(file).read().splitlines()[int(line) - 1]


def test_axes_that_share_a_scale_belong_to_one_output():
    assert Parameter("matrix", {"heads": 3, "head": 4}, {"embed": 8}, ONES, {"layers": 2}).shared_scale_axes == (-3, -2)
    assert Parameter("matrix", {"embed": 8}, {"heads": 3, "head": 4}, ONES).shared_scale_axes == (-3,)
    assert Parameter("lookup", {"vocab": 9}, {"embed": 8}, ONES).shared_scale_axes == (-1,)


def test_matrices_of_any_stack():
    x = jnp.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    experts = Parameter("matrix", {"embed": 4}, {"heads": 5, "head": 6}, ONES, {"layers": 2, "experts": 3})
    np.testing.assert_array_equal(experts.as_matrices(x)[4], x[1, 1].reshape(4, 30))
    alone = Parameter("matrix", {"heads": 5, "head": 6}, {"embed": 4}, ONES)
    assert alone.as_matrices(jnp.zeros((5, 6, 4))).shape == (1, 30, 4)


class Twin(nn.Module):
    """Two stacks of different depth with the same module inside, which has experts, and a single number."""

    def setup(self):
        if self.is_initializing():
            stacked(self, "encoder", 2, Mixing(parent=None), jnp.zeros((1, 4)))
            stacked(self, "decoder", 3, Mixing(parent=None), jnp.zeros((1, 4)))
        self.table = lookup(self, "table", {"vocab": 7}, {"embed": 4}, ONES, tied=True)
        self.temperature = vector(self, "temperature", {}, ONES)

    def __call__(self):
        return self.table, self.temperature


class Mixing(nn.Module):
    @nn.compact
    def __call__(self, x_BD):
        scale = vector(self, "scale", {"embed": 4}, ONES)
        up_EDF = matrix(self, "up", {"embed": 4}, {"mlp": 5}, nn.initializers.normal(), stack={"experts": 6})
        return jnp.einsum("BD,EDF->BEF", x_BD * scale, up_EDF)


def test_stacks_experts_and_single_numbers_are_declared_in_the_same_way():
    declared = leaves_by_path(declarations_of(Twin()))
    made = leaves_by_path(Twin().init(jax.random.key(0))["params"])
    assert {path: p.shape for path, p in declared.items()} == {path: x.shape for path, x in made.items()}
    assert declared["encoder/up"].stack == {"layers": 2, "experts": 6}
    assert declared["decoder/up"].axes == ("layers", "experts", "embed", "mlp")
    assert declared["temperature"].shape == () and declared["decoder/scale"].shape == (3, 4)
    counts = count_parameters(declared)
    others = (2 + 3) * (4 + 6 * 20) + 1
    assert (counts.total, counts.non_embedding, counts.multiplied) == (others + 28, others, others + 28)


class Undeclared(nn.Module):
    def setup(self):
        self.inner = Inner()
        self.offset = vector(self, "offset", {"embed": 4})

    def __call__(self):
        return self.inner(self.offset)


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x_D):
        return x_D * self.param("temperature", ONES, (4,))


class Axisless(nn.Module):
    @nn.compact
    def __call__(self):
        return matrix(self, "gate", {"embed": 4}, {}, ONES)


def line_of(module, text: str) -> str:
    lines, first = inspect.getsourcelines(module)
    return f"{__file__}, line {first + next(number for number, line in enumerate(lines) if text in line)}"


@pytest.mark.parametrize(
    "module, line, problem",
    [
        (Undeclared, line_of(Inner, "self.param"), "'inner/temperature' has no declaration: make it by matrix"),
        (Axisless, line_of(Axisless, "matrix("), "a matrix needs at least one input axis and one output axis"),
    ],
)
def test_a_parameter_without_axes_is_refused_with_its_file_and_line(module, line, problem):
    with pytest.raises(ConfigError) as error:
        declarations_of(module())
    assert str(error.value).startswith(f"{line}: ") and problem in str(error.value)


@pytest.fixture
def forget():
    """Clears results cached by config, now and at the end. Tests that change the model's code call it."""

    def clear():
        family._declarations.cache_clear()
        family._init_params.clear_cache()
        decoding_params.clear_cache()

    yield clear
    clear()


class Gated(feedforward.FeedForward):
    """A researcher's idea: the feed-forward block with two more lines."""

    @nn.compact
    def __call__(self, x_BTD):
        mixed_BTD = x_BTD @ matrix(self, "mix", {"embed": 16}, {"embed": 16}, nn.initializers.normal())
        return vector(self, "strength", {"embed": 16}, ONES) * super().__call__(mixed_BTD)


@pytest.mark.parametrize("optimizer", METHODS)
def test_one_more_line_in_the_decoder_is_all_that_a_run_needs(optimizer, tiny_config, monkeypatch, forget):
    config = tiny_config(model__num_layers=3, mesh__fsdp=2, mesh__tensor=2, optimizer__name=optimizer)
    plain = count_parameters(family_of(config.model).declarations)
    monkeypatch.setattr(decoder, "FeedForward", Gated)
    forget()
    made = plan(config, DataFacts(32), jax.devices())
    assert made.parameters.multiplied == plain.multiplied + 3 * (16 * 16 + 16)
    assert made.abstract_state.params["layers"]["feedforward"]["mix"].sharding.shard_shape((3, 16, 16)) == (3, 8, 16)
    treatment = treatments_of(config.optimizer, made.trainer.declared)
    assert treatment["layers/feedforward/mix"].method == optimizer and treatment["layers/feedforward/mix"].weight_decay
    assert not treatment["layers/feedforward/strength"].weight_decay
    narrow = jax.eval_shape(
        lambda params: decoding_params(family_of(config.model), params, "int8"), made.abstract_state.params
    )
    assert narrow["layers"][0]["feedforward"]["mix"].scale.shape == (1, 16)
    assert narrow["layers"][2]["feedforward"]["strength"].shape == (16,)


class Stack(nn.Module):
    @nn.compact
    def __call__(self):
        stacked(self, "blocks", 2, Inner(parent=None), jnp.zeros(4))


def test_an_undeclared_parameter_inside_a_stack_is_reported_with_its_line():
    with pytest.raises(ConfigError) as error:
        declarations_of(Stack())
    assert str(error.value).startswith(f"{line_of(Inner, 'self.param')}: the parameter 'blocks/temperature' ")


def test_initialization_without_recording_makes_only_arrays(model_config):
    variables = jax.jit(lambda key: Twin().init(key))(jax.random.key(0))
    assert set(variables) == {"params"} and declarations_of(Twin()).keys() == variables["params"].keys()
