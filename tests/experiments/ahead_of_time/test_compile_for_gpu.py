"""Contracts of training steps compiled for eight H200 GPUs (make aot): how much they send, and in which type.

The shapes are those of the named models, with fewer layers.
"""

import functools
import sys
from pathlib import Path

import jax
import pytest

pytest.importorskip("jax_cuda12_plugin")
sys.path.append(str(Path(__file__).parents[3] / "experiments" / "ahead_of_time"))

from compile_for_gpu import compile_step, gibibytes, largest_gather, transposing

from gptjax.model.families import family_of
from gptjax.model.parameters import count_parameters
from gptjax.parallel.compiled import instructions
from gptjax.parallel.traffic import collectives_of

pytestmark = pytest.mark.aot
FSDP = {"mesh.data": 1, "mesh.fsdp": 8}


def test_an_untied_head_moves_once_in_bfloat16():
    compiled, config, _ = compile_step("llama:8b", 8, 16, FSDP | {"model.num_layers": 2})
    head = 2 * config.model.vocab_size * config.model.width
    large = [each for each in collectives_of(compiled.as_text(), 8) if each.bytes >= head]
    assert sorted((each.kind, each.bytes, each.times) for each in large) == [
        ("all-gather", head, 1),
        ("reduce-scatter", head, 1),
    ]


ALONE, ROWS, LENGTH, WIDTH = {"mesh.data": 1}, 64, 1024, 768  # 124M, 64 rows for each GPU
STREAM = 2 * ROWS * LENGTH * WIDTH  # bytes of an array as wide as the residual stream


@functools.cache
def gpt2(num_gpus, layers, how="unroll"):
    fields = (FSDP if num_gpus > 1 else ALONE) | {"model.num_layers": layers, "model.layers": how}
    return compile_step("gpt2:124m", num_gpus, ROWS * num_gpus, fields)[0]


def test_no_step_moves_more_than_a_layer_at_once_or_transposes_the_stream():
    """GPT-2's embedding, which is also its head, is gathered once and its gradient scattered once, in bfloat16. What is
    looked up in it is sent as bfloat16 vectors, and so is their gradient.

    The kernels that transpose write the stream twice in bfloat16 and twice in float32, before and after the layers, and
    each GPU's part of some parameters. A stream in another order than the layers' products need would be written eight
    times in every layer.
    """
    layers = 4
    text = gpt2(8, layers).as_text()
    every, head = collectives_of(text, 8), 2 * 50257 * WIDTH
    large = sorted((each.kind, each.bytes, each.times) for each in every if each.bytes >= head)
    gathered, looked_up, lookup_gradient, (kind, scattered, times) = large
    assert gathered == ("all-gather", head, 1)
    assert looked_up == lookup_gradient == ("all-to-all", STREAM, 1)
    assert (kind, times) == ("reduce-scatter", 1) and head <= scattered < 2 * head  # the compiler adds smaller ones
    assert largest_gather(every, head) < 2.3 * 2 * 12 * WIDTH**2
    assert sum(transposing(text)) < 8 * STREAM


@pytest.mark.parametrize("how, remat, times", [("unroll", "none", 1), ("unroll", "dots", 2), ("scan", "none", 2)])
def test_only_unrolled_layers_that_are_not_recomputed_keep_their_gathered_weights(how, remat, times):
    """Others gather them again in the backward pass. `auto` chooses between them (gptjax/planning)."""
    fields = FSDP | {"model.num_layers": 4, "model.layers": how, "model.remat": remat}
    compiled, config, _ = compile_step("llama:1b", 8, 8, fields)
    parameters = jax.tree.leaves(family_of(config.model).declarations)
    layers, outside = (
        2 * sum(each.size for each in parameters if bool(each.num_layers) == inside) for inside in (1, 0)
    )
    every = [each for each in collectives_of(compiled.as_text(), 8) if each.kind == "all-gather"]
    assert sum(each.bytes * each.times for each in every) == pytest.approx(times * layers + outside, rel=0.01)


