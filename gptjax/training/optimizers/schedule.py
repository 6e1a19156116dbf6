"""The learning rate as a function of the step: a warm-up followed by one of five shapes.

The rate used by update number t = step + 1 (the first update is t = 1, the last is t = total_steps):

    warm-up        peak · t / warmup                       for t ≤ warmup, so that no update has a rate of zero
    cosine         half a cosine down to the floor         (Loshchilov and Hutter, arXiv:1608.03983)
    linear         straight down to the floor
    wsd            constant, then straight down over the last `decay`  (warmup-stable-decay, arXiv:2404.06395)
    constant       peak to the end (`final_fraction` has no meaning here)
    inverse_sqrt   peak · sqrt(warmup / t), never below the floor      (Vaswani et al., arXiv:1706.03762)

    module:function     your own function, from my_ideas.py in the current folder or from any installed module:
                        def triangle(update, run): return 1 - jnp.abs(2 * update / run.total_steps - 1)
                        It returns the factor on the peak for update t (traced), given the run as a `Span`. It handles
                        warm-up and floor itself. The factor must be finite and not negative.

with floor = final_fraction · peak. Update `warmup` has exactly the peak. Update `total_steps` has exactly the floor
(cosine, linear, wsd), and later updates stay there.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.config import ConfigError, Units, default
from gptjax.config.named_functions import called, is_named, named_function
from gptjax.display.formatting import counted
from gptjax.settings import ScheduleSettings, Settings, allowed_values, freeze

NAMES = allowed_values()["schedule.name"].names

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]


@dataclasses.dataclass(frozen=True)
class Span:
    """What a user's schedule gets to know about a run: numbers of updates, and schedule.final_fraction."""

    warmup: int
    decay: int
    total_steps: int
    final_fraction: float


def make_schedule(
    config_schedule: ScheduleSettings, peak: float, total_steps: int, steps_of: Callable[[str], int]
) -> Schedule:
    """The function step -> learning rate (float32 scalar), for a Python int or a traced integer.

    config_schedule: the config's `schedule` section. peak: the highest rate. total_steps: updates in the whole run.
    steps_of: turns a duration ('100 steps', '20%') into a number of steps.
    Raises ConfigError for an unknown shape, or if warm-up and decay do not fit into the run.
    """
    name, final_fraction = config_schedule.name, float(config_schedule.final_fraction)
    if name not in NAMES and not is_named(name):
        raise ConfigError(f"schedule.name = {name!r}: expected one of {', '.join(NAMES)}")
    if not 0.0 <= final_fraction <= 1.0:
        raise ConfigError(f"schedule.final_fraction = {final_fraction}: must be in [0, 1]")
    warmup = steps_of(config_schedule.warmup)
    decay = steps_of(config_schedule.decay) if name == "wsd" or is_named(name) else 0
    if warmup < 0 or decay < 0 or warmup + decay > total_steps:
        parts = f"schedule.warmup = {config_schedule.warmup!r} ({counted(warmup, 'step')})"
        if name == "wsd":
            parts += f" and schedule.decay = {config_schedule.decay!r} ({counted(decay, 'step')})"
        raise ConfigError(f"{parts}: must fit into the run's {counted(total_steps, 'step')} (training.duration)")

    if is_named(name):
        return _own_schedule(name, peak, Span(warmup, decay, total_steps, final_fraction))
    decay_start = total_steps - decay if name == "wsd" else warmup
    peak_rate, floor = np.float32(peak), np.float32(peak * final_fraction)  # NumPy scalars do not need a device

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        update = jnp.asarray(step, jnp.int32).astype(jnp.float32) + 1.0
        after_warmup: jax.Array | np.float32
        if name == "constant":
            after_warmup = peak_rate
        elif name == "inverse_sqrt":
            after_warmup = jnp.maximum(floor, peak_rate * jnp.sqrt(max(warmup, 1) / jnp.maximum(update, 1.0)))
        else:
            progress = jnp.clip((update - decay_start) / max(total_steps - decay_start, 1), 0.0, 1.0)
            height = 0.5 * (1.0 + jnp.cos(jnp.pi * progress)) if name == "cosine" else 1.0 - progress
            # Interpolated so that heights of one and zero give exactly the peak and the floor.
            after_warmup = height * peak_rate + (1.0 - height) * floor
        return jnp.where(update < warmup, peak_rate * (update / max(warmup, 1)), after_warmup).astype(jnp.float32)

    return schedule


def _own_schedule(name: str, peak: float, span: Span) -> Schedule:
    """The schedule of a user's function, checked at both ends of the run and of its parts.

    Raises:
      ConfigError: there is no such function, it fails, or it returns something other than a finite rate of at least 0.
    """
    function = named_function("schedule.name", name, takes=2)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        update = jnp.asarray(step, jnp.int32).astype(jnp.float32) + 1.0
        return (jnp.float32(peak) * function(update, span)).astype(jnp.float32)

    def rate_at(step: int) -> np.ndarray:
        return np.asarray(jax.jit(schedule)(step))

    steps = {0, span.warmup, span.total_steps // 2, span.total_steps - span.decay, span.total_steps - 1}
    for step in sorted(min(step, span.total_steps - 1) for step in steps):
        rate = called("schedule.name", name, functools.partial(rate_at, step))
        if rate.shape or not np.isfinite(rate) or rate < 0:
            raise ConfigError(
                f"schedule.name = {name!r}: must return one finite rate of at least 0 per update; update {step + 1} "
                f"has {rate}"
            )
    return schedule


def rate_change(saved: Mapping[str, Any], config: Settings, units: Units, step: int) -> list[str]:
    """A sentence with both values for each learning rate that jumps under new settings.

    Args:
      saved: the settings so far, as the nested dict of a config.json.
      units: the run's units.
      step: steps done; the rate is that of the update after them.
    """
    so_far = default()
    for section in ("optimizer", "schedule", "training"):
        so_far[section].update({name: v for name, v in saved[section].items() if name in so_far[section]})
    name = so_far.schedule.name
    # Only the checkpoint names this function, so it is not imported.
    if is_named(name) and name != config.schedule.name:
        return [f"THE LEARNING RATE MAY JUMP at step {step + 1}: until now {name} set it"]
    try:
        before, now = (_rate_of_next_update(c, units, step) for c in (freeze(so_far), config))
    except ConfigError:  # a user's schedule that no longer exists
        return []
    if math.isclose(before, now, rel_tol=1e-5):
        return []
    return [
        f"THE LEARNING RATE JUMPS at step {step + 1}: {before:.3g} with the old settings, {now:.3g} with the new ones"
    ]


def _rate_of_next_update(config: Settings, units: Units, step: int) -> float:
    total_steps = units.steps(config.training.duration, "training.duration")
    units = dataclasses.replace(units, total_steps=total_steps)
    steps_of = functools.partial(units.steps, field="schedule")
    return float(make_schedule(config.schedule, config.optimizer.learning_rate, total_steps, steps_of)(step))
