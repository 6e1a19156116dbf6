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
from gptjax.display.formatting import bytes_text, count_text, counted, span_text
from gptjax.files import write_aside
from gptjax.forecast.layouts import EIGHT_BITS, Layout, with_fields
from gptjax.forecast.price import Price
from gptjax.forecast.run import REPEATED, extrapolated, law_loss
from gptjax.forecast.search import LAW, Choice
from gptjax.model.families import validate_model
from gptjax.parallel.mesh import AXES
from gptjax.scaling.repetition import ON_C4

SHOWN = 12  # rows of a table
PASSES, MOST_PASSES = (1, 2, 4, 8, 16, 32), 60  # over a text that are shown; the most of the runs behind ON_C4


def choices_table(choices: Sequence[Choice], price: Price | None) -> RenderableType:
    """The candidates, the best first, and the layouts of the best."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for name in ("", "parameters", "tokens", "loss", "time", *([price.currency] if price else []), "why not"):
        table.add_column(name, justify="left" if name in ("", "why not") else "right", overflow="fold")
    for choice in choices[:SHOWN]:
        known = choice.tokens is not None
        cells = [choice.name, count_text(choice.parameters), count_text(choice.tokens) if known else "–"]
        cells += [f"{choice.loss:.3f}" if choice.is_better_than_guessing else "–"]
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
    if choices[0].loss is not None and not choices[0].is_better_than_guessing:
        parts.append(Text("the law's loss for the best is above that of guessing: it is too small", style="yellow"))
    elif extrapolated(choices[0].parameters, choices[0].tokens or 0.0):
        parts.append(Text("the best is outside the sizes and tokens to which the law was fitted", style="yellow"))
    if choices[0].passes and choices[0].is_better_than_guessing:
        parts += ["", _passes(choices[0])]
    return Group(*parts, "", _layouts(choices[0]))


def _passes(choice: Choice) -> RenderableType:
    """The loss by the number of passes over the text at hand, and after which one repeating stops helping."""
    assert choice.tokens is not None and choice.seconds is not None
    unique = choice.tokens / choice.passes
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for name in ("passes", "tokens", "time", "loss, discounted", "loss, as on C4"):
        table.add_column(name, justify="right")
    for passes in PASSES:
        tokens, seconds = passes * unique, choice.seconds / choice.passes * passes
        losses = law_loss(LAW, choice.size, tokens, unique), ON_C4.loss(LAW, choice.size, tokens, unique)
        table.add_row(f"{passes}", count_text(tokens), span_text(seconds), *(f"{loss:.3f}" for loss in losses))
    most = most_useful_passes(choice.size, unique)
    until = f"stops helping after {counted(most, 'pass', 'passes')}"
    until = until if most < MOST_PASSES else f"helps for the {MOST_PASSES} passes to which it was fitted"
    found = f"discounted: {REPEATED.source}; as on C4: {ON_C4.source}, by which repeating {until}"
    return Group(
        Text(f"passes over {count_text(unique)} tokens of text", style="bold cyan"), table, Text(found, style="dim")
    )


def most_useful_passes(size: float, unique: float) -> int:
    """The number of passes with the lowest loss by the law whose penalty was fitted to runs on C4."""
    return min(range(1, MOST_PASSES + 1), key=lambda passes: ON_C4.loss(LAW, size, passes * unique, unique))


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
