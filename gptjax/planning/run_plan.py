"""Plans a run from its config, facts about the data, and devices, without allocating or compiling anything.

Only `compiled_step` compiles. A plan is made at the start of every run, for every run of a sweep, and for devices that
this machine does not have: those of `jax.experimental.topologies`, for which the step can be compiled, and
`AbstractDevices`, which only have a kind and a number.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from gptjax.config import AUTO, ConfigError, Units, check_micro_batches, get
from gptjax.data.facts import DataFacts
from gptjax.display.formatting import counted
from gptjax.model.families import family_named, family_of
from gptjax.model.flops import product_flops
from gptjax.model.parameters import ParameterCounts, count_parameters
from gptjax.parallel.mesh import (
    BATCH_AXES,
    AbstractDevices,
    abstract_mesh,
    batch_devices,
    make_mesh,
    rows_at_once,
    rows_at_once_text,
)
from gptjax.settings import Settings, freeze
from gptjax.training.hardware import Peak, peak_flops, peak_of
from gptjax.training.objectives import make_objective
from gptjax.training.optimizers.trained import Untrained, untrained
from gptjax.training.state import TrainState
from gptjax.training.trainer import Trainer, make_trainer

# With fsdp, unrolled layers keep their gathered weights until the backward pass. A scan, or layers that are recomputed,
# gather them again. Up to this many bytes of all layers, `auto` lets a device keep them (experiments/ahead_of_time).
KEPT_WEIGHTS = 2**31


class CompiledStep(NamedTuple):
    """(state, batch) → (state, metrics), and the seconds that its compilation took."""

    run: jax.stages.Compiled
    seconds: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run before it starts.

    Attributes:
      config: the resolved config, without any `auto`, except for those that depend on an unknown platform and for
        `training.batch_per_device` (forecast/micro_batch.py).
      devices: the devices that the plan was made for.
      units: converts durations to steps.
      total_steps: the length of the run in steps.
      trainer: model, optimizer and schedule on the mesh, and the shapes and shardings of its state and batch.
    """

    config: Settings
    data: DataFacts
    devices: Sequence[jax.Device] | AbstractDevices
    units: Units
    total_steps: int
    trainer: Trainer

    @property
    def mesh(self) -> Mesh | AbstractMesh:
        return self.trainer.mesh

    @property
    def platform(self) -> str:
        """'cpu', 'gpu' or 'tpu'."""
        return self.devices.platform if isinstance(self.devices, AbstractDevices) else self.devices[0].platform

    @property
    def abstract_state(self) -> TrainState:
        return self.trainer.abstract_state

    @functools.cached_property
    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        return self.trainer.abstract_batch()

    @property
    def tokens_per_step(self) -> int:
        return self.units.tokens_per_step

    @property
    def total_tokens(self) -> int:
        return self.total_steps * self.tokens_per_step

    @property
    def rows_at_once(self) -> int:
        """Sequences per micro-batch, over all devices. Evaluation uses the same number, so that it fits in memory if
        training fits."""
        return rows_at_once(self.config.training)

    @functools.cached_property
    def parameters(self) -> ParameterCounts:
        return count_parameters(self.trainer.declared)

    @functools.cached_property
    def flops_per_token(self) -> dict[str, float]:
        """The FLOPs per trained token, by convention (model/flops.py)."""
        data, declared = self.config.data, self.trainer.declared
        whole = family_of(self.config.model).flops_per_token(data.sequence_length, data.source_length)
        products, less = product_flops(declared), self._untrained
        saved = 2.0 * (less.frozen + less.below)
        backwards = less.layers_below * 2 / 3  # of the attention
        return {name: flops - saved - backwards * max(flops - products, 0.0) for name, flops in whole.items()}

    @functools.cached_property
    def _untrained(self) -> Untrained:
        return untrained(self.trainer.declared, self.trainer.treatments)

    @property
    def flop_formulas(self) -> Mapping[str, str]:
        """How the FLOPs are counted, by convention."""
        less = self._untrained
        saved = " - 2·N_frozen" * bool(less.frozen or self.parameters.frozen) + " - 2·N_below" * bool(less.below)
        saved += " - 2/3 of attention below" * bool(less.layers_below)
        return {name: text + saved for name, text in family_of(self.config.model).flop_formulas.items()}

    @functools.cached_property
    def peak(self) -> Peak:
        """The peak speed of all devices together. For CPUs, no table has it, so it is measured when this is first
        read."""
        if isinstance(self.devices, AbstractDevices):
            return peak_of(self.devices.kind, self.mesh.size, self.config.model.dtype)
        return peak_flops(self.devices, self.config.model.dtype)

    @functools.cached_property
    def compiled_step(self) -> CompiledStep:
        """The training step, compiled when this is first read."""
        started = time.perf_counter()
        assert isinstance(self.mesh, Mesh)  # nothing can be compiled for devices that are only described
        with jax.set_mesh(self.mesh):
            compiled = self.trainer.compile_train_step(self.abstract_batch)
        return CompiledStep(compiled, time.perf_counter() - started)

    def every(self, field: str, done: int) -> bool:
        """Whether the interval of a field such as 'checkpoint.every' ends after `done` steps, or the run does. An empty
        interval never ends."""
        duration = get(self.config, field)
        return bool(duration) and (done % self.units.steps(duration, field) == 0 or done == self.total_steps)

    def evaluates(self, done: int) -> bool:
        """Whether to evaluate after `done` steps: at the configured interval, and at each save if the best are kept."""
        if not self.config.evaluation.every:
            return False
        saves = self.config.checkpoint.keep_best and self.every("checkpoint.every", done)
        return bool(saves or self.every("evaluation.every", done))


