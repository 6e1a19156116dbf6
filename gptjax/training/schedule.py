"""Learning rate as a function of the step: a warm-up, then one of five shapes.

The rate used by update number t = step + 1 (the first update is t = 1, the last is t = total_steps):

    warm-up        peak · t / warmup                       for t ≤ warmup, so that no update has a rate of zero
    cosine         half a cosine down to the floor         (Loshchilov and Hutter, arXiv:1608.03983)
    linear         straight down to the floor
    wsd            constant, then straight down over the last `decay`  (warmup-stable-decay, arXiv:2404.06395)
    constant       peak to the end (`final_fraction` has no meaning here)
    inverse_sqrt   peak · sqrt(warmup / t), never below the floor      (Vaswani et al., arXiv:1706.03762)

with floor = final_fraction · peak. Update `warmup` has exactly the peak; update `total_steps` has exactly the floor
(cosine, linear, wsd), and later ones stay there.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gptjax.config import ConfigError

NAMES = ("cosine", "wsd", "linear", "constant", "inverse_sqrt")

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]


def make_schedule(config_schedule, peak: float, total_steps: int, steps_of: Callable[[str], int]) -> Schedule:
    """The function step -> learning rate (float32 scalar), for a Python int or a traced integer.

    config_schedule: the config's `schedule` section. peak: highest rate. total_steps: updates in the whole run.
    steps_of: turns a duration ('100 steps', '20%') into a number of steps.
    Raises ConfigError for an unknown shape, or where warm-up and decay do not fit into the run.
    """
    name, final_fraction = config_schedule.name, float(config_schedule.final_fraction)
    if name not in NAMES:
        raise ConfigError(f"schedule.name = {name!r}: expected one of {', '.join(NAMES)}")
    if not 0.0 <= final_fraction <= 1.0:
        raise ConfigError(f"schedule.final_fraction = {final_fraction}: must be in [0, 1]")
    warmup = steps_of(config_schedule.warmup)
    decay = steps_of(config_schedule.decay) if name == "wsd" else 0
    if warmup < 0 or decay < 0 or warmup + decay > total_steps:
        parts = f"schedule.warmup = {config_schedule.warmup!r} ({warmup} steps)"
        if name == "wsd":
            parts += f" and schedule.decay = {config_schedule.decay!r} ({decay} steps)"
        raise ConfigError(f"{parts}: must fit into the run's {total_steps} steps (training.duration)")

    decay_start = total_steps - decay if name == "wsd" else warmup
    peak_rate = jnp.float32(peak)
    floor = jnp.float32(peak * final_fraction)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        update = jnp.asarray(step, jnp.int32).astype(jnp.float32) + 1.0
        if name == "constant":
            after_warmup = peak_rate
        elif name == "inverse_sqrt":
            after_warmup = jnp.maximum(floor, peak_rate * jnp.sqrt(max(warmup, 1) / jnp.maximum(update, 1.0)))
        else:
            progress = jnp.clip((update - decay_start) / max(total_steps - decay_start, 1), 0.0, 1.0)
            height = 0.5 * (1.0 + jnp.cos(jnp.pi * progress)) if name == "cosine" else 1.0 - progress
            # Interpolated so that heights of one and zero give the peak and the floor exactly, without rounding.
            after_warmup = height * peak_rate + (1.0 - height) * floor
        return jnp.where(update < warmup, peak_rate * (update / max(warmup, 1)), after_warmup).astype(jnp.float32)

    return schedule
