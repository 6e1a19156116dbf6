"""At the end of a run: what was predicted of it beside what came, to print and to record for the next prediction."""

from __future__ import annotations

import datetime

import jax

from gptjax.config import ConfigError
from gptjax.display.formatting import bytes_text, counted, duration_text
from gptjax.forecast.devices import Place, find_place, kind_of
from gptjax.forecast.fits import compiled_bytes
from gptjax.forecast.formula import formula_needs
from gptjax.forecast.outcomes import LEAST_STEPS, Figures, Outcome, history_file, record
from gptjax.forecast.run import Forecast, forecast_run
from gptjax.forecast.step import read_needs
from gptjax.planning import Plan
from gptjax.training.hardware import Memory
from gptjax.training.metrics import Throughput


def review(
    made: Plan, throughput: Throughput, steps: int, memory: Memory, loss: float | None
) -> tuple[dict[str, str], list[str]]:
    """Compares a run with its prediction, and records both in process 0.

    Args:
      steps: the number of steps of this start.
      loss: at the end of the run, in nats per token; None: it is not at its end.

    Returns:
      Rows to print, and notes. Both are empty if the run is too short, its devices are in no table, or GPTJAX_HISTORY
      is empty.
    """
    if jax.process_index() or steps < LEAST_STEPS or not throughput.training_seconds or history_file() is None:
        return {}, []
    try:
        place = find_place("this", None)
        forecast = predicted(made, place)
    except ConfigError:
        return {}, []
    outcome = outcome_of(made, place, forecast, throughput, steps, memory, loss)
    if outcome is None:
        return {}, []
    try:
        file = record(outcome)
    except OSError as error:
        return rows(outcome, memory.kind), [f"this is not recorded for later predictions ({error.strerror})"]
    earlier = counted(forecast.calibration.runs, "earlier run")
    return rows(outcome, memory.kind), [f"recorded in {file}; predicted from {earlier} there"]


def predicted(made: Plan, place: Place) -> Forecast:
    """The forecast of a run from its compiled step, or by formula if the text of the program cannot be read: a report
    must not end a run that has finished."""
    try:
        needs = read_needs(made, made.compiled_step.run)
    except (ValueError, LookupError, AttributeError, AssertionError):
        needs = formula_needs(made)
    return forecast_run(made, place, needs, None)


def outcome_of(
    made: Plan,
    place: Place,
    forecast: Forecast,
    throughput: Throughput,
    steps: int,
    memory: Memory,
    loss: float | None,
) -> Outcome | None:
    """What was predicted and measured of a run; None if the peak rate of its devices is unknown. See `review`."""
    if forecast.step is None or forecast.time is None:
        return None
    rates, seconds = throughput.overall(), forecast.time.total.likely * steps / made.total_steps
    of_law = forecast.loss.loss if loss is not None else None
    paused = throughput.seconds.get("compile", 0.0)
    return Outcome(
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        kind=kind_of(place.hardware),
        dtype=made.config.model.dtype,
        devices=made.mesh.size,
        parameters=made.parameters.total,
        tokens_per_step=made.tokens_per_step,
        steps=steps,
        source=forecast.source,
        factor=forecast.calibration.factor,
        waiting=rates.data_wait_fraction,
        predicted=Figures(forecast.step.step.likely, compiled_bytes(made), seconds, of_law),
        measured=Figures(rates.step_milliseconds / 1e3, memory.peak, throughput.elapsed_seconds - paused, loss),
    )


def rows(outcome: Outcome, memory_kind: str) -> dict[str, str]:
    """The figures as text, by name. memory_kind: 'device', or 'host' for the whole process."""
    before, after = outcome.predicted, outcome.measured
    found = {
        "step": f"{_pair(f'{1e3 * before.step_seconds:.4g} ms', f'{1e3 * after.step_seconds:.4g} ms')}, "
        f"{after.step_seconds / before.step_seconds:.2f} times",
        "tokens per second": _pair(
            *(f"{outcome.tokens_per_step / each.step_seconds:,.0f}" for each in (before, after))
        ),
        "whole run": _pair(duration_text(before.seconds), duration_text(after.seconds)),
        "memory": _pair(bytes_text(before.memory), bytes_text(after.memory))
        + (" for the whole process" if memory_kind == "host" else ""),
    }
    if before.loss is not None and after.loss is not None:
        found["loss"] = _pair(f"{before.loss:.3f}", f"{after.loss:.3f}") + " (predicted for text like the law's)"
    return found


def _pair(before: str, after: str) -> str:
    return f"predicted {before}, measured {after}"
