"""A forecast on one page: memory, a step's time, the run's loss and price."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from gptjax.display.formatting import count_text, size_text, span_text
from gptjax.files import write_aside
from gptjax.forecast.memory import PARTS
from gptjax.forecast.run import Forecast
from gptjax.forecast.table import energy_text, headline
from gptjax.scaling.laws import LAWS

GIB = 2**30


def draw(forecast: Forecast, path: Path) -> None:
    """Writes the page as .png, .svg or .pdf, by the suffix of the file."""
    figure, ((memory, step), (loss, money)) = plt.subplots(2, 2, figsize=(11.7, 8.3))
    _memory(memory, forecast)
    _step(step, forecast)
    draw_loss(loss, forecast)
    _money(money, forecast)
    for panel in (memory, step, loss, money):
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    how = "from the compiled step" if forecast.source == "compiled" else "by formula"
    figure.suptitle(f"{headline(forecast)}\n{count_text(forecast.size.parameters)} parameters, {how}", fontsize=11)
    figure.tight_layout()
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix[1:].lower(), dpi=120)
    with write_aside(path) as out:
        out.write(drawn.getvalue())
    plt.close(figure)


def _memory(panel: Axes, forecast: Forecast) -> None:
    sizes = {part: getattr(forecast.memory, part) / GIB for part in PARTS}
    left = 0.0
    for part, size in sizes.items():
        panel.barh([0], [size], left=left, label=f"{part}, {size:.2f}")
        left += size
    fit = forecast.fit
    limits = [(fit.available, "for a step", "right"), (fit.device, "whole device", "left")]
    for limit, name, side in limits[fit.available == fit.device :] if fit.device else []:
        panel.axvline(limit / GIB, color="black", linewidth=0.8, linestyle=":")
        panel.text(limit / GIB, 0.48, f" {name} ", fontsize=7, rotation=90, ha=side, va="top")
    panel.set(yticks=[], xlabel=f"GiB per device, together {left:.2f}", title="memory of a step", ylim=(-1.6, 0.5))
    panel.set_xlim(0, 1.05 * max(left, fit.device / GIB))
    panel.legend(fontsize=8, loc="lower left", ncols=2, frameon=False)


def _step(panel: Axes, forecast: Forecast) -> None:
    panel.set_title("time of a step")
    if forecast.step is None:
        panel.axis("off")
        panel.text(0.5, 0.5, "the device's peak is not known", ha="center", transform=panel.transAxes)
        return
    parts = {"whole step": "step", "sending": "sending", "memory traffic": "other", "products": "products"}
    rows = {label: getattr(forecast.step, name) for label, name in parts.items()}
    rows = {label: cases for label, cases in rows.items() if cases.likely}
    unit, scale = ("seconds", 1.0) if forecast.step.step.likely >= 1 else ("milliseconds", 1e3)
    for row, (label, cases) in enumerate(rows.items()):
        panel.barh([row], [scale * cases.likely], color="0.35" if label == "whole step" else "0.7")
        panel.plot([scale * cases.fast, scale * cases.slow], [row, row], color="black", linewidth=1)
    panel.set_yticks(range(len(rows)), rows)
    panel.set_xlabel(f"{unit} (line: from fast to slow)")


def draw_loss(panel: Axes, forecast: Forecast) -> None:
    """Curves of the laws for the run's size, and the run on that of the default law."""
    size, tokens, loss = forecast.size.of_law, forecast.tokens, forecast.loss
    panel.set_title(f"loss of {count_text(size)} parameters by published laws, unique tokens")
    if loss.loss is None:
        panel.axis("off")
        panel.text(0.5, 0.5, textwrap.fill(f"none: {loss.why_not}", 50), ha="center", transform=panel.transAxes)
        return
    ends = sorted((tokens.run, tokens.optimal))
    every: np.ndarray = np.geomspace(ends[0] / 10, 3 * ends[1], 100)
    for law in LAWS.values():
        label = law.source.partition(" et al.")[0] + " et al."
        panel.plot(every, law.loss(np.full_like(every, size), every), linewidth=1, label=label)
    panel.plot([tokens.run], [loss.loss], "ko", label="this run")
    panel.axvline(tokens.optimal, color="grey", linewidth=0.8, linestyle=":")
    panel.set(xscale="log", xlabel="tokens (dotted: optimal for this size)", ylabel="nats per token")
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.legend(fontsize=8, frameon=False)


def _money(panel: Axes, forecast: Forecast) -> None:
    """Lists mesh, speed, time, energy, price, checkpoints and loss."""
    panel.axis("off")
    panel.set_title("the run")
    rows = [("devices", f"{forecast.count} × {forecast.hardware}")]
    rows += [("mesh", " × ".join(f"{axis} {size}" for axis, size in forecast.mesh.items()) or "one device")]
    rows += [("tokens", count_text(forecast.tokens.run))]
    if forecast.speed is not None and forecast.time is not None:
        rows += [("tokens per second", count_text(forecast.speed.tokens_per_second.likely))]
        rows += [(f"MFU, {name}", f"{cases.likely:.1%}") for name, cases in forecast.speed.mfu.items()]
        slow, likely, fast = map(span_text, forecast.time.total)
        rows += [("whole run", f"{likely} ({fast} to {slow})")]
    if forecast.energy_kwh is not None:
        rows += [("energy", f"{energy_text(forecast.energy_kwh.likely)} kWh")]
    if forecast.cost is not None:
        slow, likely, fast = (f"{amount:,.2f}" for amount in forecast.cost)
        rows += [("price", f"{likely} ({fast} to {slow}) {forecast.currency}")]
    rows += [("checkpoint", size_text(forecast.checkpoint.bytes))]
    if forecast.loss.loss is not None:
        rows += [("predicted loss", f"{forecast.loss.loss:.3f} nats per token")]
    for row, (name, value) in enumerate(rows):
        height = 0.95 - 0.085 * row
        panel.text(0.0, height, name, fontsize=9, color="grey", transform=panel.transAxes)
        panel.text(0.35, height, value, fontsize=9, transform=panel.transAxes)