@pytest.mark.parametrize("num_gpus, how, streams", [(1, "unroll", 16), (8, "unroll", 16), (1, "scan", 17)])
def test_a_layer_saves_only_what_products_and_attention_read_and_what_norms_get(num_gpus, how, streams):
    """As wide as the stream: the inputs and outputs of two norms, queries, keys, values and attention's output. Four
    times as wide: the activation's input and output. A loop over layers saves one more. Nothing is saved in float32 but
    numbers per row or head.
    """
    four, two = (sum(gibibytes(gpt2(num_gpus, layers, how))) * 2**30 for layers in (4, 2))
    of_parameters = 12 * WIDTH**2 * (12 / num_gpus + 2)  # float32 and AdamW's moments; rounded to bfloat16
    assert (four - two) / 2 - of_parameters == pytest.approx(streams * STREAM, rel=0.03)


def test_with_fsdp_a_gpu_needs_no_more_memory_than_alone():
    assert sum(gibibytes(gpt2(8, 4))) < sum(gibibytes(gpt2(1, 4)))


@pytest.mark.parametrize("remat, runs", [("dots", 2), ("attention", 2), ("full", 3)])
def test_attention_is_not_computed_again_where_its_output_is_saved(remat, runs):
    """Its kernel runs forward and backward; with `full` once more in the backward pass."""
    fields = ALONE | {"model.num_layers": 2, "model.layers": "scan", "model.remat": remat}
    assert compile_step("gpt2:124m", 1, ROWS, fields)[0].as_text().count("__cudnn$fmha") == runs


@pytest.mark.parametrize("remat, runs", [("none", 2), ("dots", 2), ("full", 3)])
def test_in_a_pipeline_attention_runs_as_often_as_elsewhere(remat, runs):
    """Two stages with two layers and two micro-batches each take three ticks."""
    fields = {"mesh.data": 1, "mesh.fsdp": 2, "mesh.pipeline": 2, "model.num_layers": 4, "model.remat": remat}
    text = compile_step("llama:1b", 4, 8, fields)[0].as_text()
    assert sum(each.times for each in instructions(text) if "__cudnn$fmha" in each.line) == runs * 2 * 3


def test_with_tensor_each_sub_layer_gathers_and_scatters_the_stream_and_no_logits_are_sent():
    """Forward and backward, in each of two sub-layers; nothing that is larger is sent."""
    rows, layers, fields = 16, 4, {"mesh.data": 1, "mesh.tensor": 8, "model.layers": "scan", "model.remat": "none"}
    compiled, config, _ = compile_step("llama:1b", 8, rows, fields | {"model.num_layers": layers})
    every = collectives_of(compiled.as_text(), 8)
    stream = 2 * rows * config.data.sequence_length * config.model.width
    in_layers = [each.kind for each in every if each.times == layers and each.bytes == stream]
    assert sorted(in_layers) == ["all-gather"] * 4 + ["reduce-scatter"] * 4
    assert max(each.bytes for each in every) == stream


def test_with_zero1_each_gpu_gets_only_its_part_of_the_summed_gradients():
    """As many bytes as all parameters are sent once, as gradients, and gathered once."""
    fields = {"mesh.data": 8, "mesh.zero1": True, "model.num_layers": 2, "training.gradient_accumulation_steps": 2}
    compiled, _, _ = compile_step("gpt2:124m", 8, 512, fields)
    large = [each for each in collectives_of(compiled.as_text(), 8) if each.bytes >= 2**20]
    assert {(each.kind, each.times) for each in large} == {("reduce-scatter", 1), ("all-gather", 1)}


LARGE = 2**20
TWO_NODES = [{"mesh.data": 2, "mesh.fsdp": 8}, {"mesh.data": 2, "mesh.fsdp": 8, "mesh.zero1": True}]


