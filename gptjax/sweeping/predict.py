"""Predicts the cost of a run before it starts: parameters, tokens, FLOPs, time and price.

The first three follow from shapes; nothing is allocated. For hardware that is named, time and price are those of
gptjax plan by formula. Otherwise, the time is predicted from finished runs of the same sweep: from their speed, and
from the time they needed besides training (start-up, compilation, evaluation). Until a run has finished, an assumed
fraction of the device's peak is used; this is a guess and is labelled as one.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping

from gptjax.config import ConfigError, RunError
from gptjax.forecast.devices import Place
from gptjax.forecast.fits import likely_needs
from gptjax.forecast.run import forecast_run
from gptjax.forecast.table import headline
from gptjax.planning import plan
from gptjax.sweeping.runs import State, Status, SweepRun
from gptjax.training.hardware import Peak

CONVENTION = "causal"
ASSUMED_UTILIZATION = 0.3

# Another process queries the devices, because a sweep that held a GPU's memory would leave none for its runs.
_PROBE = """
import dataclasses, json, sys, jax
from gptjax.training.hardware import peak_flops
dtype = {"auto": "float32" if jax.default_backend() == "cpu" else "bfloat16"}.get(sys.argv[1], sys.argv[1])
print(json.dumps(dataclasses.asdict(peak_flops(jax.devices(), dtype))))
"""


@dataclasses.dataclass(frozen=True)
class Size:
    """The number of parameters, the tokens of the whole run, and the FLOPs to train on them (causal convention)."""

    parameters: int
    tokens: int
    flops: float

    @property
    def flops_per_token(self) -> float:
        return self.flops / self.tokens


@dataclasses.dataclass(frozen=True)
class Pace:
    """The speed of a finished run: FLOP/s of its training, and the seconds spent besides training."""

    flops_per_token: float
    flops_per_second: float
    overhead_seconds: float


def size_of(run: SweepRun) -> Size:
    """Computes the size of a run from its shapes."""
    plan = run.plan
    flops = plan.flops_per_token[CONVENTION] * plan.total_tokens
    return Size(plan.parameters.total, plan.total_tokens, flops)


@dataclasses.dataclass(frozen=True)
class Planned:
    """A run on hardware that the user names. seconds: from start to end; None: the device's peak is unknown.

    problem: why it cannot be trained there, or ''.
    """

    seconds: float | None
    problem: str = ""


def planned_on(run: SweepRun, place: Place) -> Planned:
    """Plans a run by formula."""
    try:
        made = plan(run.config, run.plan.data, place.devices)
    except ConfigError as error:
        return Planned(None, str(error))
    forecast = forecast_run(made, place, likely_needs(made), None)
    seconds = None if forecast.time is None else forecast.time.total.likely
    return Planned(seconds, "" if forecast.fit.fits else headline(forecast))


class Forecast:
    """Predicts how long each run takes from start to end, and improves with every finished run.

    Args:
      sizes: the size of each run, by name.
      assumed_flops_per_second: the speed to assume until a run has finished; None: unknown.
      planned: each run on hardware that the user names, which then decides all times.
    """

    def __init__(
        self,
        sizes: Mapping[str, Size],
        assumed_flops_per_second: float | None = None,
        planned: Mapping[str, Planned] | None = None,
    ):
        self._sizes, self.assumed_flops_per_second = sizes, assumed_flops_per_second
        self._planned = planned
        self._paces: list[Pace] = []

    @property
    def runs_known(self) -> int:
        return len(self._paces)

    def learn(self, run: SweepRun, status: Status) -> None:
        """Learns the pace of a finished run that was never interrupted; the time of other runs is unknown."""
        rates = [row["tokens_per_second"] for row in status.rows if row.get("tokens_per_second")]
        elapsed = [row["elapsed_seconds"] for row in status.rows if row.get("elapsed_seconds") is not None]
        if status.state == State.FINISHED and rates and elapsed == sorted(elapsed):
            size = self._sizes[run.name]
            rate = statistics.median(rates) * size.flops_per_token
            self._paces.append(Pace(size.flops_per_token, rate, max(elapsed[-1] - size.flops / rate, 0.0)))

    def seconds(self, run: SweepRun) -> float | None:
        """Predicts from the finished runs of the nearest size, or from the assumed speed; None if neither exists."""
        if self._planned is not None:
            return self._planned[run.name].seconds
        size = self._sizes[run.name]
        if not self._paces:
            return size.flops / self.assumed_flops_per_second if self.assumed_flops_per_second else None
        distance = [abs(math.log(pace.flops_per_token / size.flops_per_token)) for pace in self._paces]
        nearest = [pace for pace, far in zip(self._paces, distance) if far <= min(distance) + 1e-9]
        rate = statistics.median(pace.flops_per_second for pace in nearest)
        return size.flops / rate + statistics.median(pace.overhead_seconds for pace in nearest)


def probe_peak(dtype: str) -> Peak:
    """Returns the peak speed of this machine's devices for matrix products in `dtype` ('auto': a run's choice here).

    Raises:
      RunError: JAX finds no device.
    """
    result = subprocess.run([sys.executable, "-c", _PROBE, dtype], capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise RunError(f"the peak speed of this machine's devices is not known: {reason}")
    return Peak(**json.loads(result.stdout.splitlines()[-1]))
