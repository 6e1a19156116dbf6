"""Estimates the needs of a step without a compiler: for TPUs, and for NVIDIA GPUs if their compiler is not installed.

Parameters and optimizer state are exact. The rest follows from shapes, with constants fitted to compiled steps of 124M,
1B and 8B parameters (experiments/memory): the arrays of a layer that are saved for the backward pass under each
`model.remat`, what else is in memory at the peak, and the bytes that element-wise kernels move. The estimated memory of
36 of the 43 steps there is within 5 % of the compiler's; 8B with recomputed layers or 8-bit products is estimated up to
10 % too high, and 8B with ZeRO-1 by 17 %.

Tokens are those that one device computes at once, and widths those of its part of the tensor axis. More tokens pass
through the layers of a pipeline's stage, which are fewer. The rows of experts are padded into blocks, and where all
blocks are multiplied at once, each has a copy of its expert's matrices (model/grouped_products.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

import jax

from gptjax.forecast.kernels import Kernel
from gptjax.forecast.memory import Memory, bytes_on_device, state_bytes
from gptjax.forecast.step import Needs
from gptjax.model.families import family_of
from gptjax.model.feedforward import is_gated
from gptjax.model.flops import product_flops
from gptjax.model.grouped_products import shape_of_blocks
from gptjax.model.mixture_of_experts import capacity
from gptjax.model.parameters import Parameter, stack_sizes
from gptjax.model.tree import leaves_by_path
from gptjax.parallel.expert import way_of
from gptjax.parallel.mesh import AXES, batch_devices
from gptjax.parallel.pipeline import schedule_of
from gptjax.parallel.traffic import Collective
from gptjax.planning import Plan
from gptjax.settings import ModelSettings
from gptjax.training.optimizers.muon import ROUNDS
from gptjax.training.optimizers.trained import Backward, backward_of, trained_only, untrained

LOGIT = 4  # bytes of one, float32; its gradient is in the compute dtype
MOVED = 9  # times that element-wise kernels read or write the results of a layer's products, and the logits
UPDATED = 28  # bytes that the optimizer moves per parameter
COPIED = 5  # times that kernels read or write the copies of experts' matrices
EXCHANGED = 2.8  # factor of what element-wise kernels move in layers that sort tokens for experts on other devices
TICKED = 1.75  # factor of what element-wise kernels move in a pipeline, which cuts and joins arrays in each tick
BLOCKED = 1.25  # scores that attention in blocks computes per score that the mask lets through
# What attention does on processors per block of queries, whose scores are arrays there, if the backward pass computes
# them again: products, other kernels, and what each of both reads and writes, in arrays as large as the scores.
# Compiled steps of the depth dial have these numbers, whatever their size.
PER_BLOCK = (7, 27), (2.56, 0.84)
ATTENTION = (1 + 2.5) / 3  # FLOPs of flash attention, forward and backward, per FLOP of the convention (three passes)


@dataclasses.dataclass(frozen=True)
class _Shape:
    """The shapes of what a device computes at once."""

    tokens: int  # in the embedding, the output layer and the loss
    in_layers: int  # tokens that pass through its layers
    microbatches: int  # parts of them that pass through a pipeline one after another; 1 without
    passes: float  # how often each of its layers runs for them, idle ticks included; 1 without a pipeline
    layers: int  # of this device
    stream: float  # D
    heads: float  # width of all queries
    keys: float  # width of all keys, and of all values
    feedforward: float  # F, of all experts that a token uses, with padding
    slots: float  # rows of experts per token, with padding; 0 without experts
    copies: int  # copies of experts' matrices in a layer
    exchanged: bool  # whether tokens are sent to the devices of the experts that they chose
    gated: bool
    vocabulary: float
    micro_batches: int
    width: int  # bytes of an activation
    again: float  # forward passes of layers per step: 1, or 2 if they are recomputed
    below: float  # the share of the layers below all that is trained, through which no gradient flows

    @property
    def of_products(self) -> float:
        """Elements per token of a layer's inputs and of the results of its products."""
        attention = (2 if not self.slots else 1) * self.stream + 2 * self.heads + 2 * self.keys
        experts = (2 if self.exchanged else 1) * self.slots * self.stream
        return attention + experts + (2 if self.gated else 1) * self.feedforward

    @property
    def runs(self) -> float:
        """How often a layer does the work for its tokens in a step. A pipeline's stages also work in idle ticks."""
        return self.micro_batches * self.passes / self.microbatches


