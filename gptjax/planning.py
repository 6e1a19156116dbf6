"""What will this run be? A config, facts of the data and devices decide all of it; nothing is allocated or compiled.

A plan is made at the start of every run, for every run of a sweep, and for devices that are not here: those of
`jax.experimental.topologies`, for which its step can be compiled, and `AbstractDevices`, which are only told of.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from gptjax.config import ConfigError, Units, get
from gptjax.data.facts import DataFacts
from gptjax.formatting import counted
from gptjax.model.parameters import ParameterCounts, count_parameters
from gptjax.model.resolve import resolve_model
from gptjax.parallel.mesh import AbstractDevices, abstract_mesh, batch_devices, make_mesh
from gptjax.settings import Settings, freeze
from gptjax.training.hardware import Peak, peak_flops, peak_of
from gptjax.training.metrics import flops_per_token
from gptjax.training.state import TrainState
from gptjax.training.trainer import Trainer, make_trainer


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run before it starts.

    Attributes:
      config: resolved: no `auto` is left in it, unless the platform is not known.
      devices: what the plan was made for.
      units: turns durations into steps.
      total_steps: the length of the run.
      trainer: model, optimizer and schedule on the mesh; its state and batch as shapes, each with its sharding.
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
        """Sequences of a micro-batch, over all devices: of evaluation, too, so that what trains fits when evaluated."""
        return self.config.training.batch_size // self.config.training.gradient_accumulation_steps

    @functools.cached_property
    def parameters(self) -> ParameterCounts:
        return count_parameters(self.trainer.declared)

    @functools.cached_property
    def flops_per_token(self) -> dict[str, float]:
        """Of training, by convention (training/metrics.py)."""
        return flops_per_token(self.config.model, self.config.data.sequence_length)

    @functools.cached_property
    def peak(self) -> Peak:
        """What all devices together can compute. That of a CPU is in no table: it is measured when this is read."""
        if isinstance(self.devices, AbstractDevices):
            return peak_of(self.devices.kind, self.mesh.size, self.config.model.dtype)
        return peak_flops(self.devices, self.config.model.dtype)

    def every(self, field: str, done: int) -> bool:
        """Whether a field such as 'checkpoint.every' is due after `done` steps: at the end too, and never if empty."""
        duration = get(self.config, field)
        return bool(duration) and (done % self.units.steps(duration, field) == 0 or done == self.total_steps)

    def evaluates(self, done: int) -> bool:
        """Whether to evaluate after `done` steps: when it is due, and at each save, so that the best can be kept."""
        if not self.config.evaluation.every:
            return False
        saves = self.config.checkpoint.keep_best and self.every("checkpoint.every", done)
        return bool(saves or self.every("evaluation.every", done))


def plan(config: ConfigDict | Settings, data: DataFacts, devices: Sequence[jax.Device] | AbstractDevices) -> Plan:
    """Decides what every `auto` of a valid config means, how long the run is, and what lies where.

    devices: all that the run has. With AbstractDevices no device of this machine is touched.

    Raises:
      ConfigError: data, devices and config do not go together.
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
    return Plan(settings, data, devices, units, total_steps, trainer)


def resolve(config: ConfigDict | Settings, data: DataFacts, platform: str, batch_devices: int) -> Settings:
    """The config for these devices and this tokenizer, complete.

    platform: '' where it is not known: what only the platform decides stays as it is.
    batch_devices: over how many devices the rows of a batch are split.

    Raises:
      ConfigError: the batch does not divide over the devices, or the model has no room for the vocabulary.
    """
    if 0 < config.model.vocab_size < data.vocab_size:
        raise ConfigError(
            f"model.vocab_size = {config.model.vocab_size}: must be at least {data.vocab_size}, the size of the "
            "tokenizer of data.path"
        )
    rows = config.training.batch_size // config.training.gradient_accumulation_steps
    if rows % batch_devices:
        raise ConfigError(
            f"training.batch_size / training.gradient_accumulation_steps = {counted(rows, 'row')}: must be "
            f"divisible by the {batch_devices} devices of mesh.data x mesh.fsdp"
        )
    model = resolve_model(
        config.model,
        platform=platform,
        vocab_size=data.vocab_size,
        sequence_length=config.data.sequence_length,
        packed=config.data.windows == "packed",
    )
    return dataclasses.replace(freeze(config), model=model)
