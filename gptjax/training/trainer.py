"""Combines the parts of a run: model, optimizer, shardings, and steps compiled for a mesh."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh

from gptjax.config.named_functions import is_named
from gptjax.model import lora
from gptjax.model.families import family_of, reading_family_of
from gptjax.model.mixture_of_experts import ROUTER_BIAS
from gptjax.model.parameters import abstract_params
from gptjax.parallel.compilation import training_options
from gptjax.parallel.context import check_context
from gptjax.parallel.expert import check_expert_axis
from gptjax.parallel.mesh import platform_of
from gptjax.parallel.pipeline import check_pipeline
from gptjax.parallel.placement import MeshPlacement
from gptjax.parallel.sharding import batch_sharding, replicated, state_sharding
from gptjax.settings import ScheduleSettings, Settings
from gptjax.tokenizer import Tokenizer
from gptjax.training.checkpoints.frozen_parameters import first_average
from gptjax.training.checkpoints.vocabulary_growth import grown
from gptjax.training.companions import Companion, abstract_companions
from gptjax.training.metrics import init_monitor
from gptjax.training.objectives import make_objective
from gptjax.training.objectives.objective import Objective, abstract_batch
from gptjax.training.optimizers.optimizer import make_optimizer
from gptjax.training.optimizers.schedule import make_schedule
from gptjax.training.optimizers.trained import trained_only
from gptjax.training.optimizers.trained_layers import declared_for_updates, trained_layers
from gptjax.training.optimizers.treatments import Treatment, treatments_of
from gptjax.training.rollout import EVALUATION
from gptjax.training.state import TrainState
from gptjax.training.step import make_evaluation_step, make_train_step


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A resolved config on a mesh. Only `init` allocates arrays, and only methods compile programs.

    Attributes:
      config: resolved and frozen.
      mesh: must be the current mesh (`jax.set_mesh`) when a method is called. With an abstract mesh, only shapes and
        shardings are available: nothing can be allocated or compiled for it.
      treatments: path of a parameter → how the optimizer updates it.
      learning_rates: name of the field → step → its rate by the schedule: `learning_rate` and, with Muon, also
        `muon_learning_rate`.
      declared: the parameters' declarations, in a nested dict like theirs.
      abstract_state: the training state as shapes, each with its sharding.
      companions: name → a model that the steps read, its parameters as shapes with shardings.
      read_once: the same for models that are read only before the first step (`Objective.reads_companions_once`).
    """

    config: Settings
    mesh: Mesh | AbstractMesh
    model: nn.Module
    objective: Objective
    optimizer: optax.GradientTransformation
    treatments: dict[str, Treatment]
    learning_rates: dict[str, Callable]
    declared: dict[str, Any]
    abstract_state: TrainState
    companions: dict[str, Companion]
    read_once: dict[str, Companion]

    @property
    def frozen(self) -> list[str]:
        """The paths of the parameters that no step changes."""
        return _unchanged(self.objective, self.treatments)

    def init(self, params: Any = None, part: str = "", grows: bool = False) -> TrainState:
        """The state before step 0, created with its shardings; from `params` (a warm start) if given.

        Adapters are newly initialized unless `params` has some.

        Args:
          part: `params` has only the parameters under this name, and the others are newly initialized; '': it has all.
          grows: `params` are those of a smaller vocabulary (vocabulary_growth.py).
        """
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state)
        if params is None:
            return jax.jit(self._init, out_shardings=shardings)()
        start = functools.partial(self._init_with, part, grows)
        return jax.jit(start, out_shardings=shardings)(params)

    def smaller_params(self, vocab_size: int, params: Any) -> Any:
        """The parameters of a model that knows fewer tokens, as shapes.

        Parameters whose shapes differ from this model's are not split: each device has them whole, because the mesh may
        not divide a smaller vocabulary.

        params: those of this model as shapes, with or without adapters.
        """
        declared = family_of(dataclasses.replace(self.config.model, vocab_size=vocab_size)).declarations
        declared = declared if lora.has_adapters(params) else lora.unadapted(declared)
        smaller, whole = abstract_params(declared), replicated(self.mesh)
        return jax.tree.map(
            lambda a, b: b if a.shape == b.shape else jax.ShapeDtypeStruct(a.shape, b.dtype, sharding=whole),
            smaller,
            params,
        )

    def _init(self) -> TrainState:
        return self._init_from(self._fresh())

    def _init_with(self, part: str, grows: bool, params: Any) -> TrainState:
        fresh = self._fresh()
        if grows:
            like = fresh if lora.has_adapters(params) else lora.base_of(fresh)
            params = grown(params, like[part] if part else like)
        given = {part: params} if part else params
        if self.config.model.lora_rank:
            return self._init_from(lora.completed(self.declared, lora.base_of(fresh) | given, self._key()))
        return self._init_from(fresh | given)

    def _fresh(self) -> dict[str, Any]:
        return family_of(self.config.model).init_params(self._key())

    def _key(self) -> jax.Array:
        return jax.random.key(self.config.seed)

    def _init_from(self, params: Any) -> TrainState:
        return _first_state(self.config, self.objective, self.optimizer, self.treatments, params)

    def compile_train_step(self, batch: Any) -> jax.stages.Compiled:
        """(state, batch, **companions) → (state, metrics) for batches shaped and sharded like `batch`; the old state is
        donated."""
        return self.lower_train_step(batch).compile(training_options(self.mesh, self.config.model.dtype))

    def lower_train_step(self, batch: Any) -> jax.stages.Lowered:
        """The program of `compile_train_step` before compilation."""
        step = make_train_step(self.model, self.objective, self.optimizer, self.learning_rates, self.config)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state)
        jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated(self.mesh)))
        return jitted.lower(self.abstract_state, abstract(batch), **self.companions)

    def evaluation_step(self, tokenizer: Tokenizer) -> Callable:
        """(params, batch, **companions) → sums over the batch; compiled at the first call."""
        model = reading_family_of(self.config.model).module(MeshPlacement(self.config.mesh))
        step = jax.jit(make_evaluation_step(model, self.objective, tokenizer), out_shardings=replicated(self.mesh))
        assert isinstance(self.mesh, Mesh)
        rollout = self.objective.rollout(self.mesh, tokenizer)
        return lambda params, batch, **companions: step(params, rollout(params, batch, EVALUATION), **companions)

    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """A global training batch [A, B/A, …] as shapes."""
        training = self.config.training
        accumulation = training.gradient_accumulation_steps
        rows = training.batch_size // accumulation
        return abstract_batch(self.objective, accumulation, rows, functools.partial(batch_sharding, self.mesh, 1))


