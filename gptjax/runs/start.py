"""The state that a run starts from: its own last checkpoint, the parameters of another run, or new parameters."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import jax

from gptjax.config import ConfigError
from gptjax.data import Dataset
from gptjax.model import lora
from gptjax.model.families import family_of
from gptjax.parallel.sharding import placed_params
from gptjax.planning import Plan
from gptjax.training.checkpoints.format import hash_of_params
from gptjax.training.checkpoints.loading import load_params, saved_metadata
from gptjax.training.checkpoints.manager import Checkpoints
from gptjax.training.checkpoints.run_metadata import (
    BASE,
    base_of_run,
    check_compatible,
    check_warm_start,
    has_adapters_of,
    starts_body,
)
from gptjax.training.checkpoints.vocabulary_growth import growth_of
from gptjax.training.companions import identities
from gptjax.training.optimizers.schedule import rate_change
from gptjax.training.records.writers import write_whole
from gptjax.training.state import TrainState
from gptjax.training.trainer import Trainer

SETTING = "training.init_from"


def check_start(plan: Plan, data: Dataset, checkpoints: Checkpoints) -> None:
    """Runs the checks of `starting_state` early, before settings are printed and arrays are read.

    Raises:
      ConfigError: the checkpoints in the workdir, or those of `training.init_from` or of a model that the objective
        reads, do not fit this run.
    """
    saved, other = checkpoints.metadata(), plan.config.training.init_from
    if saved is not None:
        check_compatible(saved, plan.config, data.fingerprint())
    elif plan.config.model.lora_rank and not other:
        raise ConfigError(
            f"model.lora_rank = {plan.config.model.lora_rank}: needs {SETTING}, the run whose parameters the adapters "
            "adapt"
        )
    elif other and (source := saved_metadata(other, SETTING)) is not None:
        check_warm_start(source, plan.config, data.tokenizer_hash, growth_of(plan.config, source))
        if has_adapters_of(source) and plan.trainer.objective.reads_own_base:
            raise ConfigError(
                f"training.reference = '': the run {other} of {SETTING} has adapters, so the model without adapters is "
                f"not what this run starts from; set training.reference={other}"
            )
    identities(plan.config, plan.trainer.objective.companions, saved)


def starting_state(plan: Plan, data: Dataset, checkpoints: Checkpoints) -> tuple[TrainState, dict[str, Any], list[str]]:
    """Restores or initializes the state to train from.

    The first of these that exists is used:

    1. the newest readable checkpoint of this workdir, if it belongs to the same run;
    2. the parameters of another run, if `training.init_from` names one;
    3. newly initialized parameters.

    Returns:
      The state, the metrics summed since the last row of metrics.jsonl, and notes to print.
    """
    saved = checkpoints.metadata()
    if saved is not None:
        return _resume(plan, saved, data, checkpoints)
    if plan.config.training.init_from:
        state, notes, base = warm_start(plan.trainer, data.tokenizer_hash)
        if plan.config.model.lora_rank and jax.process_index() == 0:
            write_whole(checkpoints.directory.parent / BASE, json.dumps(base, indent=2) + "\n")
        return state, {}, notes
    return plan.trainer.init(), {}, []


def _resume(
    plan: Plan, saved: Mapping[str, Any], data: Dataset, checkpoints: Checkpoints
) -> tuple[TrainState, dict[str, Any], list[str]]:
    changes = check_compatible(saved, plan.config, data.fingerprint())
    state, saved = checkpoints.restore(plan.abstract_state)
    step = int(state.step)
    notes = [f"resumed from step {step}"]
    if step < plan.total_steps:
        notes += [f"changed: {change}" for change in changes]
        notes += rate_change(saved["config"], plan.config, plan.units, step)
    return state, saved.get("interval", {}), notes


def warm_start(trainer: Trainer, tokenizer_hash: str) -> tuple[TrainState, list[str], dict[str, Any]]:
    """The state before step 0; notes to print: the origin of the parameters, and what differs; and the model that
    adapters adapt, as BASE records it.

    A run of the same family provides all parameters. A run of another family provides a classifier's body, and the head
    is newly initialized, as adapters are if the other run has none. If the tokenizer has further control tokens, the
    tables of tokens grow.

    Raises:
      ConfigError: there is no such run; tokenizer, family, names or shapes do not fit.
    """
    config, family = trainer.config, family_of(trainer.config.model)
    other = config.training.init_from
    saved = saved_metadata(other, SETTING)
    growth = None if saved is None else growth_of(config, saved)
    check = functools.partial(check_warm_start, config=config, tokenizer_hash=tokenizer_hash, growth=growth)
    part = family.warm_part if saved is not None and starts_body(saved, config) else ""
    like, adapted = trainer.abstract_state.params, saved is not None and has_adapters_of(saved)
    if config.model.lora_rank and not adapted:
        like = placed_params(trainer.mesh, lora.unadapted(trainer.declared))
    grows = growth is not None and growth.is_of_rows
    like = trainer.smaller_params(growth.before, like) if growth and grows else like
    like = like[part] if part else like
    params, source = load_params(other, like=like, ema=None, check=check, setting=SETTING)
    of_part = f" for the {part}; the rest is new" if part else ""
    notes = [f"starting from the parameters of {other}, step {source['step']}{of_part}", *check(source)]
    base = {"run": str(other), "step": source["step"], "hash": hash_of_params(source)}
    return trainer.init(params, part, grows), notes, base_of_run(other) if adapted else base
