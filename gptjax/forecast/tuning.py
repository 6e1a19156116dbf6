"""What changes in a config that trains for another number of tokens: its batch, its learning rates, its evaluations.

A config's batch suits a run of its own length. In a much shorter run it leaves few steps, so it is halved until there
are STEPS of them, or one row per device is left, and the learning rates are lowered with it. A batch is never raised:
larger ones train more tokens per second at best, and not better.

Evaluations take at most EVALUATED of the time: first each reads fewer tokens, and then there are fewer of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from gptjax.config import ConfigError, Units
from gptjax.display.formatting import counted

STEPS = 1000  # on a million tokens, a quarter of them ends 0.09 nats higher (experiments/plan/batch.py)
RATE_POWER = 0.1  # learning rates change with this power of the batch, by the same runs
EVALUATED = 0.05  # the most that evaluations take of a run's time
FORWARD = 1 / 3  # time of evaluation per token, as a fraction of a training step's
ENOUGH = 65_536  # tokens of an evaluation, below which there are fewer evaluations instead
FEWEST = 2  # evaluations


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The fields that change, and why, in a sentence each. Both are empty if the config suits the length."""

    fields: Mapping[str, Any]
    notes: tuple[str, ...]


def tuned(config: ConfigDict, tokens: float, devices: int) -> Tuned:
    """What changes in a config that trains on so many tokens."""
    batch, rate = _batch(config, tokens, devices), 1.0
    fields: dict[str, Any] = {}
    notes = []
    if batch < config.training.batch_size:
        rate = (batch / config.training.batch_size) ** RATE_POWER
        steps = round(tokens / (batch * config.data.sequence_length))
        rates = ("learning_rate", *(["muon_learning_rate"] if config.optimizer.name == "muon" else []))
        fields = {"training.batch_size": batch}
        fields |= {f"optimizer.{name}": float(f"{rate * config.optimizer[name]:.4g}") for name in rates}
        notes.append(
            f"a batch of {counted(batch, 'row')} instead of {config.training.batch_size}, since these tokens make "
            f"{counted(steps, 'step')} of it, and learning rates of {rate:.2g} times the config's"
        )
    if evaluation := _evaluation(config, tokens):
        fields |= evaluation
        notes.append(
            f"evaluations of {evaluation['evaluation.tokens']:,} tokens, every {evaluation['evaluation.every']}, so "
            f"that they take at most {EVALUATED:.0%} of the time"
        )
    return Tuned(fields, tuple(notes))


def evaluated(config: ConfigDict, tokens: float) -> float:
    """The tokens that all evaluations of a run of so many tokens read; 0 if the config alone does not say."""
    return _evaluations(config, tokens) * float(config.evaluation.tokens)


def _batch(config: ConfigDict, tokens: float, devices: int) -> int:
    """Rows per step: the config's, or so many halvings of it that there are enough steps, as many for each device."""
    rows = int(config.training.batch_size)
    while rows > devices and tokens / (rows * config.data.sequence_length) < STEPS:
        rows = max(rows // 2 // devices, 1) * devices
    return min(rows, int(config.training.batch_size))


def _evaluations(config: ConfigDict, tokens: float) -> int:
    every, per_step = config.evaluation.every, config.training.batch_size * config.data.sequence_length
    if not every:
        return 0
    steps = max(round(tokens / per_step), 1)
    try:
        interval = Units(per_step, total_steps=steps).steps(every, "evaluation.every")
    except ConfigError:  # in epochs of data that are not known here
        return 0
    return math.ceil(steps / max(interval, 1))


def _evaluation(config: ConfigDict, tokens: float) -> dict[str, Any]:
    """The fields of evaluations that take little of the time; none if the config's do, or cannot be counted."""
    most, times = EVALUATED * tokens / FORWARD, _evaluations(config, tokens)
    if evaluated(config, tokens) <= most:
        return {}
    every = config.evaluation.every
    if most / times < ENOUGH:
        times = max(FEWEST, min(times, int(most / ENOUGH)))
        every = f"{math.ceil(100 / times)}%"
    return {
        "evaluation.every": every,
        "evaluation.tokens": max(2 ** int(math.log2(max(most / times, 1))), config.data.sequence_length),
    }
