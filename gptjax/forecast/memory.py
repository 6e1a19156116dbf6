"""The memory of one device in a training step, by its content.

Parameters and optimizer state are exact: the bytes of their arrays by their shardings. The total (`step_bytes`) is the
compiler's: arguments, results that do not use an argument's memory, and temporary arrays; and on processors what the
libraries of products take beside them (product_buffers.py). Temporary memory is divided among the arrays that are live
at the peak (liveness.py), which are classified by these rules, in this order:

  gradients    it is shaped like a parameter, its layer's part or its matrix, and either the backward pass sums it, or
               sums over layers, chunks or micro-batches are collected in it
  logits       it is not shaped like a parameter and has an axis as long as the vocabulary
  activations  neither, and the forward pass made it, or its repetition in the backward pass
  workspace    all else: parameters gathered or rounded, what the backward pass hands from layer to layer, the batch,
               what is sent, what the compiler adds to place and align, and what the libraries take
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Any

import jax

from gptjax.forecast.liveness import Live, live_at_peak
from gptjax.forecast.product_buffers import product_buffers
from gptjax.forecast.program import Program, parse_program
from gptjax.planning import Plan

_COLLECTS = re.compile(r"(?:broadcast_in_dim|while|add_any|add|zeros|pjit|psum|reduce_scatter)$")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device. host: bytes in its host's memory, which are not part of the total."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int
    host: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, name) for name in PARTS)


PARTS = ("parameters", "gradients", "optimizer", "activations", "logits", "workspace")


def memory_of(plan: Plan, compiled: jax.stages.Compiled, program: Program) -> Memory:
    """The memory of a compiled step.

    Args:
      program: its text, parsed.

    Raises:
      ValueError: this compiler does not say how much memory the step takes.
    """
    parameters, optimizer = state_bytes(plan)
    statistics, total = compiled.memory_analysis(), step_bytes(plan, compiled, program)
    if statistics is None or total is None:
        raise ValueError("this compiler does not say how much memory the step takes")
    parts = dict.fromkeys(("gradients", "activations", "logits"), 0)
    part_of = _Rules(plan)
    for each in live_at_peak(program):
        part = part_of(each)
        if part in parts:
            parts[part] += each.array.bytes
    workspace = total - parameters - optimizer - sum(parts.values())
    host = statistics.host_argument_size_in_bytes + statistics.host_temp_size_in_bytes
    return Memory(parameters, parts["gradients"], optimizer, parts["activations"], parts["logits"], workspace, host)


def step_bytes(plan: Plan, compiled: jax.stages.Compiled, program: Program | None = None) -> int | None:
    """The bytes that training takes on each device by its compiled step; None: this compiler does not say.

    Every decision about memory uses this number. program: the step's text, if it is parsed already.
    """
    if (statistics := compiled.memory_analysis()) is None:
        return None
    on_processors = plan.platform == "cpu"
    beside = product_buffers(program or parse_program(compiled.as_text() or "")) if on_processors else 0
    own_results = statistics.output_size_in_bytes - statistics.alias_size_in_bytes
    return statistics.argument_size_in_bytes + statistics.temp_size_in_bytes + own_results + beside


def state_bytes(plan: Plan) -> tuple[int, int]:
    """(bytes of parameters, their moving average and models that the objective reads, of all other state) on one
    device, by their shardings."""
    state = plan.abstract_state
    own = bytes_on_device(state.params) + bytes_on_device(state.ema)
    return own + bytes_on_device(plan.trainer.companions), bytes_on_device(state) - own


def bytes_on_device(tree: Any) -> int:
    """The bytes of arrays on one device, without those in host memory."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if leaf.sharding.memory_kind != "pinned_host"
    )


class _Rules:
    """Classifies arrays by the part of memory to which they belong."""

    def __init__(self, plan: Plan):
        self.of_parameters: set[tuple[int, ...]] = set()
        declared = jax.tree.leaves(plan.trainer.declared)
        for leaf, parameter in zip(jax.tree.leaves(plan.abstract_state.params), declared, strict=True):
            for shape in (leaf.shape, leaf.sharding.shard_shape(leaf.shape)):
                stack = shape[: len(parameter.stack)]
                one, inputs = shape[len(stack) :], len(parameter.inputs)
                flat = (math.prod(one[:inputs]), math.prod(one[inputs:]))
                self.of_parameters |= {_key(each) for each in (shape, one, flat, (*stack, *flat))}
        self.of_parameters -= {(), (1,)}
        size, tensor = plan.config.model.vocab_size, plan.mesh.shape["tensor"]
        self.vocabulary = {size, -(-size // tensor)}

    def __call__(self, live: Live) -> str:
        scope, like_parameter = live.scope, _key(live.array.shape) in self.of_parameters
        backward = "transpose(" in scope
        if like_parameter:
            summed = backward and "dot_general" in scope
            collected = live.array.dtype == "f32" and (_COLLECTS.search(scope) or not scope.startswith("jit("))
            is_sent = live.kind.startswith("all-gather")
            return "gradients" if (summed or collected) and not is_sent else "workspace"
        if self.vocabulary & set(live.array.shape):
            return "logits"
        repeated = "rematted_computation" in scope or "checkpoint" in scope
        return "activations" if "jvp(" in scope and (repeated or not backward) else "workspace"


def _key(shape: Iterable[int]) -> tuple[int, ...]:
    """The sorted axes of a shape, without axes of size 1."""
    return tuple(sorted(size for size in shape if size > 1))
