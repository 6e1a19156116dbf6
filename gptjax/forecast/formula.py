"""Estimates the needs of a step without a compiler: for TPUs, and for NVIDIA GPUs if their compiler is not installed.

Parameters and optimizer state are exact. The rest follows from shapes, with constants fitted to compiled steps of 124M,
1B and 8B parameters (experiments/memory): the arrays of a layer that are saved for the backward pass under each
`model.remat`, what else is in memory at the peak, and the bytes that element-wise kernels move. The estimated memory of
42 of the 43 steps there is within 5 % of the compiler's (experiments/plan).

Tokens are those that one device computes at once, and widths those of its part of the tensor axis.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import jax

from gptjax.forecast.kernels import Kernel
from gptjax.forecast.memory import Memory, bytes_on_device, state_bytes
from gptjax.forecast.step import Needs
from gptjax.model.feedforward import is_gated
from gptjax.model.parameters import stack_sizes
from gptjax.parallel.mesh import AXES, batch_devices
from gptjax.parallel.pipeline import schedule_of
from gptjax.parallel.traffic import Collective
from gptjax.planning import Plan

LOGIT = 4  # bytes of one, float32; its gradient is in the compute dtype
MOVED = 9  # times that element-wise kernels read or write the results of a layer's products, and the logits
UPDATED = 28  # bytes that the optimizer moves per parameter
IN_LOOP = 25  # further arrays as wide as the stream that a loop over layers saves if nothing is recomputed
ALL_KEPT = 3  # arrays as wide as the feed-forward layer that are saved if nothing is recomputed
ATTENTION = (1 + 2.5) / 3  # FLOPs of flash attention, forward and backward, per FLOP of the convention (three passes)


@dataclasses.dataclass(frozen=True)
class _Shape:
    """The shapes of what a device computes at once."""

    tokens: int
    layers: int  # of this device
    stream: float  # D
    heads: float  # width of all queries
    keys: float  # width of all keys, and of all values
    feedforward: float  # F, of all experts that a token uses
    gated: bool
    vocabulary: float
    micro_batches: int
    width: int  # bytes of an activation
    again: float  # forward passes of layers per step: 1, or 2 if they are recomputed

    @property
    def of_products(self) -> float:
        """Elements per token of a layer's inputs and of the results of its products."""
        return 2 * self.stream + 2 * self.heads + 2 * self.keys + (2 if self.gated else 1) * self.feedforward


def formula_needs(plan: Plan) -> Needs:
    """The estimated needs of a step."""
    shape = _shape(plan)
    kernels = tuple(kernel for kernel in _kernels(plan, shape) if kernel.times)
    return Needs("formula", _memory(plan, shape), kernels, tuple(_collectives(plan, shape)))


