"""What a run prints before its first step: its settings, the facts that follow from them, and a row of its data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from gptjax.config import default, flatten
from gptjax.data import Dataset
from gptjax.display.formatting import count_text, counted, number_text, percent_text
from gptjax.display.terminal import Console
from gptjax.parallel.mesh import AXES, AbstractDevices
from gptjax.parallel.pipeline import schedule_of
from gptjax.planning import Plan
from gptjax.settings import Settings
from gptjax.training.optimizers.treatments import summarize, treatments_of
from gptjax.training.records.console import titled, value_text

MOST_COLUMNS, COLUMN_GAP = 3, 2  # of the settings
MOST_VALUE_WIDTH = 28  # of a setting; longer values, such as paths, wrap
MOST_WEIGHTS = 10  # weights of labels that are shown
# Settings that identify a run are shown even at their defaults.
ALWAYS_SHOWN = frozenset(
    {
        *("seed", "model.family", "model.vocab_size", "model.num_layers", "model.width", "model.num_heads"),
        *("model.feedforward", "model.position", "model.initialization", "data.path", "data.sequence_length"),
        *("data.windows", "optimizer.name", "optimizer.learning_rate", "optimizer.weight_decay", "schedule.name"),
        *("schedule.warmup", "schedule.final_fraction", "training.objective", "training.duration"),
        *("training.batch_size", "training.gradient_accumulation_steps", "checkpoint.every", "evaluation.every"),
    }
)
# These fields are shown in the facts `compute` and `mesh`.
IN_FACTS = frozenset({"model.dtype", "model.layers", "model.attention", "model.remat", *(f"mesh.{a}" for a in AXES)})
ROW_CHARACTERS = 2000  # of a row that is shown before the run


def derived_facts(plan: Plan) -> dict[str, dict[str, str]]:
    """The facts that follow from a plan, in sections for `print_settings`."""
    config, counts, total_tokens = plan.config, plan.parameters, plan.total_tokens
    model = config.model
    axes = " × ".join(f"{axis} {size}" for axis, size in plan.mesh.shape.items() if size > 1)
    devices = plan.devices
    kinds = [devices.kind] if isinstance(devices, AbstractDevices) else sorted({one.device_kind for one in devices})
    active = f", {count_text(counts.active)} active" if counts.active < counts.total else ""
    run = {
        "parameters": f"{counts.total:,} ({count_text(counts.non_embedding)} without embedding{active})",
        "steps": f"{plan.total_steps:,} of {counted(plan.tokens_per_step, 'token')}",
        "tokens": f"{count_text(total_tokens)} ({total_tokens / max(counts.total, 1):.1f} per parameter)",
    }
    for convention, formula in plan.flop_formulas.items():
        flops = plan.flops_per_token[convention]
        amount = f"{count_text(flops)} per token, {flops * total_tokens:.2e} in total"
        run[f"FLOPs, {convention}"] = f"{amount} ({formula})"
    run |= {
        "devices": f"{plan.mesh.size} × {', '.join(kinds)}",
        "mesh": axes or "one device",
        **_pipeline_facts(plan),
        "compute": f"{model.dtype}, attention {model.attention}, layers {model.layers}, remat {model.remat}"
        + (f", experts {model.expert_products}" if model.num_experts else ""),
        "utilization": plan.peak.label,
    }
    updates = {}
    for group in summarize(treatments_of(config.optimizer, plan.trainer.declared, plan.trainer.objective.trains)):
        name = f"{group['method']}, {count_text(group['num_parameters'])}"
        details = "no gradient changes them" if group["method"] == "frozen" else f"decay {group['weight_decay']:g}"
        if group["method"] != "frozen" and group["learning_rate"] != 1.0:
            details += f", rate × {group['learning_rate']:g}"
        shown = ", ".join(re.sub(r"(body/)?layers/(?!\d)", "", path) for path in group["paths"][:4])
        updates[name] = f"{details}: {shown}" + (", …" if len(group["paths"]) > 4 else "")
    return {"run": run, "updates": updates}


def _pipeline_facts(plan: Plan) -> dict[str, str]:
    """The idle time of a pipeline; empty without a pipeline."""
    schedule = schedule_of(plan.config.mesh, plan.mesh)
    if schedule.stages == 1:
        return {}
    flow = f"{counted(schedule.microbatches, 'micro-batch', 'micro-batches')} through {schedule.stages} stages"
    rounds = f", {schedule.repeats} times" if schedule.repeats > 1 else ""
    return {"pipeline": f"{flow}{rounds}: each stage is idle for {percent_text(schedule.bubble)} of the layers' time"}


def epochs_facts(data: Dataset, total_steps: int, validation: Dataset | None) -> dict[str, str]:
    """The number of epochs of a run, and whether batches are larger than the data; for `print_settings`."""
    whole, each = data.epochs(total_steps), data.epochs(1)
    epochs = ", ".join(
        f"{number_text(n, '.3g')}{f' of {folder}' if len(whole) > 1 else ''}" for folder, n in whole.items()
    )
    facts = {
        "epochs": f"{epochs} ({counted(data.num_tokens, 'token')}, {counted(data.num_windows, 'window')} available)"
    }
    what = {"conversations": "conversation", "pairs": "pair"}.get(data.form, "text")
    what = "preference" if data.form.endswith("preferences") else what
    if weights := data.fingerprint().get("rewriting", {}).get("class_weights"):
        pairs = ", ".join(f"{label} {weight:.3g}" for label, weight in list(zip(data.labels, weights))[:MOST_WEIGHTS])
        facts["class weights"] = pairs + ", …" * (len(weights) > MOST_WEIGHTS)
    if data.truncated:
        facts["TRUNCATED"] = f"{counted(data.truncated, what)} to data.sequence_length; the beginning is read"
    if data.left_out:
        longer = "longer than data.sequence_length, or with no answer in a row of this length"
        if data.form == "pairs":
            longer = "longer than data.source_length or data.sequence_length"
        facts["LEFT OUT"] = f"{counted(data.left_out, what)} {longer}"
    if repeated := [f"{folder} {number_text(n, '.3g')} times" for folder, n in each.items() if n > 1]:
        facts["REPEATED"] = (
            f"a batch has more rows than the data has windows: it reads each window of {', '.join(repeated)}"
        )
    if validation is not None:
        facts["validation"] = (
            f"{counted(validation.num_windows, 'window')} of {counted(validation.num_tokens, 'token')}, "
            f"set {validation.identity()}"
        )
    return facts


def print_settings(console: Console, config: Settings, facts: Mapping[str, Mapping[str, str]]) -> None:
    """Prints the fields of the (resolved) config by section, then the facts that follow from it.

    Fields that are at their defaults or IN_FACTS are only counted, except for ALWAYS_SHOWN: config.json has them all.
    """
    defaults, flat = flatten(default()), flatten(config)
    named = ALWAYS_SHOWN | {field for field in flat if flat[field] != defaults[field]} - IN_FACTS
    listed = {field: value for field, value in flat.items() if field in named}
    sections: dict[str, dict[str, Any]] = {}
    for field, value in listed.items():
        section, _, name = field.rpartition(".")
        sections.setdefault(section or "general", {})[name] = value
    console.print(_side_by_side(sections, console.width))
    rest = f"and {len(flat) - len(listed)} fields that are at their defaults or follow below (config.json has all)"
    console.print(Text(rest, style="dim"), "", sep="\n")
    for name, fields in facts.items():
        console.print(titled(name, fields))
    console.print()


def print_row(console: Console, row: Text | None) -> None:
    """Prints a row that an objective shows before the run, cut to ROW_CHARACTERS."""
    if row is not None:
        row.truncate(ROW_CHARACTERS, overflow="ellipsis")
        console.print(Text("the first row: the loss is on ⟦what is in brackets⟧", "bold"), soft_wrap=True)
        console.print(row, "", sep="\n", soft_wrap=True)


def _side_by_side(sections: Mapping[str, Mapping[str, Any]], width: int) -> Table:
    """Arranges the sections in as many columns as fit side by side; each column is filled before the next."""
    tables = {name: titled(name, fields, MOST_VALUE_WIDTH) for name, fields in sections.items()}
    for columns in range(MOST_COLUMNS, 0, -1):
        filled = _filled({name: len(fields) + 2 for name, fields in sections.items()}, columns)
        widths = [max(_width(name, sections[name]) for name in names) for names in filled]
        if sum(widths) + COLUMN_GAP * (len(widths) - 1) <= width:
            break
    grid = Table.grid(padding=(0, COLUMN_GAP, 0, 0), pad_edge=False)
    grid.add_row(*(Group(*(part for name in names for part in (tables[name], ""))) for names in filled))
    return grid


def _filled(heights: Mapping[str, int], columns: int) -> list[list[str]]:
    """Distributes the names over at most `columns` columns of about equal height."""
    target = sum(heights.values()) / columns
    filled: list[list[str]] = [[]]
    height = 0
    for name in heights:
        if height and height + heights[name] / 2 > target and len(filled) < columns:
            filled.append([])
            height = 0
        filled[-1].append(name)
        height += heights[name]
    return filled


def _width(title: str, fields: Mapping[str, Any]) -> int:
    """The width of a section whose values wrap at MOST_VALUE_WIDTH."""
    names, values = map(len, fields), (min(len(value_text(value)), MOST_VALUE_WIDTH) for value in fields.values())
    return max(len(title), max(names, default=0) + 1 + max(values, default=0))
