"""Layers divided over the mesh axis `pipeline`: each stage holds some, and micro-batches pass through the stages.

In each time step, called a tick, every stage runs its layers on one micro-batch and sends the result to the next one.
Three stages and three micro-batches (GPipe, arXiv:1811.06965), with dots where a stage is idle, which is the bubble:

    stage 0   0 1 2 . .
    stage 1   . 0 1 2 .
    stage 2   . . 0 1 2

With R repeats, a stage holds R groups of layers that do not follow each other, and a micro-batch passes R times through
the ring of stages (the circular or interleaved schedule, arXiv:2104.04473, section 2.2). Ticks and bubble are R times
as short, but a micro-batch is sent R times as often. Arrays of parameters keep the model's order of layers, so each
step starts by sending groups of layers to their stages and ends by sending their gradients back.

Embedding, head and loss belong to no stage, nor do the first dense layers of a model with experts, which are few and
of another kind. For them, the axis splits the rows of a batch as `data` does. The rows are
passed from device to device until they reach the first stage, and the results come back from the last stage in the same
way; the code calls this the conveyor.

All stages are one program, a `shard_map` over this axis only. Inside it, the compiler divides the work over the other
axes of the mesh as usual.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from gptjax.config import ConfigError
from gptjax.model.parameters import stack_sizes
from gptjax.model.stack import layer_marks
from gptjax.parallel.mesh import BATCH_AXES, compiler_axes, rows_at_once, rows_at_once_text
from gptjax.settings import MeshSettings, Settings

AXIS = "pipeline"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What each stage runs in each tick.

    Attributes:
      microbatches: number of micro-batches into which the rows of a batch are cut; a multiple of `stages`.
      repeats: R, the number of groups of layers per stage.
    """

    stages: int
    microbatches: int
    repeats: int = 1

    @property
    def turns(self) -> int:
        """The number of ticks in which a stage is busy."""
        return self.microbatches * self.repeats

    @property
    def ticks(self) -> int:
        """The number of ticks of a forward pass. The backward pass is its mirror image and takes as many."""
        return self.turns + self.stages - 1

    @property
    def bubble(self) -> float:
        """The fraction of time for which a stage is idle."""
        return (self.stages - 1) / self.ticks

    def at(self, stage: Any, tick: Any) -> tuple[Any, Any, Any]:
        """(micro-batch, repeat, whether the stage is busy) of a stage in a tick, as numbers or arrays."""
        turn = tick - stage
        return turn % self.microbatches, turn // self.microbatches, (turn >= 0) & (turn < self.turns)


def schedule_of(config_mesh: MeshSettings, mesh: Mesh | AbstractMesh) -> Schedule:
    """The schedule of a config's `mesh` section on a mesh."""
    stages = mesh.shape[AXIS]
    return Schedule(stages, config_mesh.pipeline_microbatches or stages, config_mesh.pipeline_repeats)


def check_pipeline(config: Settings, mesh: Mesh | AbstractMesh, declared: Any) -> None:
    """Raises ConfigError unless rows and layers divide into equal parts and one program can run every part of the
    layers.

    Args:
      config: resolved.
      declared: the declarations of the model's parameters.
    """
    schedule = schedule_of(config.mesh, mesh)
    stages, repeats = schedule.stages, schedule.repeats
    if stages == 1:
        for field, default in (("pipeline_microbatches", 0), ("pipeline_repeats", 1)):
            if config.mesh[field] != default:
                raise ConfigError(f"mesh.{field} = {config.mesh[field]}: must be {default} where mesh.pipeline is 1")
        return
    if config.model.remat.startswith("offload"):
        raise ConfigError(
            f"model.remat = {config.model.remat!r}: must be none, dots, attention or full where mesh.pipeline > 1; "
            "what a stage keeps stays on its device"
        )
    if schedule.microbatches % stages:
        raise ConfigError(
            f"mesh.pipeline_microbatches = {schedule.microbatches}: must be a multiple of mesh.pipeline = {stages}, or "
            "0 for as many"
        )
    others = [axis for axis in BATCH_AXES if axis != AXIS and mesh.shape[axis] > 1]
    parts = schedule.microbatches * math.prod(mesh.shape[axis] for axis in others)
    if rows_at_once(config.training) % parts:
        factors = " and ".join([f"{schedule.microbatches} micro-batches", *(f"mesh.{axis}" for axis in others)])
        raise ConfigError(
            f"{rows_at_once_text(config.training)}: must be divisible by {parts}, the product of {factors}"
        )
    for path, num_layers in stack_sizes(declared).items():
        fitting = _possible_groups(config, num_layers)
        if stages * repeats not in fitting:
            pattern = config.model.window_pattern
            parts_alike = f", with the same part of model.window_pattern = {pattern!r} in each"
            same = parts_alike if len(set(pattern)) > 1 else ""
            raise ConfigError(
                f"mesh.pipeline = {stages} x mesh.pipeline_repeats = {repeats}: the {num_layers} layers of '{path}' "
                f"must divide into so many equal groups{same}; the product may be {', '.join(map(str, fitting))}"
            )


