"""What a run will cost, before it is started: parameters, tokens, FLOPs, and the time they take.

The first three follow from shapes; nothing is allocated. The time follows from finished runs of the same sweep, where
there are any: their rate, and what they needed beside training (start-up, compilation, evaluation). Until then it is
the FLOPs over an assumed share of the device's peak, which is a guess and is labelled so.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping

from gptjax.config import RunError
from gptjax.sweeping.runs import State, Status, SweepRun
from gptjax.training.hardware import Peak

CONVENTION = "causal"
ASSUMED_UTILIZATION = 0.3

# Devices are asked in a process of their own: a sweep that held a GPU's memory would leave none for its runs.
_PROBE = """
import dataclasses, json, sys, jax
from gptjax.training.hardware import peak_flops
dtype = {"auto": "float32" if jax.default_backend() == "cpu" else "bfloat16"}.get(sys.argv[1], sys.argv[1])
print(json.dumps(dataclasses.asdict(peak_flops(jax.devices(), dtype))))
"""


@dataclasses.dataclass(frozen=True)
class Size:
    """parameters; tokens of the whole run; flops of training on them (causal convention)."""

    parameters: int
    tokens: int
    flops: float

    @property
    def flops_per_token(self) -> float:
        return self.flops / self.tokens


@dataclasses.dataclass(frozen=True)
class Pace:
    """How a finished run went: FLOP/s of its training, and seconds beside it."""

    flops_per_token: float
    flops_per_second: float
    overhead_seconds: float


def size_of(run: SweepRun) -> Size:
    """The size of a run, from shapes."""
    plan = run.plan
    flops = plan.flops_per_token[CONVENTION] * plan.total_tokens
    return Size(plan.parameters.total, plan.total_tokens, flops)


class Forecast:
    """How long each run takes from start to end; finished runs make it better.

    Args:
      sizes: run → its size.
      assumed_flops_per_second: what is believed until a run has finished; None: nothing.
    """

    def __init__(self, sizes: Mapping[str, Size], assumed_flops_per_second: float | None = None):
        self._sizes, self.assumed_flops_per_second = sizes, assumed_flops_per_second
        self._paces: list[Pace] = []

    @property
    def runs_known(self) -> int:
        return len(self._paces)

    def learn(self, run: SweepRun, status: Status) -> None:
        """Takes the pace of a run, if it went from start to end without interruption; of others the time is unknown."""
        rates = [row["tokens_per_second"] for row in status.rows if row.get("tokens_per_second")]
        elapsed = [row["elapsed_seconds"] for row in status.rows if row.get("elapsed_seconds") is not None]
        if status.state == State.FINISHED and rates and elapsed == sorted(elapsed):
            size = self._sizes[run.name]
            rate = statistics.median(rates) * size.flops_per_token
            self._paces.append(Pace(size.flops_per_token, rate, max(elapsed[-1] - size.flops / rate, 0.0)))

    def seconds(self, run: SweepRun) -> float | None:
        """By the runs of nearest size, or by the assumed rate, or None where neither is known."""
        size = self._sizes[run.name]
        if not self._paces:
            return size.flops / self.assumed_flops_per_second if self.assumed_flops_per_second else None
        distance = [abs(math.log(pace.flops_per_token / size.flops_per_token)) for pace in self._paces]
        nearest = [pace for pace, far in zip(self._paces, distance) if far <= min(distance) + 1e-9]
        rate = statistics.median(pace.flops_per_second for pace in nearest)
        return size.flops / rate + statistics.median(pace.overhead_seconds for pace in nearest)


def probe_peak(dtype: str) -> Peak:
    """The peak of this machine's devices for products of `dtype` ('auto': what a run would use here).

    Raises:
      RunError: JAX finds no device.
    """
    result = subprocess.run([sys.executable, "-c", _PROBE, dtype], capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise RunError(f"the peak speed of this machine's devices is not known: {reason}")
    return Peak(**json.loads(result.stdout.splitlines()[-1]))
