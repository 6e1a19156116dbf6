"""The result of a search: a table of the candidates with reasons, and a config file that gptjax train accepts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gptjax.config import default, flatten, validate
from gptjax.display.formatting import bytes_text, count_text, span_text
from gptjax.files import write_aside
from gptjax.forecast.layouts import EIGHT_BITS, Layout, with_fields
from gptjax.forecast.price import Price
from gptjax.forecast.run import extrapolated
from gptjax.forecast.search import LAW, Choice
from gptjax.model.families import validate_model
from gptjax.parallel.mesh import AXES

SHOWN = 12  # rows of a table


def choices_table(choices: Sequence[Choice], price: Price | None) -> RenderableType:
    """The candidates, the best first, and the layouts of the best."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for name in ("", "parameters", "tokens", "loss", "time", *([price.currency] if price else []), "why not"):
        table.add_column(name, justify="left" if name in ("", "why not") else "right", overflow="fold")
    for choice in choices[:SHOWN]:
        known = choice.tokens is not None
        cells = [choice.name, count_text(choice.parameters), count_text(choice.tokens) if known else "–"]
        cells += [f"{choice.loss:.3f}" if choice.loss is not None else "–"]
        cells += [span_text(choice.seconds) if known else "–"]
        cells += [f"{choice.cost:,.2f}" if choice.cost is not None else "–"] if price else []
        best = choice is choices[0]
        table.add_row(*cells, choice.reason or "the best", style="bold" if best else "")
    parts: list[RenderableType] = [Text("sizes", style="bold cyan"), table]
    if len(choices) > SHOWN:
        parts.append(Text(f"and {len(choices) - SHOWN} worse", style="dim"))
    parts += [Text(f"the best has {note}", style="dim") for note in choices[0].notes]
    if (passes := choices[0].passes) > 1:
        parts.append(Text(f"with {passes:.2g} passes over the text at hand, repeated tokens discounted", style="dim"))
    parts.append(Text(f"losses by {LAW.source}, for text like the paper's; they only rank sizes", style="dim"))
    if extrapolated(choices[0].parameters, choices[0].tokens or 0.0):
        parts.append(Text("the best is outside the sizes and tokens to which the law was fitted", style="yellow"))
    return Group(*parts, "", _layouts(choices[0]))


def _layouts(choice: Choice) -> RenderableType:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for name in ("mesh", "micro-batches", "remat", "memory", "tokens/s", "why not"):
        table.add_column(name, justify="right" if name in ("micro-batches", "memory", "tokens/s") else "left")
    changing = [layout for layout in choice.layouts if EIGHT_BITS in layout.fields]
    others = [layout for layout in choice.layouts if layout not in changing]
    for layout in (*others[:SHOWN], *changing):
        table.add_row(*_layout_cells(layout), style="" if layout.reason else "bold")
    rest = len(others) - SHOWN
    more = [Text(f"and {rest} that are slower or do not fit", style="dim")] if rest > 0 else []
    return Group(Text(f"ways to train {choice.name}", style="bold cyan"), table, *more)


def _layout_cells(layout: Layout) -> tuple[str, ...]:
    fields = layout.fields
    axes = [f"{axis} {size}" for axis in AXES if (size := fields[f"mesh.{axis}"]) > 1]
    mesh = " × ".join(axes) or "one device"
    mesh += ", zero1" if fields.get("mesh.zero1") else ""
    mesh += f", {way}" if (way := fields.get("mesh.expert_exchange", "auto")) != "auto" else ""
    mesh += f", {parts} micro-batches" if (parts := fields.get("mesh.pipeline_microbatches")) else ""
    mesh += ", fp8" if EIGHT_BITS in fields else ""
    if layout.needs is None:
        return mesh, "–", "–", "–", "–", layout.reason
    steps, remat = fields["training.gradient_accumulation_steps"], fields["model.remat"]
    rate = count_text(layout.tokens_per_second) if layout.fits else "–"
    return mesh, f"{steps}", f"{remat}", bytes_text(layout.needs.memory.total), rate, layout.reason or "the best"


def chosen_config(choice: Choice) -> ConfigDict:
    """The config that trains the choice."""
    fields = dict(choice.layout.fields)
    if choice.tokens is not None:
        fields["training.duration"] = f"{round(choice.tokens)} tokens"
    config = with_fields(choice.config, fields)
    validate(config)
    validate_model(config)
    return config


def choices_json(choices: Sequence[Choice]) -> list[dict[str, Any]]:
    """The candidates with their layouts, the best first, for programs."""
    return [
        {
            **{name: getattr(choice, name) for name in ("name", "parameters", "tokens", "seconds", "loss", "cost")},
            "devices": choice.place.count,
            "reason": choice.reason,
            "layouts": [
                {
                    "fields": dict(layout.fields),
                    "bytes": layout.needs.memory.total if layout.needs else None,
                    "tokens_per_second": layout.tokens_per_second,
                    "reason": layout.reason,
                }
                for layout in choice.layouts
            ],
        }
        for choice in choices
    ]


def write_config(config: ConfigDict, why: str, file: Path) -> None:
    """Writes a config file with the fields that are not at their defaults."""
    defaults, flat = flatten(default()), flatten(config)
    lines = [repr(why), "", "from gptjax.config import default", "", "", "def get_config():"]
    lines += ["    config = default()"]
    lines += [f"    config.{field} = {value!r}" for field, value in flat.items() if value != defaults[field]]
    with write_aside(file) as out:
        out.write(("\n".join([*lines, "    return config"]) + "\n").encode())