def _possible_groups(config: Settings, num_layers: int) -> list[int]:
    """The numbers of groups of consecutive layers for which one program can run every group."""
    before = config.model.first_dense_layers
    marks = layer_marks(dataclasses.replace(config.model, num_layers=before + num_layers))[before:]
    divisors = [count for count in range(1, num_layers + 1) if num_layers % count == 0]
    return [count for count in divisors if marks[: num_layers // count] * count == marks]


def pipelined(
    run: Callable[..., tuple[Array, Any]],
    layers: Any,
    x_BTD: Array,
    seen: Any,
    keys_LB: Array | None,
    *,
    schedule: Schedule,
    keep: Callable[..., bool],
) -> tuple[Array, Any]:
    """Computes `run(layers, x_BTD, seen, keys_LB)` with the stages of the current mesh.

    Args:
      run: runs any number of consecutive layers; returns x_BTD and statistics [L, B, …].
      layers: parameters [L, …].
      seen: the inputs that all layers share, as arrays [B, …], or [1, …] if they are the same for all rows.
      keys_LB: keys of random numbers.
      keep: the `jax.checkpoint` policy that selects what several layers save for the backward pass.
    """
    stages, repeats = schedule.stages, schedule.repeats
    by_row = {"seen": seen, "keys": None}
    if keys_LB is not None:
        by_row["keys"] = jax.random.key_data(keys_LB).swapaxes(0, 1)  # collectives take no keys
    split = compiler_axes((AXIS, "data"))  # each replica of the parameters has its own rows
    rows, own_rows = x_BTD.shape[0], P(split)
    specs = jax.tree.map(lambda leaf: own_rows if leaf.shape[0] == rows else P(), by_row)

    @functools.partial(
        jax.shard_map,
        in_specs=(P(AXIS), own_rows, specs),
        out_specs=(own_rows, P(None, AXIS, None, split[1:])),
        axis_names=set(split),
    )
    def stage_program(layers: Any, x_BTD: Array, by_row: Any) -> tuple[Array, Any]:
        stage = lax.axis_index(AXIS)
        layers = lax.pcast(layers, split[1:], to="varying")  # like the rows, which some custom gradients need
        groups = _dealt(jax.tree.map(lambda a: a.reshape(repeats, -1, *a.shape[1:]), layers), schedule)
        size = jax.tree.leaves(groups)[0].shape[1]
        cut = functools.partial(_cut, schedule)
        by_microbatch = jax.tree.map(
            lambda a, spec: lax.all_gather(cut(a), AXIS, tiled=True) if spec == own_rows else a, by_row, specs
        )

        def turn(x_bTD: Array, tick: Array) -> tuple[Array, Any]:
            microbatch, repeat, _ = schedule.at(stage, tick)
            repeat = jnp.clip(repeat, 0, repeats - 1)
            rows = jax.tree.map(lambda a, spec: _pick(a, microbatch) if spec == own_rows else a, by_microbatch, specs)
            keys_Lb = None
            if keys_LB is not None:
                first = (repeat * stages + stage) * size
                data = lax.dynamic_slice_in_dim(rows["keys"], first, size, axis=1).swapaxes(0, 1)
                keys_Lb = jax.random.wrap_key_data(data, impl=jax.random.key_impl(keys_LB))
            picked = functools.partial(_pick, index=repeat) if repeats > 1 else operator.itemgetter(0)
            return run(jax.tree.map(picked, groups), x_bTD, rows["seen"], keys_Lb)

        if repeats > 1:  # otherwise the parameters picked in each tick would all be saved for the backward pass
            turn = jax.checkpoint(turn, policy=keep)
        x_kbTD, statistics = _flow(turn, cut(x_BTD), schedule)
        statistics = jax.tree.map(functools.partial(_of_layers, schedule, stage), statistics)
        return x_kbTD.swapaxes(0, 1).reshape(x_BTD.shape), statistics

    x_BTD, statistics = stage_program(layers, x_BTD, by_row)
    return x_BTD, jax.tree.map(lambda a: a.reshape(-1, rows, *a.shape[4:]), statistics)


def _flow(turn: Callable[..., tuple[Array, Any]], x_kbTD: Array, schedule: Schedule) -> tuple[Array, Any]:
    """Passes the micro-batches through the stages.

    Args:
      turn: (micro-batch, tick) → (the micro-batch after a stage's layers, the statistics of these layers).
      x_kbTD: the k = M/S micro-batches on this device, whose numbers start at k · stage.

    Returns:
      The same micro-batches after all layers; and the statistics of all ticks, stacked.
    """
    stages, last, k = schedule.stages, schedule.stages - 1, x_kbTD.shape[0]
    stage = lax.axis_index(AXIS)
    delay = schedule.microbatches - stages  # ticks between the end of one round and the start of the next
    forward = [(s, (s + 1) % stages) for s in range(stages)]
    backward = [(s, s - 1) for s in range(1, stages)]

    def tick(carry: Any, number: Array) -> tuple[Any, Any]:
        conveyor, handed, waiting = carry
        slot = number % k
        carried = _pick(conveyor, slot)
        entering = carried
        if schedule.repeats > 1:
            returned = handed
            if delay:
                returned = _pick(waiting, number % delay)
                waiting = lax.dynamic_update_index_in_dim(waiting, handed, number % delay, 0)
            entering = jnp.where(number < schedule.microbatches, carried, returned)
        y_bTD, statistics = turn(jnp.where(stage == 0, entering, handed), number)
        # Every k ticks, the conveyor moves by one device towards the first stage; the results follow behind the inputs.
        carried = jnp.where(stage == last, y_bTD, lax.ppermute(carried, AXIS, backward))
        conveyor = lax.dynamic_update_index_in_dim(conveyor, carried, slot, 0)
        return (conveyor, lax.ppermute(y_bTD, AXIS, forward), waiting), statistics

    # An idle stage computes with its own rows: these are finite numbers, and nothing reads the result.
    waiting = jnp.broadcast_to(x_kbTD[0], (delay if schedule.repeats > 1 else 0, *x_kbTD.shape[1:]))
    (conveyor, _, _), statistics = lax.scan(tick, (x_kbTD, x_kbTD[0], waiting), jnp.arange(schedule.ticks))
    return jnp.roll(conveyor, -last, axis=0), statistics


def _dealt(groups: Any, schedule: Schedule) -> Any:
    """Arrays [R, …] of the R consecutive groups of layers on this device → arrays of the groups that its stage runs.

    Groups are numbered in the model's order. Stage s holds groups s R … s R + R - 1 and runs groups s, s + S, s + 2 S,
    …. In each of R rounds, every stage sends one group and receives one.
    """
    stages, repeats = schedule.stages, schedule.repeats
    if repeats == 1:
        return groups
    stage, alike = lax.axis_index(AXIS), stages // math.gcd(stages, repeats)
    dealt = groups
    for number in range(repeats):
        sent = [(number + s // alike) % repeats for s in range(stages)]  # two stages never send to the same stage
        goals = [divmod(s * repeats + sent[s], stages) for s in range(stages)]
        places = dict((goal, place) for place, goal in goals)
        send = [(s, goal) for s, (_, goal) in enumerate(goals)]
        own, place = jnp.array(sent)[stage], jnp.array([places[s] for s in range(stages)])[stage]

        def exchange(mine: Array, result: Array, own: Array = own, place: Array = place, send: Any = send) -> Array:
            return lax.dynamic_update_index_in_dim(result, lax.ppermute(_pick(mine, own), AXIS, send), place, 0)

        dealt = jax.tree.map(exchange, groups, dealt)
    return dealt


def _cut(schedule: Schedule, x: Array) -> Array:
    """The rows [B/S, …] of this device as micro-batches [k, b, …]. A micro-batch takes every k-th row, so that no row
    leaves its device if rows are split over other axes, too."""
    k = schedule.microbatches // schedule.stages
    cut = x.reshape(-1, k, *x.shape[1:]).swapaxes(0, 1)
    axes, others = compiler_axes(BATCH_AXES), [P.UNCONSTRAINED] * (cut.ndim - 2)
    return lax.with_sharding_constraint(cut, P(None, axes, *others)) if axes else cut


def _of_layers(schedule: Schedule, stage: Array, x: Array) -> Array:
    """Statistics [ticks, layers of a group, b, …] of a stage → [R, layers of a group, S, B/S, …], with rows in the
    order of the batch."""
    stages, k = schedule.stages, schedule.microbatches // schedule.stages
    x = lax.dynamic_slice_in_dim(x, stage, schedule.turns)
    x = x.reshape(schedule.repeats, stages, k, *x.shape[1:])  # [R, S, k, layers, b, …]
    x = jnp.moveaxis(x, (3, 1, 4, 2), (1, 2, 3, 4))  # [R, layers, S, b, k, …]
    return x.reshape(*x.shape[:3], -1, *x.shape[5:])


def _pick(x: Array, index: Any) -> Array:
    return lax.dynamic_index_in_dim(x, index, 0, keepdims=False)
