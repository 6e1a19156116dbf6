"""Reads the metrics of a step while the device computes the next one, and checks, sums, writes and shows them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax

from gptjax.config import RunError
from gptjax.training.hardware import Peak, memory
from gptjax.training.metrics import Throughput, model_flop_utilization
from gptjax.training.records.console import TrainingView
from gptjax.training.records.writers import MetricsWriter

SKIPS_IN_A_ROW = 100  # after this many dropped updates in a row, the run ends
ZSCORES = ("train/loss_zscore", "train/gradient_norm_zscore")
# The metrics of every step. Any other train/NAME is a metric of the objective, a mean over supervised tokens.
STEP_METRICS = {"train/loss", "train/gradient_norm", "train/supervised_tokens", "train/skipped", *ZSCORES}


@dataclasses.dataclass
class Interval:
    """Sums over the steps since the last row of metrics.jsonl.

    A checkpoint saves these numbers, so that the next row of a resumed run equals that of an uninterrupted run. A step
    whose loss or gradient norm is not finite is only counted in `skipped` and `zscores`.

    Attributes:
      loss_sum, tokens: the sum of the loss in nats times the step's supervised tokens, and the sum of these tokens.
      norm_sum, steps: sum of the gradient norms, and the number of steps.
      skipped: number of dropped updates.
      zscores: the highest z-score of each kind.
      figures: for each further metric of the objective, the sum of its value times the step's supervised tokens.
    """

    loss_sum: float = 0.0
    tokens: float = 0.0
    norm_sum: float = 0.0
    steps: int = 0
    skipped: int = 0
    zscores: dict[str, float] = dataclasses.field(default_factory=dict)
    figures: dict[str, float] = dataclasses.field(default_factory=dict)

    def add(self, values: Mapping[str, Any]) -> None:
        """values: the metrics of one step. Of lists, only the last step's are reported."""
        loss, norm = values["train/loss"], values["train/gradient_norm"]
        if math.isfinite(loss) and math.isfinite(norm):
            self.loss_sum += loss * values["train/supervised_tokens"]
            self.tokens += values["train/supervised_tokens"]
            self.norm_sum += norm
            self.steps += 1
            for name in values:
                is_figure = name.startswith("train/") and name not in STEP_METRICS
                if is_figure and not isinstance(values[name], list):
                    tokens = values["train/supervised_tokens"]
                    self.figures[name] = self.figures.get(name, 0.0) + values[name] * tokens
        self.skipped += int(values.get("train/skipped", 0))
        for name in ZSCORES:
            if name in values:
                self.zscores[name] = max(values[name], self.zscores.get(name, -math.inf))

    @property
    def loss(self) -> float:
        """Mean over tokens, in nats; NaN without steps."""
        return self.loss_sum / self.tokens if self.tokens else math.nan

    def row(self, last: Mapping[str, Any]) -> dict[str, Any]:
        """The row to report: metrics of the whole interval where possible, otherwise of the last step."""
        figures = {
            "train/loss": self.loss,
            "train/step_loss": last["train/loss"],
            "train/gradient_norm": self.norm_sum / self.steps if self.steps else math.nan,
            "train/step_gradient_norm": last["train/gradient_norm"],
            "train/supervised_tokens": self.tokens,
        }
        if "train/skipped" in last:
            figures["train/skipped"] = self.skipped
        means = {name: total / self.tokens for name, total in self.figures.items()}
        return {**last, **means, **figures, **self.zscores}


class Progress:
    """Receives the metrics of each step when it is dispatched, and reads those of the previous step.

    Args:
      every: the number of steps between two rows of metrics.jsonl, and between two lines on the console.
      last_step: the last step of the run, which always has a row.
      flops_per_token: in the convention that the view names.
      interval: the `interval` of the Progress that wrote the checkpoint, if the run is resumed.
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
        interval: Mapping[str, Any] | None = None,
    ):
        self._view, self._writer, self._throughput = view, writer, throughput
        self._every, self._last_step = every, last_step
        self._tokens_per_step, self._flops_per_token, self._peak = tokens_per_step, flops_per_token, peak
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        self._row: tuple[int, dict[str, Any]] | None = None  # row of the last step read, until it is written
        self._interval = Interval(**interval or {})
        self._skips = 0
        self._reported_loss: float | None = None

    @property
    def train_loss(self) -> float | None:
        """Mean loss of the steps since the last row, or the loss of that row if there are none yet."""
        return self._interval.loss if self._interval.tokens else self._reported_loss

    @property
    def interval(self) -> dict[str, Any]:
        """The sums over the steps since the last row, as JSON values."""
        return dataclasses.asdict(self._interval)

    def push(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Receives the metrics of `step` (the number of steps including this one), still on the device.

        Raises:
          RunError: the previous step's loss was not finite, its batch had no supervised token, or too many updates were
            dropped.
        """
        self.flush()
        self._pending = (step, metrics)

    def flush(self) -> None:
        """Waits for the last step pushed and writes its row. Call it before anything that depends on the row, such as a
        save."""
        self.read()
        if self._row is not None:
            self._writer.write(*self._row)
            self._row = None

    def read(self) -> None:
        """Waits for the last step pushed and shows it. Its row, if any, is not yet written, so that `add` can extend
        it."""
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        values = {name: value.tolist() for name, value in jax.device_get(metrics).items()}
        self._check(step, values)
        self._interval.add(values)
        self._throughput.count()
        if step % self._every and step != self._last_step:
            self._view.advance(step)
            return
        row = self._interval.row(values)
        self._interval, self._reported_loss = Interval(), row["train/loss"]
        self._view.log(step, self.add(step, row | self._rates()))

    def add(self, step: int, figures: Mapping[str, Any]) -> dict[str, Any]:
        """Adds figures to the row of `step`, the last step that was read, and returns the row."""
        earlier = {} if self._row is None else self._row[1]
        row = {**earlier, **figures, "tokens": step * self._tokens_per_step}
        self._row = (step, row)
        return row

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

    def _check(self, step: int, values: Mapping[str, Any]) -> None:
        loss, norm = values["train/loss"], values["train/gradient_norm"]
        if not values["train/supervised_tokens"]:
            raise RunError(f"step {step}: no token of the batch is supervised, so it has no loss; check the data")
        if values.get("train/skipped"):
            self._skips += 1
            self._view.note(f"step {step}: update dropped (loss {loss:g}, gradient norm {norm:g})")
            if self._skips == SKIPS_IN_A_ROW:
                raise RunError(f"step {step}: {SKIPS_IN_A_ROW} updates in a row were dropped; lower the learning rate")
            return
        self._skips = 0
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise RunError(
                f"step {step}: loss ({loss:g}) or gradient norm ({norm:g}) is not finite. Lower "
                "optimizer.learning_rate, raise schedule.warmup, or set training.on_nonfinite=skip; the same command "
                "resumes from the last checkpoint"
            )