def plan(config: ConfigDict | Settings, data: DataFacts, devices: Sequence[jax.Device] | AbstractDevices) -> Plan:
    """Resolves every `auto` of a valid config, and decides the length of the run and the sharding of its arrays.

    devices: all devices of the run. With AbstractDevices, no device of this machine is used.

    Raises:
      ConfigError: data, devices and config do not fit each other.
    """
    settings = freeze(config)
    rows, windows = settings.training.batch_size, data.windows_per_epoch
    units = Units(rows * settings.data.sequence_length, None if windows is None else windows / rows)
    total_steps = units.steps(settings.training.duration, "training.duration")
    units = dataclasses.replace(units, total_steps=total_steps)

    mesh: Mesh | AbstractMesh
    if isinstance(devices, AbstractDevices):
        platform, mesh = devices.platform, abstract_mesh(settings.mesh, devices)
    else:
        platform, mesh = devices[0].platform, make_mesh(settings.mesh, devices)
    settings = resolve(settings, data, platform, batch_devices(mesh))
    trainer = make_trainer(settings, mesh, total_steps, functools.partial(units.steps, field="schedule"))
    together = trainer.objective.updates_per_rollout
    # A run that ended within a group of steps would, if it is made longer, not continue as a longer one does.
    for field in ("checkpoint.every", "training.duration"):
        if (steps := units.steps(get(settings, field), field)) % together:
            raise ConfigError(
                f"{field} = {get(settings, field)!r}: must be a multiple of training.updates_per_rollout = {together} "
                f"steps, and is {counted(steps, 'step')}"
            )
    return Plan(settings, data, devices, units, total_steps, trainer)


def resolve(config: ConfigDict | Settings, data: DataFacts, platform: str, batch_devices: int) -> Settings:
    """Returns the config with every `auto` resolved for these devices and this tokenizer.

    platform: the devices' platform, or '' if it is unknown; fields that depend on it then stay `auto`.
    batch_devices: the number of devices over which the rows of a batch are split.

    Raises:
      ConfigError: the rows cannot be split over the devices, or model.vocab_size is smaller than the vocabulary.
    """
    settings = freeze(config)
    if 0 < config.model.vocab_size < data.vocab_size:
        raise ConfigError(
            f"model.vocab_size = {config.model.vocab_size}: must be at least {data.vocab_size}, the size of the "
            "tokenizer of data.path"
        )
    settings = with_micro_batches(settings, batch_devices)
    if rows_at_once(settings.training) % batch_devices:
        axes = " x ".join(f"mesh.{axis}" for axis in BATCH_AXES if settings.mesh[axis] != 1)
        raise ConfigError(
            f"{rows_at_once_text(settings.training)}: must be divisible by the {batch_devices} devices of {axes}"
        )
    num_classes = config.model.num_classes or data.num_classes
    model = family_named(config.model.family).resolve(
        dataclasses.replace(settings.model, num_classes=num_classes),
        platform=platform,
        vocab_size=data.vocab_size,
        sequence_length=config.data.sequence_length,
        packed=make_objective(settings).is_packed,
        source_vocab_size=data.source_vocab_size or 0,
        source_length=settings.data.source_length or settings.data.sequence_length,
    )
    chosen = settings.model.layers == AUTO and model.layers == "unroll"
    if chosen and settings.mesh.fsdp != 1 and model.remat == "none":
        layers = sum(each.size for each in jax.tree.leaves(family_of(model).declarations) if each.num_layers)
        if layers * jnp.dtype(model.dtype).itemsize > KEPT_WEIGHTS:
            model = dataclasses.replace(model, layers="scan")
    return dataclasses.replace(settings, model=model)


def with_micro_batches(settings: Settings, batch_devices: int) -> Settings:
    """Sets `training.gradient_accumulation_steps` as `training.batch_per_device` decides it. With `auto`, which
    forecast/micro_batch.py replaces, there is one micro-batch.

    Raises:
      ConfigError: a batch cannot be divided like this.
    """
    training, steps = settings.training, 1
    if not training.batch_per_device:
        return settings
    if training.batch_per_device != AUTO:
        rows = int(training.batch_per_device) * batch_devices
        if training.batch_size % rows:
            raise ConfigError(
                f"training.batch_per_device = {training.batch_per_device}: {counted(rows, 'row')} at once on "
                f"{counted(batch_devices, 'device')} must divide training.batch_size = {training.batch_size}"
            )
        steps = training.batch_size // rows
    settings = dataclasses.replace(settings, training=dataclasses.replace(training, gradient_accumulation_steps=steps))
    check_micro_batches(settings)
    return settings
