"""The run that `train` carries out: the opened data, tokenizer and console beside the plan, and the run's folder."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from jax.sharding import Mesh

from gptjax import planning
from gptjax import tokenizer as tokenizers
from gptjax.data import Dataset
from gptjax.data.facts import facts_of
from gptjax.data.mixture import parse_mixture
from gptjax.display.terminal import Console
from gptjax.files.folders import LOCK, alone_in, removed_if_useless
from gptjax.forecast.micro_batch import fitted
from gptjax.inference.prompts import check_sample_prompt
from gptjax.planning import Plan
from gptjax.settings import Settings
from gptjax.tokenizer import Tokenizer
from gptjax.training.checkpoints.manager import Checkpoints
from gptjax.training.columns import with_columns
from gptjax.training.companions import NO_COMPANIONS, Companions, load_companions
from gptjax.training.objectives import make_objective
from gptjax.training.records import console as consoles
from gptjax.training.state import TrainState
from gptjax.training.task_evaluation import make_task_evaluation


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """A plan with the opened data, tokenizer and console.

    Attributes:
      validation: the windows that every evaluation scores, or None when evaluation is off.
      ask_tasks: from state to the scores of `evaluation.tasks`.
      source_tokenizer: the tokenizer of the sources of pairs, if they have their own.
      notes: how the run fits into the memory of the devices, where that is worth saying.
      companions: the models that the objective reads but does not train.
    """

    plan: Plan
    workdir: Path
    data: Dataset
    validation: Dataset | None
    tokenizer: Tokenizer
    source_tokenizer: Tokenizer | None
    ask_tasks: Callable[[TrainState], dict[str, float]]
    console: Console
    notes: list[str]
    companions: Companions = NO_COMPANIONS

    @property
    def mesh(self) -> Mesh:
        assert isinstance(self.plan.mesh, Mesh)  # the plan was made for devices of this machine
        return self.plan.mesh

    @property
    def config(self) -> Settings:
        return self.plan.config

    @property
    def windows_scored(self) -> str | None:
        """Identifies the windows that this start evaluates on; None when evaluation is off."""
        return None if self.validation is None else self.validation.identity()

    def accompanied(self, checkpoints: Checkpoints) -> TrainingRun:
        """The run with its companions: their parameters on the devices or, if the objective reads them only before the
        first step, the columns of the data that are computed from them."""
        trainer, saved, tokenizer_hash = self.plan.trainer, checkpoints.metadata(), self.data.tokenizer_hash
        if not trainer.read_once:
            fields, models = trainer.objective.companions, trainer.companions
            companions = load_companions(trainer.config, fields, models, saved, tokenizer_hash)
            return dataclasses.replace(self, companions=companions)
        splits = {"train": self.data} | ({} if self.validation is None else {"validation": self.validation})
        splits, companions = with_columns(trainer, self.workdir, splits, saved, tokenizer_hash, self.plan.rows_at_once)
        return dataclasses.replace(
            self, companions=companions, data=splits["train"], validation=splits.get("validation")
        )


def open_run(config: Settings, workdir: Path) -> TrainingRun:
    """Opens the data and plans the run on all devices.

    Raises:
      ConfigError: data, devices and config do not fit each other.
    """
    objective, validation = make_objective(config), None
    data = objective.open_data("train", config.training.batch_size)
    folder = parse_mixture(config.data.path)[0][0]
    tokenizer, source_tokenizer = tokenizers.load(folder), tokenizers.load_of_sources(folder)
    plan = planning.plan(config, facts_of(data), jax.devices())
    if config.evaluation.sample_every:
        check_sample_prompt(plan.config, tokenizer)
    plan, notes = fitted(plan, workdir)
    notes = notes + replaced_accumulation(config, plan.config)
    if config.evaluation.every:
        validation = objective.open_data("validation", plan.rows_at_once)
    ask_tasks = make_task_evaluation(plan.config, tokenizer, source_tokenizer, data.begin_id)
    console = consoles.make_console()
    return TrainingRun(plan, workdir, data, validation, tokenizer, source_tokenizer, ask_tasks, console, notes)


def replaced_accumulation(given: Settings, resolved: Settings) -> list[str]:
    """A note if `training.batch_per_device` has replaced the number of micro-batches that the user gave."""
    before, after = (each.training.gradient_accumulation_steps for each in (given, resolved))
    if before in (1, after):
        return []
    field = f"training.batch_per_device={given.training.batch_per_device}"
    return [f"training.gradient_accumulation_steps={before} is replaced by {after}: {field} decides it"]


@contextlib.contextmanager
def held_workdir(run: TrainingRun) -> Iterator[None]:
    """The run's folder for this process alone; a folder that a refused run has made and left empty is removed."""

    def is_of_use(folder: Path) -> bool:
        return any(path.name != LOCK and not path.is_dir() for path in folder.rglob("*"))

    if jax.process_index():
        yield
        return
    with removed_if_useless(run.workdir, is_of_use), alone_in(run.workdir, "--workdir"):
        yield
