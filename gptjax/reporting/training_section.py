"""The course of a run in plots: losses, rates, gradients, speed, and what its objective measures besides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gptjax.evaluation.scores import BITS_PER_BYTE, LOSS, PERPLEXITY
from gptjax.reporting.curves import Line, drawn
from gptjax.reporting.document import Block, Figure, Note, Paragraph, plain
from gptjax.reporting.facts import RunFacts
from gptjax.reporting.kinds import kind_of
from gptjax.training.objectives import OBJECTIVES
from gptjax.training.records.plots import FEW_POINTS, RATES, X_AXES, in_words, series_of, smooth
from gptjax.training.records.progress import STEP_METRICS

SMALL = 170  # height of the smaller plots
MOST_OWN = 8  # plots of the objective's own metrics and of tasks


def training_blocks(facts: RunFacts) -> tuple[Block, ...]:
    figures = [figure for figure in _figures(facts) if figure is not None]
    if not figures:
        return (Note("There is nothing to draw yet: the run has written fewer than two rows of metrics."),)
    about = kind_of(facts.config).loss
    said = [about] if about else []
    return (*figures, Paragraph(" ".join([*said, "Every number of these plots is in the run's metrics.jsonl."])))


def _figures(facts: RunFacts) -> Iterator[Figure | None]:
    yield _losses(facts, "step")
    if tokens_per_step(facts.rows) is None:
        yield _losses(facts, "tokens")
    rows = facts.rows
    rates = [
        Line(label, *series_of(rows, "step", name), color=number)
        for number, (name, (label, _)) in enumerate(RATES.items(), 1)
        if any(row.get(name) is not None for row in rows)
    ]
    if len(rates) == 1:
        rates = [Line("", rates[0].x, rates[0].y, color=1)]
    yield _figure(rates, "learning rate", "optimizer steps", "Learning rate", SMALL, from_zero=True)
    for metric, title in (
        ("train/gradient_norm", "Norm of the gradient, before clipping"),
        ("tokens_per_second", "Speed, tokens per second"),
    ):
        yield _figure(smoothed(facts.rows, metric, 1), in_words(metric), "optimizer steps", title, SMALL)
    if facts.config.training.objective == "preference":
        yield _rewards(facts)
    for name in _own_metrics(facts)[:MOST_OWN]:
        words = in_words(name)
        title = plain(words[0].upper() + words[1:])
        yield _figure(smoothed(facts.rows, name, 4), words, "optimizer steps", title, SMALL)


def _rewards(facts: RunFacts) -> Figure | None:
    """The rewards of both answers and their margin, of a run that learns preferences."""
    pairs = (
        ("train/chosen_reward", "chosen"),
        ("train/rejected_reward", "rejected"),
        ("validation/margin", "margin, held out"),
    )
    lines = [
        Line(label, *series_of(facts.rows, "step", name), color=number) for number, (name, label) in enumerate(pairs, 1)
    ]
    return _figure(
        [line for line in lines if len(line.x)], "reward", "optimizer steps", "Rewards of the answers", SMALL
    )


def _losses(facts: RunFacts, x_name: str) -> Figure | None:
    train = smoothed(facts.rows, "train/loss", 1, x_name, "training")
    validation = Line("validation", *series_of(facts.rows, x_name, "validation/loss"), color=2, marks=True)
    lines = [*train, *([validation] if len(validation.x) else [])]
    unit = unit_of_loss(facts)
    label, of = (f"loss in {unit}", f", {unit}") if unit else ("loss", "")
    per_step = tokens_per_step(facts.rows) if x_name == "step" else None
    also = (X_AXES["tokens"], per_step) if per_step else None
    caption = f"Loss by {X_AXES[x_name]}{' and tokens' if also else ''}{of}"
    return _figure(lines, label, X_AXES[x_name], caption, also=also)


def unit_of_loss(facts: RunFacts) -> str:
    """What the loss is a mean of: "nats per token"; "" where it is no such mean, and for an objective of the user's."""
    objective = OBJECTIVES.get(facts.config.training.objective)
    losses = [score for score in (objective.scores if objective else ()) if score.name == LOSS.name]
    return losses[0].words.partition(" (")[2].removesuffix(")") if losses else ""


def tokens_per_step(rows: list[dict[str, Any]]) -> float | None:
    """The tokens of a step, if all steps have as many."""
    found = {row["tokens"] / row["step"] for row in rows if row["step"] and isinstance(row.get("tokens"), int)}
    return found.pop() if len(found) == 1 else None


def smoothed(rows: list[dict[str, Any]], metric: str, color: int, x_name: str = "step", name: str = "") -> list[Line]:
    """The logged values, and over them their running median; few values are drawn as they are."""
    x, y = series_of(rows, x_name, metric)
    if not len(x):
        return []
    if np.isfinite(y).sum() <= FEW_POINTS:
        return [Line(name, x, y, color=color, marks=True)]
    reach = min(max(len(y) // 60, 2), 50)
    label = f"{name}, median of {2 * reach + 1} logged values" if name else f"median of {2 * reach + 1} logged values"
    return [Line("", x, y, color=color, faint=True), Line(label, x, smooth(y, reach), color=color)]


def _own_metrics(facts: RunFacts) -> list[str]:
    """Metrics of the objective and scores of tasks during training that no other plot shows, as numbers by step."""
    shown = {
        *STEP_METRICS,
        "train/step_loss",
        "train/step_gradient_norm",
        "train/chosen_reward",
        "train/rejected_reward",
    }
    objective = OBJECTIVES.get(facts.config.training.objective)
    scores = {score.name for score in objective.scores} if objective else set()
    shown |= {LOSS.name, PERPLEXITY.name, BITS_PER_BYTE.name, "validation/margin"}
    names: dict[str, int] = {}
    for row in facts.rows:
        for name, value in row.items():
            own = name.startswith(("train/", "tasks/")) or name in scores
            if own and name not in shown and isinstance(value, int | float) and not isinstance(value, bool):
                names[name] = names.get(name, 0) + 1
    return [name for name, count in names.items() if count > 1]


def _figure(
    lines: list[Line],
    y_label: str,
    x_label: str,
    caption: str,
    height: int = 250,
    from_zero: bool = False,
    also: tuple[str, float] | None = None,
) -> Figure | None:
    svg = drawn(lines, x_label, height, from_zero, also)
    return Figure(svg, f"{y_label} by {x_label}", caption) if svg else None
