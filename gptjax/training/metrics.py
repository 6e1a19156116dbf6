"""Metrics of a run: model FLOP utilization, throughput, z-scores."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

MONITOR_STEPS = 128  # steps before the first z-score, and the averaging length of the running statistics after that
# A value changes the statistics by at most this many standard deviations; otherwise one spike would hide the following
# ones until the statistics forget it. The number is large on purpose: values beyond it increase the standard deviation
# by a third per step, sqrt(1 + 10² / 128), so that a lasting change by any factor f is accepted after log(f) / 0.28
# steps.
WINSORIZED_AT = 10.0
LARGEST_DEVIATION = 1e18  # its square fits a float32; an infinite variance would never recover


def model_flop_utilization(tokens_per_second: float, token_flops: float, peak_flops: float | None) -> float | None:
    """The model's FLOP/s as a fraction of the peak; None if the peak is unknown."""
    return tokens_per_second * token_flops / peak_flops if peak_flops else None


# --- z-scores --------------------------------------------------------------------------------------------------------


def init_monitor() -> dict[str, jax.Array]:
    """The statistics before the first step: float32 scalars."""
    names = ("count", "loss_mean", "loss_variance", "gradient_norm_mean", "gradient_norm_variance")
    return {name: jnp.zeros((), jnp.float32) for name in names}


def update_monitor(
    monitor: dict[str, jax.Array], loss: jax.Array, gradient_norm: jax.Array, steps: int = MONITOR_STEPS
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Adds a step's loss and gradient norm to the running statistics and computes their z-scores.

    Pure, for use inside jit. Mean and variance cover all values up to `steps`; later they are exponentially weighted
    (weight 1 / steps) and winsorized: a value changes them by at most `WINSORIZED_AT` standard deviations. Returns
    (monitor, {'loss': z, 'gradient_norm': z}); z is computed from the statistics *before* the value and is not clipped.
    It is 0 during the first `steps` steps, and infinite if and only if the value is not finite. Such a value leaves the
    statistics unchanged.
    """
    values = {"loss": jnp.float32(loss), "gradient_norm": jnp.float32(gradient_norm)}
    count = monitor["count"]
    known, largest = count >= steps, jnp.finfo(jnp.float32).max
    finite = jnp.isfinite(values["loss"]) & jnp.isfinite(values["gradient_norm"])
    weight = 1.0 / jnp.minimum(count + 1.0, float(steps))
    new, zscores = {"count": count + 1.0}, {}
    for name, value in values.items():
        mean, variance = monitor[f"{name}_mean"], monitor[f"{name}_variance"]
        deviation = value - mean
        # A constant has no spread, so deviations are then compared with the rounding error of the value itself. The
        # square of the smallest spread must fit a float32 as well, since a variance of zero could not grow.
        spread = jnp.maximum(jnp.sqrt(variance), 1e-6 * jnp.abs(mean) + 1e-15)
        zscore = jnp.clip(deviation / spread, -largest, largest)
        zscores[name] = jnp.where(jnp.isfinite(value), jnp.where(known, zscore, 0.0), jnp.inf)
        limit = jnp.where(known, jnp.minimum(WINSORIZED_AT * spread, LARGEST_DEVIATION), LARGEST_DEVIATION)
        learned = jnp.clip(deviation, -limit, limit)
        new[f"{name}_mean"] = mean + weight * learned
        new[f"{name}_variance"] = (1.0 - weight) * (variance + weight * jnp.square(learned))
    return {name: jnp.where(finite, new[name], monitor[name]) for name in monitor}, zscores


# --- throughput ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Rates:
    """Speed over a span of steps, without pauses."""

    tokens_per_second: float
    step_milliseconds: float
    data_wait_fraction: float


class Throughput:
    """Wall-clock accounting: training time excludes compiling, evaluating and saving.

    with throughput.pause("compile" | "evaluation" | "checkpoint" | …): not training; `seconds` has each total
    with throughput.waiting_for_data():                                 training, but the device may be idle
    throughput.count(steps)                                             steps done
    throughput.lap() -> Rates since the last lap                        call it when the results have arrived
    """

    def __init__(self, tokens_per_step: int, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._tokens_per_step = tokens_per_step
        self._start = self._lap_start = clock()
        self._lap_steps, self._lap_paused, self._lap_waited = 0, 0.0, 0.0
        self._trained_seconds, self._steps, self._waited = 0.0, 0, 0.0
        self.seconds: dict[str, float] = {}

    def count(self, steps: int = 1) -> None:
        self._lap_steps += steps

    @contextlib.contextmanager
    def pause(self, what: str) -> Iterator[None]:
        """Time that is not training. Wait first for the device to finish its steps; otherwise they are counted here."""
        start = self._clock()
        try:
            yield
        finally:
            elapsed = self._clock() - start
            self._lap_paused += elapsed
            self.seconds[what] = self.seconds.get(what, 0.0) + elapsed

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        start = self._clock()
        try:
            yield
        finally:
            self._lap_waited += self._clock() - start

    def lap(self) -> Rates:
        """Rates of the steps counted since the last lap (NaN if none). Starts a new lap."""
        now = self._clock()
        seconds, steps, waited = now - self._lap_start - self._lap_paused, self._lap_steps, self._lap_waited
        self._trained_seconds, self._steps = self._trained_seconds + seconds, self._steps + steps
        self._waited += waited
        self._lap_start, self._lap_steps, self._lap_paused, self._lap_waited = now, 0, 0.0, 0.0
        return self._rates(seconds, steps, waited)

    def overall(self) -> Rates:
        """Rates of all finished laps together."""
        return self._rates(self._trained_seconds, self._steps, self._waited)

    @property
    def training_seconds(self) -> float:
        """Seconds of training in all finished laps."""
        return self._trained_seconds

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the start, pauses included."""
        return self._clock() - self._start

    def _rates(self, seconds: float, steps: int, waited: float) -> Rates:
        if not steps or seconds <= 0:
            return Rates(math.nan, math.nan, math.nan)
        return Rates(steps * self._tokens_per_step / seconds, 1e3 * seconds / steps, min(waited / seconds, 1.0))