def _shape(plan: Plan) -> _Shape:
    model, mesh = plan.config.model, plan.mesh.shape
    rows = max(1, plan.rows_at_once // batch_devices(plan.mesh))
    tensor = mesh["tensor"]
    used = model.experts_per_token + model.shared_experts if model.num_experts else 1
    layers = sum(stack_sizes(plan.trainer.declared).values())
    repeats = model.remat in ("full", "offload_inputs", "attention")
    return _Shape(
        tokens=math.ceil(rows * plan.config.data.sequence_length / mesh["context"]),
        layers=math.ceil(layers / mesh["pipeline"]),
        stream=model.width,
        heads=model.num_heads * model.head_width / tensor,
        keys=model.num_kv_heads * model.head_width / tensor,
        feedforward=model.feedforward_width * used / tensor,
        gated=is_gated(model.feedforward),
        vocabulary=model.vocab_size / tensor,
        micro_batches=plan.config.training.gradient_accumulation_steps,
        width=4 if model.dtype == "float32" else 2,
        again=2.0 if repeats else 1.0,
    )


# --- memory ----------------------------------------------------------------------------------------------------------


def _memory(plan: Plan, shape: _Shape) -> Memory:
    """The larger memory of two moments: at the loss, with all activations and the logits, and at the end of the
    backward pass, with all gradients."""
    model, training, tokens = plan.config.model, plan.config.training, shape.tokens
    parameters, optimizer = state_bytes(plan)
    gradients = bytes_on_device(plan.abstract_state.params)
    per_layer, on_host = _kept(model.remat, model.layers, shape)
    activations = round(shape.width * tokens * shape.layers * per_layer)
    chunk = min(training.loss_chunk or tokens, tokens)
    logits = round((LOGIT + shape.width) * chunk * shape.vocabulary)
    accumulated, in_loop = shape.micro_batches > 1, model.layers == "scan"
    collected = gradients * (accumulated + in_loop)  # loops over micro-batches and layers add gradients up in place
    if chunk < tokens:  # the loop over chunks adds up the output layer's gradient, and keeps the gradient of its input
        collected += round(4 * shape.vocabulary * shape.stream)
        activations += round(2 * shape.width * tokens * shape.stream)
    gathered = _gathered(plan, shape)
    one_layer = round(shape.width * tokens * 2 * shape.of_products)  # further arrays in the backward pass of a layer
    at_loss = collected + activations + logits
    at_end = gradients * (1 + accumulated) + one_layer + (activations // max(shape.layers, 1))
    batch = 2 * bytes_on_device(plan.abstract_batch)
    if at_loss >= at_end:
        found = (collected, activations, logits, gathered + batch)
    else:
        found = (gradients * (1 + accumulated), activations // max(shape.layers, 1), 0, one_layer + gathered)
    host = round(shape.width * tokens * shape.layers * on_host)
    return Memory(parameters, found[0], optimizer, found[1], found[2], found[3], host)


def _kept(remat: str, layers: str, shape: _Shape) -> tuple[float, float]:
    """(elements per token and layer saved for the backward pass on the device, on the host)."""
    products = shape.of_products
    everything = products + 2 * shape.stream + (ALL_KEPT - (2 if shape.gated else 1)) * shape.feedforward
    everything += IN_LOOP * shape.stream if layers == "scan" else shape.gated * shape.feedforward
    return {
        "none": (everything, 0.0),
        "dots": (products, 0.0),
        "attention": (shape.stream + shape.heads, 0.0),
        "full": (shape.stream, 0.0),
        "offload_dots": (shape.stream, products - shape.stream),
        "offload_inputs": (0.0, shape.stream),
    }[remat]


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


# --- work ------------------------------------------------------------------------------------------------------------


def _kernels(plan: Plan, shape: _Shape) -> Iterator[Kernel]:
    model, tokens, times = plan.config.model, shape.tokens, shape.micro_batches
    # A pipeline's stages also compute when they are idle.
    idle = 1 / (1 - schedule_of(plan.config.mesh, plan.mesh).bubble)
    eight = model.matmul == "fp8"
    for parameter in jax.tree.leaves(plan.trainer.declared):
        if parameter.kind != "matrix" and not parameter.tied:
            continue
        inputs, outputs = (math.prod(side.values()) for side in (parameter.inputs, parameter.outputs))
        tensor = plan.mesh.shape["tensor"]
        members = math.prod(size for axis, size in parameter.stack.items() if axis != "experts")
        active = parameter.active or 1
        of_layer = "layers" in parameter.stack
        members = members / plan.mesh.shape["pipeline"] if of_layer else members
        again = (
            shape.again if of_layer and "mlp" not in parameter.inputs else 1
        )  # a layer's last product is not recomputed
        passes = (2 + again) * times * members * (idle if of_layer else 1)
        moved = shape.width * (tokens * active * (inputs + outputs / tensor) + inputs * outputs / tensor)
        flops = 2.0 * tokens * active * inputs * outputs / tensor
        yield Kernel("product", flops, eight and of_layer, moved, round(passes))
    counted = plan.flops_per_token["causal"] - 6.0 * plan.parameters.multiplied
    per_layer = counted * tokens
    per_layer /= plan.mesh.shape["tensor"] * shape.layers * plan.mesh.shape["pipeline"]
    attention = per_layer * (ATTENTION + (shape.again - 1) / 3)
    yield Kernel(
        "attention",
        attention / 3,
        False,
        4 * shape.width * tokens * shape.heads,
        round(3 * shape.layers * times * idle),
    )
    moved = MOVED * shape.width * tokens * shape.of_products / 8
    yield Kernel("other", 0.0, False, moved, round(8 * shape.layers * times * idle))
    yield Kernel("other", 0.0, False, MOVED * shape.width * tokens * shape.vocabulary / 4, 4 * times)
    of_state = bytes_on_device(plan.abstract_state.params) / 4
    yield Kernel("other", 0.0, False, UPDATED * of_state / 4, 4)


def _collectives(plan: Plan, shape: _Shape) -> Iterator[Collective]:
    """The collectives of the mesh's axes in the forms that XLA chooses: bfloat16 parts of parameters and
    activations."""
    mesh, times = plan.mesh.shape, shape.micro_batches
    layers = shape.layers
    local = (
        sum(shape.width * parameter.size for parameter in jax.tree.leaves(plan.trainer.declared))
        / mesh["tensor"]
        / mesh["pipeline"]
    )
    if mesh["fsdp"] > 1:
        group = _group(plan, "fsdp")
        part = round(local / max(layers, 1))
        yield Collective("all-gather", part, group, 2 * layers * times)
        yield Collective("reduce-scatter", part, group, layers * times)
    if mesh["data"] > 1:
        size = round(4 / shape.width * local / mesh["fsdp"])  # float32 sums
        if plan.config.mesh.zero1:
            yield Collective("reduce-scatter", size, _group(plan, "data"), 1)
            yield Collective("all-gather", size, _group(plan, "data"), 1)
        else:
            yield Collective("all-reduce", size, _group(plan, "data"), 1)
    stream = round(shape.width * shape.tokens * shape.stream)
    if mesh["tensor"] > 1:
        yield Collective("all-reduce", stream, _group(plan, "tensor"), round((3 + shape.again) * layers * times))
    if mesh["context"] > 1:
        moved = round(shape.width * shape.tokens * (2 * shape.heads + 2 * shape.keys))
        yield Collective("all-to-all", moved, _group(plan, "context"), round((1 + shape.again) * layers * times))
    if mesh["expert"] > 1:
        used = plan.config.model.experts_per_token
        yield Collective(
            "all-to-all", stream * used, _group(plan, "expert"), round(2 * (1 + shape.again) * layers * times)
        )
    if mesh["pipeline"] > 1:
        schedule = schedule_of(plan.config.mesh, plan.mesh)
        yield Collective(
            "collective-permute",
            stream // schedule.microbatches,
            _group(plan, "pipeline")[:2],
            2 * schedule.ticks * times,
        )


def _group(plan: Plan, axis: str) -> tuple[int, ...]:
    """The numbers of the devices along an axis; consecutive numbers are on the last axes."""
    after = AXES[AXES.index(axis) + 1 :]
    stride = math.prod(plan.mesh.shape[each] for each in after)
    return tuple(range(0, stride * plan.mesh.shape[axis], stride))
