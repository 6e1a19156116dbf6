"""A run that begins with the parameters of another one (`training.init_from`), or with those of a part of it."""

from __future__ import annotations

import functools

from gptjax.model.families import family_of
from gptjax.training.checkpoint import load_params, saved_metadata
from gptjax.training.run_metadata import check_warm_start, starts_body
from gptjax.training.state import TrainState
from gptjax.training.trainer import Trainer

SETTING = "training.init_from"


def warm_start(trainer: Trainer, tokenizer_hash: str) -> tuple[TrainState, list[str]]:
    """The state before step 0, and notes to print: where the parameters are from, and what differs.

    A run of the same family starts all parameters. A run of another family starts a classifier's body, and its head is
    fresh.

    Raises:
      ConfigError: there is no such run; tokenizer, family, names or shapes do not fit.
    """
    config, family = trainer.config, family_of(trainer.config.model)
    other = config.training.init_from
    check = functools.partial(check_warm_start, config=config, tokenizer_hash=tokenizer_hash)
    saved = saved_metadata(other, SETTING)
    part = family.warm_part if saved is not None and starts_body(saved, config) else ""
    like = trainer.abstract_state.params[part] if part else trainer.abstract_state.params
    params, source = load_params(other, like=like, ema=None, check=check, setting=SETTING)
    of_part = f" for the {part}; the rest is new" if part else ""
    notes = [f"starting from the parameters of {other}, step {source['step']}{of_part}", *check(source)]
    return trainer.init(params, part), notes
