"""A forecast as a table for the terminal: first the result, then the details."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gptjax.display.formatting import bytes_text, count_text, counted, size_text, span_text
from gptjax.forecast.duration import Cases
from gptjax.forecast.memory import PARTS
from gptjax.forecast.outcomes import history_file
from gptjax.forecast.room import FRACTION
from gptjax.forecast.run import Forecast

GIB = 2**30
BAR = 24  # columns of the widest bar


def forecast_table(forecast: Forecast) -> RenderableType:
    parts: list[RenderableType] = [Text(headline(forecast), style="bold"), ""]
    for title, rows in (
        ("run", _run_rows(forecast)),
        ("time and price", _time_rows(forecast)),
        ("loss", _loss_rows(forecast)),
    ):
        parts += [_section(title, rows), ""]
    parts += [_memory(forecast), ""]
    return Group(*parts)


def headline(forecast: Forecast) -> str:
    """One sentence that says whether the run fits, how long it takes and what it costs."""
    where = f"{forecast.count} × {forecast.hardware}"
    if not forecast.fit.fits:
        need, most = bytes_text(forecast.memory.total), bytes_text(forecast.fit.most)
        return f"Does not fit on {where}: a step needs {need} per device, of which {most} can be used."
    if forecast.time is None:
        return f"Fits on {where}."
    time, price = forecast.time.total, ""
    if forecast.cost is not None:
        price = f", for about {forecast.cost.likely:,.2f} {forecast.currency}"
    return f"Fits on {where} and takes about {span_text(time.likely)}{price}."


def _section(title: str, rows: dict[str, str]) -> Group:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return Group(Text(title, style="bold cyan"), table)


def _run_rows(forecast: Forecast) -> dict[str, str]:
    size, tokens = forecast.size, forecast.tokens
    active = f", {count_text(size.active)} active" if size.active < size.parameters else ""
    each = "parameter" if size.of_law == size.parameters else "active parameter"
    trained = f", {count_text(size.trained)} of them trained" if size.trained < size.parameters else ""
    rows = {
        "parameters": f"{size.parameters:,} ({size.without_embeddings:,} without embeddings{active}){trained}",
        "FLOPs per token": ", ".join(f"{count_text(flops)} {name}" for name, flops in size.flops_per_token.items()),
        "tokens": f"{count_text(tokens.run)} in {counted(tokens.steps, 'step')} of {count_text(tokens.per_step)}, "
        f"{tokens.run / max(size.of_law, 1):.1f} per {each}",
    }
    if tokens.at_hand is not None and tokens.epochs is not None:
        rows["data"] = f"{count_text(tokens.at_hand)} tokens at hand: {tokens.epochs:.3g} epochs"
    else:
        rows["data"] = f"none at hand: {count_text(tokens.run)} tokens are needed for one epoch"
    axes = " × ".join(f"{axis} {count}" for axis, count in forecast.mesh.items()) or "one device"
    compute = forecast.compute
    rows["mesh"] = axes
    rows["compute"] = (
        f"{compute['dtype'] if compute['matmul'] == 'dtype' else compute['matmul']}, attention {compute['attention']}, "
        f"layers {compute['layers']}, remat {compute['remat']}"
    )
    checkpoint = forecast.checkpoint
    shared = f", and once {size_text(checkpoint.shared)} that no step changes" if checkpoint.shared else ""
    rows["checkpoint"] = (
        f"{size_text(checkpoint.bytes)} each, up to {checkpoint.kept} kept{shared}; written in about "
        f"{span_text(checkpoint.save_seconds)} while training continues"
    )
    return rows


def _time_rows(forecast: Forecast) -> dict[str, str]:
    step, speed, time = forecast.step, forecast.speed, forecast.time
    if step is None or speed is None or time is None:
        return {"step": "unknown: the table of peaks lacks this device in this dtype"}
    likely = {"products": step.products.likely, "memory traffic": step.other.likely, "sending": step.sending.likely}
    shares = ", ".join(f"{name} {_seconds(seconds)}" for name, seconds in likely.items() if seconds)
    rows = {
        "step": f"{_range(step.step, _seconds)} ({shares})",
        "speed": f"{_range(speed.tokens_per_second, count_text)} tokens per second",
    }
    calibration = forecast.calibration
    if calibration.runs:
        rows["calibrated"] = (
            f"{calibration.factor:.2f} times the calculated time, the median of "
            f"{counted(calibration.runs, 'earlier run')} on such devices"
        )
    if calibration.damaged:
        lines = counted(calibration.damaged, "damaged line")
        rows["left out"] = f"{lines} of {history_file()}, where earlier runs are recorded"
    for name, mfu in speed.mfu.items():
        rows[f"MFU, {name}"] = f"{_range(mfu, '{:.1%}'.format)} of {_teraflops(speed.peak_flops)} TFLOP/s"
    beside = [("evaluation", time.evaluation.likely), ("saving", time.checkpoints.likely)]
    rows["whole run"] = (
        f"{_range(time.total, span_text)} ("
        + ", ".join(f"{name} {span_text(seconds)}" for name, seconds in [("training", time.training.likely), *beside])
        + ")"
    )
    if forecast.energy_kwh is not None:
        rows["energy"] = f"{_range(forecast.energy_kwh, energy_text)} kWh, at the devices' full power"
    if forecast.cost is not None:
        rows["price"] = f"{_range(forecast.cost, '{:,.2f}'.format)} {forecast.currency}"
    return rows


def _loss_rows(forecast: Forecast) -> dict[str, str]:
    loss, tokens = forecast.loss, forecast.tokens
    if loss.loss is None or loss.lowest is None or loss.highest is None:
        return {"predicted": f"none: {loss.why_not}"}
    ratio = tokens.run / tokens.optimal
    where = "about as many as" if 0.8 < ratio < 1.25 else f"{ratio:.2g} times"
    outside = ", outside the sizes and tokens to which it was fitted" if loss.extrapolated else ""
    rows = {
        "predicted": f"{loss.loss:.3f} nats per token (published laws: {loss.lowest:.3f} to {loss.highest:.3f}), "
        "for text and tokens like theirs",
        "by": loss.source
        + (", repeated tokens discounted, and the range includes the harm of repeating" if loss.repeated else "")
        + outside,
        "optimal tokens": f"{count_text(tokens.optimal)} for this size; this run has {where} that",
    }
    return rows


def _memory(forecast: Forecast) -> Group:
    memory, fit = forecast.memory, forecast.fit
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for name in PARTS:
        size = getattr(memory, name)
        table.add_row(name, _small_too(size), Text("█" * round(BAR * size / max(memory.total, 1)), style="cyan"))
    table.add_row("together", Text(bytes_text(memory.total), style="bold"), "")
    if memory.host:
        table.add_row("on the host", bytes_text(memory.host), "")
    if fit.device:
        rest = fit.device - fit.available
        given = f"{fit.beside} {bytes_text(rest)} of it" if rest else ""
        table.add_row("a device has", bytes_text(fit.device), given)
    lines: list[RenderableType] = [Text("memory per device", style="bold cyan"), table]
    if fit.fits and memory.total > fit.available:
        lines.append(Text(f"it fits with {FRACTION}={_fraction(memory.total / fit.device)}", style="yellow"))
    if forecast.source == "compiled":
        lines.append(Text("from the step, compiled for these devices", style="dim"))
    else:
        lines.append(Text(f"by formula, since {forecast.why_not_compiled}", style="yellow"))
    lines += [Text(note, style="yellow") for note in forecast.notes]
    return Group(*lines)


def energy_text(kwh: float) -> str:
    return f"{kwh:,.0f}" if kwh >= 100 else f"{kwh:.3g}"


def _teraflops(rate: float) -> str:
    """'0.1334', '989' or '29,376'."""
    return f"{rate / 1e12:,.0f}" if rate >= 1e15 else f"{rate / 1e12:.4g}"


def _small_too(size: int) -> str:
    """As `bytes_text`, with a digit after the point for a few MiB."""
    return f"{size / 2**20:.1f} MiB" if 0 < size < 9.5 * 2**20 else bytes_text(size)


def _fraction(share: float) -> str:
    return f"{min(share + 0.02, 0.94):.2f}"


def _range(cases: Cases, text: Callable[[float], str]) -> str:
    """'12.1 s (10.9 s to 14.2 s)'."""
    low, high = sorted((cases.slow, cases.fast))
    return f"{text(cases.likely)} ({text(low)} to {text(high)})"


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
