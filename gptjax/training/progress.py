"""Metrics a step late: fetched while the device already works on the next step, checked, written and shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax

from gptjax.config import RunError
from gptjax.training.console import TrainingView
from gptjax.training.hardware import Peak, memory
from gptjax.training.metrics import Throughput, model_flop_utilization
from gptjax.training.writers import MetricsWriter

SKIPS_IN_A_ROW = 100  # dropped updates after which a run is given up


class Progress:
    """Takes the metrics of each step as they are dispatched; reads those of the step before.

    Args:
      every: steps between two rows of metrics.jsonl (and lines on the console).
      last_step: the last step of the run, which always has a row.
      flops_per_token: by the convention that the view names.
    """

    def __init__(
        self,
        view: TrainingView,
        writer: MetricsWriter,
        throughput: Throughput,
        *,
        every: int,
        last_step: int,
        tokens_per_step: int,
        flops_per_token: float,
        peak: Peak,
    ):
        self._view, self._writer, self._throughput = view, writer, throughput
        self._every, self._last_step = every, last_step
        self._tokens_per_step, self._flops_per_token, self._peak = tokens_per_step, flops_per_token, peak
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        self._skips = 0
        self.train_loss: float | None = None  # of the last step that was read

    def push(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Takes the metrics of `step` (steps done, this one included), still on the device.

        Raises:
          RunError: the step before was no step to go on from.
        """
        self.flush()
        self._pending = (step, metrics)

    def flush(self) -> None:
        """Waits for the last step pushed and reports it; before anything that relies on it, such as a save."""
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        values = {name: value.item() for name, value in jax.device_get(metrics).items()}
        self._check(step, values)
        self.train_loss = values["train/loss"]
        self._throughput.count()
        if step % self._every and step != self._last_step:
            self._view.advance(step)
            return
        row = values | self._rates() | {"tokens": step * self._tokens_per_step}
        self._writer.write(step, row)
        self._view.log(step, row)

    def mfu(self, tokens_per_second: float) -> float | None:
        return model_flop_utilization(tokens_per_second, self._flops_per_token, self._peak.flops)

    def _rates(self) -> dict[str, Any]:
        rates = self._throughput.lap()
        return {
            "tokens_per_second": rates.tokens_per_second,
            "step_milliseconds": rates.step_milliseconds,
            "mfu": self.mfu(rates.tokens_per_second),
            "data_wait_fraction": rates.data_wait_fraction,
            "device_memory_bytes": memory().in_use,
            "elapsed_seconds": self._throughput.elapsed_seconds,
        }

    def _check(self, step: int, values: Mapping[str, float]) -> None:
        loss, norm = values["train/loss"], values["train/gradient_norm"]
        if not values["train/supervised_tokens"]:
            raise RunError(f"step {step}: no token of the batch is supervised, so it has no loss; look at the data")
        if values.get("train/skipped"):
            self._skips += 1
            self._view.note(f"step {step}: update dropped (loss {loss:g}, gradient norm {norm:g})")
            if self._skips == SKIPS_IN_A_ROW:
                raise RunError(f"step {step}: {SKIPS_IN_A_ROW} updates in a row were dropped; lower the learning rate")
            return
        self._skips = 0
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise RunError(
                f"step {step}: loss {loss:g}, gradient norm {norm:g}. The same command goes on from the last "
                "checkpoint; lower optimizer.learning_rate, raise schedule.warmup, or set training.on_nonfinite=skip"
            )