def _unchanged(objective: Objective, treatments: Mapping[str, Treatment]) -> list[str]:
    """The paths of the parameters that no step changes: without a gradient, and not adjusted by the objective."""
    if type(objective).adjusted is not Objective.adjusted:  # a user's own may change any
        return []
    still = [path for path, treatment in treatments.items() if treatment.method == "frozen"]
    return [path for path in still if not path.endswith(ROUTER_BIAS)]


def _first_state(
    config: Settings,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    treatments: Mapping[str, Treatment],
    params: Any,
) -> TrainState:
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(trained_only(params, treatments)),
        ema=first_average(params, _unchanged(objective, treatments)) if config.training.ema_decay else None,
        monitor=init_monitor(),
    )


def make_trainer(
    config: Settings, mesh: Mesh | AbstractMesh, total_steps: int, steps_of: Callable[[str], int]
) -> Trainer:
    """Combines the parts of a run.

    Args:
      config: resolved.
      total_steps: the length of the run, for the schedule.
      steps_of: turns a duration of the config into steps.

    Raises:
      ConfigError: the objective, an optimizer rule or the schedule is invalid, the mesh does not divide the
        parameters, or there is no run that the objective reads a model of.
    """
    family = family_of(config.model)
    check_context(config, mesh)
    check_expert_axis(config, mesh)
    check_pipeline(config, mesh, family.declarations)
    model, declared = family.module(MeshPlacement(config.mesh)), family.declarations
    schedule_of_peak = functools.partial(_schedule_of_peak, config.schedule, total_steps, steps_of)
    objective = make_objective(config)
    treatments = treatments_of(config.optimizer, declared, objective.trains)
    kept = {} if is_named(config.optimizer.name) else trained_layers(treatments)
    optimizer = make_optimizer(config.optimizer, schedule_of_peak, declared, platform_of(mesh), objective.trains, kept)
    names = ("learning_rate", "muon_learning_rate") if config.optimizer.name == "muon" else ("learning_rate",)
    learning_rates = {name: schedule_of_peak(config.optimizer[name]) for name in names}
    first_state = functools.partial(_first_state, config, objective, optimizer, treatments)
    shapes = jax.eval_shape(first_state, abstract_params(declared))
    shardings = state_sharding(mesh, shapes, declared, config.mesh.zero1, declared_for_updates(declared, kept))
    if config.optimizer.memory == "host":
        shardings = shardings.replace(opt_state=_on_host(shardings.opt_state, shapes.opt_state))
    placed = jax.tree.map(
        lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes, shardings
    )
    companions = abstract_companions(config, objective.companions, mesh)
    both = ({}, companions) if objective.reads_companions_once else (companions, {})
    return Trainer(config, mesh, model, objective, optimizer, treatments, learning_rates, declared, placed, *both)


def _on_host(shardings: Any, shapes: Any) -> Any:
    """The shardings in host memory; counters stay on the devices."""
    return jax.tree.map(lambda s, shape: s.with_memory_kind("pinned_host") if shape.ndim else s, shardings, shapes)


def _schedule_of_peak(
    config_schedule: ScheduleSettings, total_steps: int, steps_of: Callable[[str], int], peak: float
) -> optax.Schedule:
    return make_schedule(config_schedule, peak, total_steps, steps_of)


def abstract(tree: Any) -> Any:
    """Arrays → their shapes, dtypes and shardings."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), tree)