def formula_needs(plan: Plan) -> Needs:
    """The estimated needs of a step."""
    shape = _shape(plan)
    kernels = tuple(kernel for kernel in _kernels(plan, shape) if kernel.times)
    return Needs("formula", _memory(plan, shape), kernels, tuple(_collectives(plan, shape)))


def formula_memory(plan: Plan) -> Memory:
    """The estimated memory of a step."""
    return _memory(plan, _shape(plan))


def _shape(plan: Plan) -> _Shape:
    model, mesh = plan.config.model, plan.mesh.shape
    rows = max(1, plan.rows_at_once // batch_devices(plan.mesh))
    tensor = mesh["tensor"]
    schedule = schedule_of(plan.config.mesh, plan.mesh)
    tokens = math.ceil(rows * plan.config.data.sequence_length / mesh["context"])
    in_layers = tokens * schedule.stages
    exchanged = mesh["expert"] > 1 and way_of(plan.config.mesh.expert_exchange, mesh["expert"], model) == "all_to_all"
    slots, copies = _blocks(plan, in_layers // schedule.microbatches, exchanged)
    used = slots + model.shared_experts if model.num_experts else 1
    layers = sum(stack_sizes(plan.trainer.declared).values())
    repeats = model.remat in ("full", "offload_inputs", "attention")
    return _Shape(
        tokens=tokens,
        in_layers=in_layers,
        microbatches=schedule.microbatches,
        passes=schedule.ticks / schedule.repeats,
        layers=math.ceil(layers / mesh["pipeline"]),
        stream=model.width,
        heads=model.num_heads * model.head_width / tensor,
        keys=model.num_kv_heads * model.head_width / tensor,
        feedforward=model.feedforward_width * used / tensor,
        slots=slots,
        copies=copies,
        exchanged=exchanged,
        gated=is_gated(model.feedforward),
        vocabulary=model.vocab_size / tensor,
        micro_batches=plan.config.training.gradient_accumulation_steps,
        width=4 if model.dtype == "float32" else 2,
        again=2.0 if repeats else 1.0,
        below=untrained(plan.trainer.declared, plan.trainer.treatments).layers_below if _stops(plan) else 0.0,
    )


def _stops(plan: Plan) -> bool:
    """Whether nothing is computed backwards below the first trained layer: a loop over layers treats them alike."""
    return plan.config.model.layers == "unroll" and plan.mesh.shape["pipeline"] == 1


def _backward(plan: Plan) -> dict[str, Backward]:
    return backward_of(plan.trainer.declared, plan.trainer.treatments, _stops(plan))


def _blocks(plan: Plan, tokens: int, exchanged: bool) -> tuple[float, int]:
    """(rows of experts per token, with padding; copies of experts' matrices) in a layer that has so many tokens."""
    model, size = plan.config.model, plan.mesh.shape["expert"]
    if not model.num_experts:
        return 0.0, 0
    used, mine = model.experts_per_token, model.num_experts // size
    if exchanged:
        length = plan.config.data.sequence_length
        return model.num_experts * capacity(model, length) / length, 0
    chosen = tokens * size * used  # in a ring, a device has room for the tokens of all
    if model.expert_products != "gathered":
        return float(used), 0
    blocks, rows = shape_of_blocks(chosen, mine)
    return blocks * rows / tokens, blocks


# --- memory ----------------------------------------------------------------------------------------------------------


def _memory(plan: Plan, shape: _Shape) -> Memory:
    """The larger memory of two moments: at the loss, with all activations and the logits, and at the end of the
    backward pass, with all gradients."""
    model, training, tokens = plan.config.model, plan.config.training, shape.tokens
    parameters, optimizer = state_bytes(plan)
    gradients = bytes_on_device(trained_only(plan.abstract_state.params, plan.trainer.treatments))
    per_layer, on_host = _kept(model, plan.platform, shape)
    activations = round(shape.width * shape.in_layers * shape.passes / shape.microbatches * shape.layers * per_layer)
    chunk = min(training.loss_chunk or tokens, tokens)
    logits = round((LOGIT + shape.width) * chunk * shape.vocabulary)
    accumulated, in_loop = shape.micro_batches > 1, model.layers == "scan"
    collected = gradients * (accumulated + in_loop)  # loops over micro-batches and layers add gradients up in place
    if chunk < tokens:  # the loop over chunks adds up the output layer's gradient, and keeps the gradient of its input
        collected += round(4 * shape.vocabulary * shape.stream)
        activations += round(2 * shape.width * tokens * shape.stream)
    gathered, copied = _gathered(plan, shape), _copied(plan, shape)
    at_once = shape.in_layers // shape.microbatches
    one_layer = round(shape.width * at_once * 2 * shape.of_products)  # further arrays in the backward pass of a layer
    again = round(shape.width * at_once * shape.of_products) if shape.again > 1 else 0
    at_loss = collected + activations + logits
    in_experts = collected + activations + again + 2 * copied if copied else 0  # the copies and their gradients
    at_end = gradients * (1 + accumulated) + one_layer + (activations // max(shape.layers, 1))
    batch = 2 * bytes_on_device(plan.abstract_batch)
    if in_experts >= max(at_loss, at_end):
        found = (collected + copied, activations + again + copied, 0, batch)
    elif at_loss >= at_end:
        found = (collected, activations, logits, gathered + batch)
    else:
        found = (gradients * (1 + accumulated), activations // max(shape.layers, 1), 0, one_layer + gathered)
    host = round(shape.width * shape.in_layers * shape.layers * on_host)
    return Memory(parameters, found[0], optimizer, found[1], found[2], found[3], host)


def _kept(model: ModelSettings, platform: str, shape: _Shape) -> tuple[float, float]:
    """(elements per token and layer saved for the backward pass on the device, on the host)."""
    products = shape.of_products
    everything = products + 2 * shape.stream + shape.feedforward  # outputs of norms and of the activation
    if platform == "cpu" and model.layers == "unroll":  # the compiler saves an intermediate result of the activation
        everything += shape.feedforward
    if model.matmul == "fp8" and model.feedforward.startswith(("gelu", "geglu")):  # saves its intermediate results
        everything += 3 * shape.feedforward
    return {
        "none": (everything, 0.0),
        "dots": (products, 0.0),
        "attention": (shape.stream + shape.heads, 0.0),
        "full": (shape.stream, 0.0),
        "offload_dots": (shape.stream, products - shape.stream - shape.heads),  # not the output of cuDNN's attention
        "offload_inputs": (0.0, shape.stream),
    }[model.remat]


def _gathered(plan: Plan, shape: _Shape) -> int:
    """Bytes of parameters that are gathered or rounded at the same time: the output layer and two layers."""
    total = 0
    for parameter in jax.tree.leaves(plan.trainer.declared):
        size = shape.width * parameter.size / plan.mesh.shape["tensor"] / parameter.stack.get("experts", 1)
        layers = parameter.stack.get("layers", 0)
        if layers:
            total += round(size / layers * 2)
        elif parameter.kind == "matrix" or parameter.tied:
            total += round(size)
    return total


def _copied(plan: Plan, shape: _Shape) -> int:
    """Bytes of the copies of experts' matrices in a layer."""
    total = 0.0
    for parameter in jax.tree.leaves(plan.trainer.declared):
        if "experts" in parameter.stack:
            size = parameter.size / math.prod(parameter.stack.values())
            total += shape.width * shape.copies * size / plan.mesh.shape["tensor"]
    return round(total)


# --- work ------------------------------------------------------------------------------------------------------------


def _kernels(plan: Plan, shape: _Shape) -> Iterator[Kernel]:
    model, tensor = plan.config.model, plan.mesh.shape["tensor"]
    eight, backward = model.matmul == "fp8", _backward(plan)
    for path, parameter in leaves_by_path(plan.trainer.declared).items():
        if parameter.kind != "matrix" and not parameter.tied:
            continue
        inputs, outputs = (math.prod(side.values()) for side in (parameter.inputs, parameter.outputs))
        of_layer, of_experts = "layers" in parameter.stack, "experts" in parameter.stack
        members = math.prod(size for axis, size in parameter.stack.items() if axis != "experts")
        runs, rows = float(shape.micro_batches), float(shape.tokens)
        if of_layer:
            members, runs, rows = members / plan.mesh.shape["pipeline"], shape.runs, float(shape.in_layers)
        rows *= shape.slots if of_experts else (parameter.active or 1)
        own, through = backward[path]
        again = (shape.again - 1) * through * (of_layer and "mlp" not in parameter.inputs)  # not a layer's last product
        matrices = max(shape.copies, 1) if of_experts else 1
        moved = shape.width * (rows * (inputs + outputs / tensor) + matrices * inputs * outputs / tensor)
        flops = 2.0 * rows * inputs * outputs / tensor
        yield Kernel("product", flops, eight and of_layer, moved, round((1 + own + through + again) * runs * members))
    yield from _attention(plan, shape)
    yield from _orthogonalized(plan, shape)
    yield from _moves(plan, shape)


def _orthogonalized(plan: Plan, shape: _Shape) -> Iterator[Kernel]:
    """Muon's products. Each device computes whole matrices, a part of those of each stack."""
    backward = _backward(plan)
    for path, parameter in _of_muon(plan).items():
        members = math.prod(parameter.stack.values()) * backward[path].own
        mine = ROUNDS * math.ceil(members / plan.mesh.size)
        short, long = sorted(math.prod(side.values()) for side in (parameter.inputs, parameter.outputs))
        square, whole = short * short, short * long
        yield Kernel("product", 2.0 * short * whole, False, shape.width * (whole + square), mine)
        yield Kernel("product", 2.0 * short * square, False, shape.width * 3.0 * square, mine)
        yield Kernel("product", 2.0 * short * whole, False, shape.width * (square + 3.0 * whole), mine)


def _of_muon(plan: Plan) -> dict[str, Parameter]:
    """The parameters that Muon updates, by path."""
    declared, treatments = leaves_by_path(plan.trainer.declared), plan.trainer.treatments
    return {path: each for path, each in declared.items() if treatments[path].method == "muon"}


def _attention(plan: Plan, shape: _Shape) -> Iterator[Kernel]:
    mesh, tokens = plan.mesh.shape, shape.in_layers
    data = plan.config.data
    whole = family_of(plan.config.model).flops_per_token(data.sequence_length, data.source_length)
    counted = whole["causal"] - product_flops(plan.trainer.declared)
    forward = counted * tokens / mesh["tensor"] / shape.layers / mesh["pipeline"] / 3
    again = plan.config.model.remat not in ("none", "dots", "attention")
    moved, layers = 4 * shape.width * tokens * shape.heads, shape.layers * shape.runs
    differentiated = 1 - shape.below
    if plan.platform == "cpu":
        yield from _attention_in_blocks(plan, forward, layers * (1 - shape.below * 2 / 3))
        return
    yield Kernel("attention", forward * (ATTENTION + again / 3), False, moved, round(3 * differentiated * layers))
    yield Kernel("attention", forward, False, moved, round(shape.below * layers))


def _attention_in_blocks(plan: Plan, forward: float, layers: float) -> Iterator[Kernel]:
    """Attention on processors: products and other kernels of each block of queries. forward: FLOPs of a layer."""
    model, length = plan.config.model, plan.config.data.sequence_length
    blocks = max(length // model.attention_block, 1)
    scores = BLOCKED * forward / (4 * model.head_width) / blocks
    (products, others), (of_product, of_other) = PER_BLOCK
    flops, moved = 2.0 * scores * model.head_width, 4.0 * scores
    yield Kernel("attention", flops, False, of_product * moved, round(products * blocks * layers))
    yield Kernel("other", 0.0, False, of_other * moved, round(others * blocks * layers))


def _moves(plan: Plan, shape: _Shape) -> Iterator[Kernel]:
    """Kernels that only read and write: of layers, of logits, of the optimizer. A layer below all that is trained runs
    forward only, a third of the kernels."""
    factor = (TICKED if shape.passes > 1 else 1.0) * (EXCHANGED if shape.exchanged else 1.0)
    moved = factor * MOVED * shape.width * shape.in_layers * shape.of_products
    copied = COPIED * _copied(plan, shape) * shape.microbatches
    runs = (1 - shape.below * 2 / 3) * shape.layers * shape.runs
    yield Kernel("other", 0.0, False, (moved + copied) / 8, round(8 * runs))
    logits = MOVED * shape.width * shape.tokens * shape.vocabulary
    yield Kernel("other", 0.0, False, logits / 4, 4 * shape.micro_batches)
    updated = bytes_on_device(trained_only(plan.abstract_state.params, plan.trainer.treatments)) / 4
    yield Kernel("other", 0.0, False, UPDATED * updated / 4, 4)


def _collectives(plan: Plan, shape: _Shape) -> Iterator[Collective]:
    """The collectives of the mesh's axes in the forms that XLA chooses: bfloat16 parts of parameters and activations.

    A pipeline gathers its layers' parameters again in each tick.
    """
    mesh, times, layers = plan.mesh.shape, shape.micro_batches, shape.layers
    inside, experts, outside = _local(plan, shape)
    of_gradients = _local(plan, shape, {path: own for path, (own, _) in _backward(plan).items()})
    if mesh["fsdp"] > 1:
        group, part = _group(plan, "fsdp", "context"), round((inside + experts) / max(layers, 1))
        summed_part = round(sum(of_gradients[:2]) / max(layers, 1))
        yield Collective("all-gather", part, group, round(2 * layers * times * shape.passes))
        yield Collective("reduce-scatter", summed_part, group, round(layers * times * shape.passes))
        yield Collective("all-gather", round(outside), group, 2 * times)
        yield Collective("reduce-scatter", round(of_gradients[2]), group, times)
    summed = 4 / shape.width / mesh["fsdp"]  # float32 sums
    everything = sum(of_gradients)
    if mesh["data"] > 1:
        size = round(summed * everything)
        if plan.config.mesh.zero1:
            yield Collective("reduce-scatter", size, _group(plan, "data"), 1)
            yield Collective("all-gather", size, _group(plan, "data"), 1)
        else:
            yield Collective("all-reduce", size, _group(plan, "data"), 1)
    if mesh["context"] > 1 and mesh["fsdp"] == 1:
        yield Collective("all-reduce", round(summed * everything), _group(plan, "context"), 1)
    stream = round(shape.width * shape.in_layers * shape.stream)
    if mesh["tensor"] > 1:
        runs = round((3 + shape.again) * layers * shape.runs)
        yield Collective("all-reduce", stream, _group(plan, "tensor"), runs)
    if mesh["context"] > 1:
        moved = round(shape.width * shape.in_layers * (2 * shape.heads + 2 * shape.keys))
        yield Collective("all-to-all", moved, _group(plan, "context"), round((1 + shape.again) * layers * shape.runs))
    if mesh["expert"] > 1:
        yield Collective("all-reduce", round(summed * (everything - of_gradients[1])), _group(plan, "expert"), 1)
        yield from _exchanges(plan, shape, stream)
    if mesh["pipeline"] > 1:
        # To the next stage and on the conveyor, forward and backward.
        ticks = schedule_of(plan.config.mesh, plan.mesh).ticks
        size = stream // shape.microbatches
        yield Collective("collective-permute", size, _group(plan, "pipeline")[:2], 4 * ticks * times)


def _exchanges(plan: Plan, shape: _Shape, stream: int) -> Iterator[Collective]:
    """Tokens to divided experts and back, in each layer."""
    model, size, runs = plan.config.model, plan.mesh.shape["expert"], shape.layers * shape.runs
    group = _group(plan, "expert")
    repeats = model.remat != "none"
    if shape.exchanged:
        yield Collective("all-to-all", round(stream * shape.slots), group, round((4 + repeats) * runs))
        return
    yield Collective("all-gather", stream * size, group, round((2 + repeats) * runs))
    yield Collective("reduce-scatter", stream * size, group, round(2 * runs))


def _local(plan: Plan, shape: _Shape, shares: Mapping[str, float] | None = None) -> tuple[float, float, float]:
    """Bytes in the compute dtype that a device has of the layers, of their experts, and of all else, after gathering
    what fsdp divides. shares: of each parameter, by its path, the share that counts; None: all."""
    mesh, sizes = plan.mesh.shape, [0.0, 0.0, 0.0]
    for path, parameter in leaves_by_path(plan.trainer.declared).items():
        size = shape.width * parameter.size / mesh["tensor"] * (1.0 if shares is None else shares[path])
        if "experts" in parameter.stack:
            sizes[1] += size / mesh["pipeline"] / mesh["expert"]
        elif "layers" in parameter.stack:
            sizes[0] += size / mesh["pipeline"]
        else:
            sizes[2] += size
    return sizes[0], sizes[1], sizes[2]


def _group(plan: Plan, *axes: str) -> tuple[int, ...]:
    """The numbers of the devices along axes; consecutive numbers are on the last axes."""
    numbers = [0]
    for axis in axes:
        stride = math.prod(plan.mesh.shape[each] for each in AXES[AXES.index(axis) + 1 :])
        numbers = [first + stride * step for first in numbers for step in range(plan.mesh.shape[axis])]
    return tuple(numbers)