@pytest.mark.parametrize("mesh", TWO_NODES, ids=str)
def test_between_nodes_hybrid_sharding_sends_each_gpus_part_of_the_gradients_once(mesh):
    """Twice as many bytes as a part in an all-reduce; with ZeRO-1, one half as gradients and one half as parameters."""
    fields = {"model.num_layers": 2, "training.gradient_accumulation_steps": 2} | mesh
    compiled, config, _ = compile_step("llama:1b", 16, 64, fields)
    part = 4 * count_parameters(family_of(config.model).declarations).total / mesh["mesh.fsdp"]
    between = [each for each in collectives_of(compiled.as_text(), 16) if each.nodes(8) > 1 and each.bytes > LARGE]
    kinds = {"reduce-scatter", "all-gather"} if "mesh.zero1" in mesh else {"all-reduce"}
    assert {(each.kind, each.times) for each in between} == {(kind, 1) for kind in kinds}
    assert sum(each.bytes_sent() for each in between) == pytest.approx(part, rel=0.02)


def test_gpus_of_one_sequence_gather_and_scatter_matrices_together():
    """With fsdp across nodes and context inside of a node, each GPU receives its own share of a matrix from the other
    node. Only what is looked up in the embedding also goes to the other node.
    """
    fields = {"model.num_layers": 2, "mesh.data": 1, "mesh.fsdp": 2, "mesh.context": 8}
    compiled, _, _ = compile_step("llama:1b", 16, 16, fields)
    between = [each for each in collectives_of(compiled.as_text(), 16) if each.nodes(8) > 1 and each.bytes > LARGE]
    assert {(each.kind, len(each.group)) for each in between} == {
        ("all-gather", 16),
        ("reduce-scatter", 16),
        ("all-to-all", 2),
    }


@pytest.mark.parametrize(
    "exchange, capacity, kinds", [("ring", 0.0, {"all-gather", "reduce-scatter"}), ("all_to_all", 1.25, {"all-to-all"})]
)
def test_tokens_go_to_the_gpus_of_their_experts_and_experts_stay(exchange, capacity, kinds):
    """In each layer of each micro-batch, and at no other time; a GPU has eight of OLMoE's 64 experts."""
    layers, micro_batches, rows, length = 2, 2, 32, 1024
    fields = {"model.num_layers": layers, "model.layers": "scan", "data.sequence_length": length, "mesh.data": 1}
    fields |= {"mesh.expert": 8, "mesh.expert_exchange": exchange, "model.expert_capacity": capacity}
    fields |= {"training.gradient_accumulation_steps": micro_batches}
    compiled, config, _ = compile_step("moe:olmoe", 8, rows, fields)
    model, every = config.model, collectives_of(compiled.as_text(), 8)
    tokens = 2 * rows // micro_batches * length * model.width  # bytes in bfloat16
    of_tokens = [each for each in every if each.kind != "all-reduce"]
    assert {(each.kind, each.times) for each in of_tokens} == {(kind, layers * micro_batches) for kind in kinds}
    most = tokens * (model.experts_per_token * capacity / 8 or 1)
    assert most <= max(each.bytes for each in of_tokens) < 1.01 * most
    experts = 2 * 3 * model.num_experts * model.width * model.feedforward_width  # bytes of a layer
    summed = [each.bytes for each in every if each.kind == "all-reduce" and each.times == layers * micro_batches]
    assert sum(summed) < experts / 8


def test_with_fsdp_a_gpu_gathers_only_its_own_experts():
    """The three matrices of its share of the experts, for the forward and for the backward pass of each layer of each
    micro-batch, in bfloat16. Their gradients are scattered as often, and no token leaves the GPUs that share it."""
    fields = {"model.num_layers": 2, "model.layers": "scan", "data.sequence_length": 1024, "mesh.data": 1}
    fields |= {"mesh.fsdp": 2, "mesh.expert": 4, "mesh.expert_exchange": "ring"}
    compiled, config, _ = compile_step("moe:olmoe", 8, 16, fields)
    every = [each for each in collectives_of(compiled.as_text(), 8) if each.times == 2]
    of_experts = [each for each in every if each.group == (0, 4) and each.kind != "all-to-all"]
    matrix = 2 * config.model.num_experts * config.model.width * config.model.feedforward_width
    assert {each.bytes for each in of_experts} == {matrix // 4}
    assert sorted(each.kind for each in of_experts) == ["all-gather"] * 6 + ["reduce-scatter"] * 3
    tokens = [each for each in every if each.group == (0, 1, 2, 3)]
    assert {each.kind for each in tokens} == {"all-gather", "reduce-scatter"}
