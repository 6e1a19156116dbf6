"""The sharding table splits the right axes of parameters, and optimizer statistics are split like their parameter."""

import math
import re

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from gptjax.config import ConfigError
from gptjax.config.user_code import load_config
from gptjax.data.facts import DataFacts
from gptjax.model.families import family_of
from gptjax.model.parameters import Parameter, abstract_params
from gptjax.model.tree import leaves_by_path
from gptjax.parallel.mesh import AbstractDevices, abstract_mesh, make_mesh
from gptjax.parallel.sharding import params_sharding, spec_of, state_sharding
from gptjax.planning import plan
from gptjax.settings import MeshSettings
from gptjax.training.state import TrainState


def mesh_of(**sizes):
    return abstract_mesh(MeshSettings(**{"data": 1} | sizes), AbstractDevices())


ONE = mesh_of()
EVERYTHING = dict(
    model__bias="all",
    model__norm="layernorm",
    model__qk_norm=True,
    model__qk_norm_over="projection",
    model__norm_placement="sandwich",
    model__attention_sinks=True,
    model__position="learned",
    model__tied_embeddings=False,
)

# Worked out by hand. The residual stream is split over fsdp in matrices, and heads, feed-forward columns and the
# vocabulary over tensor; a lookup table only along its width; a bias like the outputs that it is added to. Layers are
# split over pipeline, and so is the residual stream of parameters outside of layers.
SPECS = {
    "embedding": P(None, ("pipeline", "fsdp", "tensor")),
    "positions": P(None, ("pipeline", "fsdp", "tensor")),
    "head": P(("pipeline", "fsdp"), "tensor"),
    "final_norm/scale": P(),
    "final_norm/bias": P(),
    "layers/attention_norm/bias": P("pipeline"),
    "layers/attention/query": P("pipeline", "fsdp", "tensor"),
    "layers/attention/value": P("pipeline", "fsdp", "tensor"),
    "layers/attention/key_bias": P("pipeline", "tensor"),
    "layers/attention/key_norm/scale": P("pipeline", "tensor"),  # one number per feature of all heads
    "layers/attention/sinks": P("pipeline", "tensor"),
    "layers/attention_post_norm/scale": P("pipeline"),
    "layers/attention/output": P("pipeline", "tensor", None, "fsdp"),
    "layers/attention/output_bias": P("pipeline"),
    "layers/feedforward/gate": P("pipeline", "fsdp", "tensor"),
    "layers/feedforward/up_bias": P("pipeline", "tensor"),
    "layers/feedforward/down": P("pipeline", "tensor", "fsdp"),
    "layers/feedforward/down_bias": P("pipeline"),
}


def test_the_decoders_parameters_are_split_as_listed_here(tiny_config):
    declared = leaves_by_path(family_of(tiny_config(**EVERYTHING).model).declarations)
    assert {path: spec_of(declared[path], ONE) for path in SPECS} == SPECS


SPECS_OF_PAIRS = {
    "embedding": P(None, ("pipeline", "fsdp", "tensor")),
    "source_embedding": P(None, ("pipeline", "fsdp", "tensor")),
    "positions": P(None, ("pipeline", "fsdp", "tensor")),
    "encoder/positions": P(None, ("pipeline", "fsdp", "tensor")),
    "encoder/final_norm/scale": P(),
    "encoder/layers/attention/query": P("pipeline", "fsdp", "tensor"),
    "encoder/layers/feedforward/down": P("pipeline", "tensor", "fsdp"),
    "layers/cross_attention/key": P("pipeline", "fsdp", "tensor"),
    "layers/cross_attention/output": P("pipeline", "tensor", None, "fsdp"),
    "layers/cross_attention/value_bias": P("pipeline", "tensor"),
    "layers/cross_attention_norm/scale": P("pipeline"),
    "layers/cross_attention_post_norm/bias": P("pipeline"),
}


def test_an_encoder_and_cross_attention_are_split_like_the_decoder(tiny_config):
    options = EVERYTHING | dict(model__family="encoder_decoder", training__objective="seq2seq")
    config = tiny_config(**options, model__shared_embeddings=False)
    declared = leaves_by_path(family_of(config.model).declarations)
    assert {path: spec_of(declared[path], ONE) for path in SPECS_OF_PAIRS} == SPECS_OF_PAIRS
    assert all(isinstance(spec_of(each, ONE), P) for each in declared.values())  # every axis has a row in the table


def parameter(kind="matrix", inputs=("embed",), outputs=("mlp",), size=4):
    inputs, outputs = ({axis: size for axis in side} for side in (inputs, outputs))
    return Parameter(kind, inputs, outputs, nn.initializers.zeros, {"layers": 2}, where="ideas.py, line 7")


def test_a_mesh_axis_splits_only_one_axis_of_a_parameter():
    assert spec_of(parameter(outputs=("embed",)), ONE) == P("pipeline", "fsdp")  # from the residual stream to itself
    down = parameter(inputs=("heads", "mlp"), outputs=("embed",))
    assert spec_of(down, ONE) == P("pipeline", "tensor", None, "fsdp")


@pytest.mark.parametrize(
    "sizes, axes",
    [
        (dict(fsdp=2, context=4), ("fsdp", "context")),
        (dict(fsdp=2, expert=2, context=2), ("fsdp", "expert", "context")),
        (dict(fsdp=2, expert=2, context=3), ("fsdp", "expert")),
        (dict(fsdp=2, context=3), "fsdp"),
        (dict(expert=2, context=4), "fsdp"),
    ],
    ids=str,
)
def test_experts_and_context_join_fsdp_if_they_divide(sizes, axes):
    assert spec_of(parameter(size=8), mesh_of(**sizes)) == P("pipeline", axes, "tensor")


