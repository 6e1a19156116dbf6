"""Several runs as one document: their losses in one plot, the settings in which they differ, paired differences."""

from __future__ import annotations

from collections.abc import Sequence

from gptjax.display.formatting import count_text, duration_text
from gptjax.evaluation.compare import UNLIKE, comparison_table, tasks_of
from gptjax.evaluation.paired import Difference, Evaluated
from gptjax.reporting.curves import Line, drawn
from gptjax.reporting.document import Block, Document, Figure, Note, Paragraph, Section, plain
from gptjax.reporting.facts import RunFacts
from gptjax.reporting.settings import NAMES_FOLDERS, folder_names
from gptjax.reporting.summary import devices_text, energy_text, flops_text, sentences
from gptjax.reporting.tables import shown, table
from gptjax.reporting.training_section import smoothed, tokens_per_step, unit_of_loss
from gptjax.runs import comparison
from gptjax.training.records.plots import X_AXES, series_of

MOST_LINES = 8  # runs that one plot can show apart


def comparison_of(runs: Sequence[RunFacts], made: str, about: str = "") -> Document:
    """The comparison of two or more runs; each is compared with the first."""
    title = " and ".join(plain(one.name) for one in runs) if len(runs) == 2 else f"{len(runs)} runs compared"
    lead: list[Block] = [Paragraph(plain(about))] if about else []
    lead += [Paragraph(" ".join(sentences(one))) for one in runs] if len(runs) <= 4 else []
    recorded = [one.run for one in runs]
    lead += [shown(comparison.table(recorded))]
    lead += [Note(f"{plain(note)}.") for note in comparison.unlike_evaluations(recorded)]
    lead += [Note(f"{plain(one.name)}: {sentence}") for one in runs for sentence in one.missing]
    sections = (
        Section("losses", "Losses", _losses(runs)),
        Section("tasks", "Scores on tasks", _tasks(runs)),
        Section("settings", "Differing settings", _settings(runs)),
        Section("cost", "Hardware, time, energy and cost", (_cost(runs),)),
    )
    names = f"{', '.join(plain(one.name) for one in runs)}; " if len(runs) > 2 else ""
    subtitle = f"{names}differences are those from {plain(runs[0].name)}"
    return Document("Comparison of runs", title, subtitle, tuple(lead), sections, made)


def _losses(runs: Sequence[RunFacts]) -> tuple[Block, ...]:
    score = runs[0].judged_by
    blocks: list[Block] = []
    found = {tokens_per_step(one.rows) for one in runs}
    same = found.pop() if len(found) == 1 else None  # then one plot has both axes
    unit = f" ({unit_of_loss(runs[0])})" if unit_of_loss(runs[0]) else ""
    for metric, words in {score.name: score.words, "train/loss": f"training loss{unit}"}.items():
        for x_name in ("step",) if same else X_AXES:
            also = (X_AXES["tokens"], same) if same else None
            svg = drawn(_lines(runs, metric, x_name), X_AXES[x_name], also=also)
            if svg:
                caption = f"{words[0].upper()}{words[1:]}, by {X_AXES[x_name]}{' and tokens' if same else ''}"
                blocks.append(Figure(svg, caption, caption))
    if not blocks:
        return (Note("None of the runs has a loss to draw."),)
    if len(runs) > MOST_LINES:
        blocks.append(Note(f"Colours repeat after {MOST_LINES} runs."))
    return tuple(blocks)


def _lines(runs: Sequence[RunFacts], metric: str, x_name: str) -> list[Line]:
    lines: list[Line] = []
    for number, one in enumerate(runs, 1):
        if metric.startswith("train/"):
            drawn_lines = smoothed(one.rows, metric, number, x_name)
            lines += [Line(one.name, line.x, line.y, line.color, line.faint, line.marks) for line in drawn_lines]
        else:
            x, y = series_of(one.rows, x_name, metric)
            lines += [Line(one.name, x, y, number, marks=True)] if len(x) else []
    return lines


def _tasks(runs: Sequence[RunFacts]) -> tuple[Block, ...]:
    """The tasks that all evaluated runs have in common, with paired differences from the first of them."""
    without = ", ".join(plain(one.name) for one in runs if one.evaluated is None)
    notes = [Note(f"Not evaluated on tasks: {without}.")] if without else []
    evaluated: list[Evaluated] = [one.evaluated for one in runs if one.evaluated is not None]
    if len(evaluated) < 2:
        return tuple(notes)
    tasks = [task for task in tasks_of(evaluated[0]) if all(task in tasks_of(each) for each in evaluated[1:])]
    if not tasks:
        return (*notes, Note("No task was evaluated in all of these runs."))
    found: dict[tuple, Difference] = {
        (task, metric, each.name): task.difference(evaluated[0], each, metric)
        for task in tasks
        for metric in task.metrics(evaluated[0])
        for each in evaluated[1:]
    }
    blocks: list[Block] = [
        shown(comparison_table(evaluated, tasks, found)),
        Paragraph(
            f"After a score: the difference from {plain(evaluated[0].name)} over the same items, its standard error, "
            "and its two-sided p-value for a single comparison; among many tasks, some are small by chance."
        ),
    ]
    unlike = {f"{task.title}, {name}: {one.unlike}" for (task, _, name), one in found.items() if one.unlike}
    blocks += [Note(f"{UNLIKE} {plain(text)}.") for text in sorted(unlike)]
    return (*blocks, *notes)


def _settings(runs: Sequence[RunFacts]) -> tuple[Block, ...]:
    differing = comparison.differences([one.run for one in runs])
    if not differing:
        return (Paragraph("Their configs do not differ."),)
    rows = [
        [field, *(folder_names(str(value)) if field in NAMES_FOLDERS else _value(value) for value in values)]
        for field, values in differing.items()
    ]
    return (table(("setting", *(one.name for one in runs)), rows),)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) and value else repr(value)


def _cost(runs: Sequence[RunFacts]) -> Block:
    rows = []
    for one in runs:
        effort = one.effort
        rows.append(
            [
                *(
                    one.name,
                    devices_text(effort) or "not recorded",
                    duration_text(effort.seconds),
                    flops_text(effort.flops),
                ),
                count_text(effort.tokens_per_second),
                "–" if effort.kilowatt_hours is None else f"{energy_text(effort.kilowatt_hours)} (estimate)",
                "–" if effort.cost is None else f"{effort.cost} (estimate)",
            ]
        )
    return table(("run", "devices", "wall time", "training FLOPs", "tokens/s", "energy", "cost"), rows)