@pytest.mark.parametrize("sizes, embed", [(dict(fsdp=2), ("fsdp", "context")), ({}, "fsdp")], ids=str)
def test_the_matrices_of_experts_are_always_split_over_experts(sizes, embed):
    matrix = parameter(inputs=("experts", "embed"), size=8)
    assert spec_of(matrix, mesh_of(expert=2, context=2, **sizes)) == P("pipeline", "expert", embed, "tensor")


def test_an_axis_without_a_row_in_the_table_is_refused_with_file_and_line(tiny_config):
    mesh = make_mesh(tiny_config().mesh)
    expected = r"^ideas\.py, line 7: the axis 'mood' .* TABLE of gptjax/parallel/sharding\.py.* embed, heads, kv_heads"
    with pytest.raises(ConfigError, match=expected):
        params_sharding(mesh, {"layers": {"gate": parameter(outputs=("mood",))}})


def test_a_mesh_that_does_not_divide_a_parameter_is_refused(tiny_config):
    """The message has all mistakes, each with the field, the value and what is allowed."""
    config = tiny_config(mesh__data=1, mesh__tensor=8)
    keys = r"the 2 heads of keys and values \(model.num_kv_heads\) of layers/attention/key, so it may be 1 or 2"
    queries = r"the 4 heads of queries \(model.num_heads\) of layers/attention/\w+, so it may be 1, 2 or 4"
    with pytest.raises(
        ConfigError, match=f"^mesh.tensor = 8: must divide {keys}; mesh.tensor = 8: must divide {queries}"
    ):
        params_sharding(make_mesh(config.mesh), family_of(config.model).declarations)


def test_statistics_are_split_like_their_own_parameter_and_not_like_its_namesake(tiny_config):
    """The matrices of the two stacks have the same name and shape, but are split along different axes."""
    mesh = make_mesh(tiny_config(mesh__data=2, mesh__fsdp=2, mesh__tensor=2).mesh)
    up, down = parameter(), parameter(inputs=("mlp",), outputs=("embed",))
    declared = {"layers": {"mix": up}, "encoder": {"layers": {"mix": down}}}
    shapes = abstract_params(declared)
    optimizer = optax.chain(optax.scale_by_adam(), optax.masked(optax.trace(0.9), {"layers": True, "encoder": False}))
    state = TrainState(jnp.int32(0), shapes, jax.eval_shape(optimizer.init, shapes), shapes, {"mean": jnp.zeros(())})
    specs = {path: leaf.spec for path, leaf in leaves_by_path(state_sharding(mesh, state, declared)).items()}
    for path, spec in specs.items():
        mirrored = P("pipeline", "tensor", "fsdp") if "encoder" in path else P("pipeline", "fsdp", "tensor")
        assert spec == (mirrored if path.endswith("mix") else P()), path
    assert sum(path.endswith("mix") for path in specs) == 2 * 4 + 1
    assert jax.tree.structure(state) == jax.tree.structure(state_sharding(mesh, state, declared))


# Worked out by hand, for fsdp 2 and tensor 2: the shape of each array, and the shape of the part that one device holds.
# The width of 16 is halved by fsdp, heads and feed-forward columns by tensor, and the embedding by both; the stack of 2
# layers and vectors are not split.
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
    assert min(mirrors.values()) >= copies  # every array is listed


@pytest.mark.parametrize(
    "tied, chunk, data",
    [
        (True, 0, 2),
        (False, 32, 2),
        (True, 32, 1),
        *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in [(False, 0, 2), (True, 32, 2), (False, 32, 1)]),
    ],
)
def test_logits_stay_split_over_the_vocabulary(tiny_config, tied, chunk, data):
    """No device has the logits of the whole vocabulary of 96, and no array that devices send has an axis of 96 or
    48."""
    shape = dict(model__vocab_size=96, model__tied_embeddings=tied, model__num_layers=1, training__loss_chunk=chunk)
    config = tiny_config(mesh__data=data, mesh__tensor=2, training__batch_size=8 * data, **shape)
    made = plan(config, DataFacts(vocab_size=32), jax.devices()[: 2 * data])
    with jax.set_mesh(made.mesh):
        text = made.trainer.compile_train_step(made.abstract_batch).as_text()
    # Rows of a device, all tokens or a chunk of them, half of the vocabulary.
    assert re.search(r"f32\[8,\d+,48\]", text)
    assert not re.search(r"f32\[8,\d+,96\]", text)
    assert not re.search(r"= \(?f32\[8,\d+,48\][^=]* (?:all-\w+|collective-permute|reduce-scatter)\(", text)


@pytest.mark.parametrize(
    "count, sizes",
    [
        (8, dict(fsdp=8)),
        (512, dict(fsdp=64, tensor=8)),
        (4096, dict(pipeline=8, fsdp=64, tensor=8)),
        (4096, dict(data=512, fsdp=8)),
        (4096, dict(data=512, fsdp=8, zero1=True)),
    ],
)
def test_the_state_of_70_billion_parameters_is_split_over_any_number_of_devices(count, sizes):
    """Nothing is allocated, and no device is needed."""
    config = load_config("configs/llama.py:70b")
    config.mesh.update({"data": 1} | sizes)
    config.training.update(batch_size=4096, gradient_accumulation_steps=1)
    state = plan(config, DataFacts(128_256), AbstractDevices("gpu", count, "NVIDIA H200")).abstract_state
    whole, parameters = (sum(leaf.size for leaf in jax.tree.leaves(part)) for part in (state, state.params))
    held = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(state))
    copies = sizes.get("data", 1)
    if "zero1" in sizes:  # only parameters are replicated
        expected = parameters * copies / count + (whole - parameters) / count
    else:
        expected = whole * copies / count
    assert expected <= held < 1.01 * expected
