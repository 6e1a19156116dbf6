"""What is known about how good a model is: validation, tasks, texts, contamination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gptjax.display.formatting import counted
from gptjax.evaluation import harness
from gptjax.evaluation.classification import confusion_table
from gptjax.evaluation.results import notes, task_table
from gptjax.evaluation.scores import LOSS, SET
from gptjax.evaluation.text import text_table
from gptjax.reporting.document import Block, Note, Paragraph, plain
from gptjax.reporting.facts import RunFacts
from gptjax.reporting.tables import shown, table


def evaluation_blocks(facts: RunFacts) -> tuple[Block, ...]:
    return tuple([*_validation(facts), *_results(facts), *_classification(facts)])


def _validation(facts: RunFacts) -> list[Block]:
    """The scores on held-out data at the best and at the last evaluation of training."""
    score, rows = facts.judged_by, [row for row in facts.rows if row.get(facts.judged_by.name) is not None]
    if not rows:
        return [
            Note("The run has not been evaluated on held-out data, so nothing is known about how well it predicts.")
        ]
    rows = [row for row in rows if row.get(SET) == rows[-1].get(SET)]
    best_value = score.best(row[score.name] for row in rows)
    best = next((row for row in rows if row[score.name] == best_value), rows[-1])
    names = [name for name in best if name.startswith("validation/") and isinstance(best[name], int | float)]
    head = ("evaluation", "step", *(name.partition("/")[2].replace("_", " ") for name in names))
    chosen = [("best", best), ("last", rows[-1])] if best is not rows[-1] else [("best and last", best)]
    if facts.checkpoint and facts.checkpoint.step not in (row["step"] for _, row in chosen):
        chosen += [("described checkpoint", row) for row in rows if row["step"] == facts.checkpoint.step]
    made = [[word, row["step"], *(_number(row.get(name)) for name in names)] for word, row in chosen]
    text = "Scores on held-out data, which training did not read" + (
        "; losses are in nats." if LOSS.name in names else "."
    )
    return [table(head, made, "Validation"), Paragraph(text)]


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4f}"


def _results(facts: RunFacts) -> list[Block]:
    results = facts.results
    if results is None:
        is_classifier = facts.config.training.objective == "classification"
        command, where = ("classify", "a folder of texts") if is_classifier else ("evaluate", "any task")
        found = facts.confusion is not None
        return [] if found else [Note(f"The model has not been evaluated on {where} (`gptjax {command}` does so).")]
    evaluated = results["evaluated"]
    blocks: list[Block] = []
    tasks, averages = results.get("tasks", {}), results.get("averages", {})
    if tasks:
        blocks.append(shown(task_table(tasks, averages)))
        blocks += [Paragraph(f"{plain(note)}.") for note in notes(tasks, averages)]
        blocks.append(_contamination(tasks))
    if results.get("harness"):
        blocks.append(shown(harness.harness_table(results["harness"])))
    if results.get("text"):
        named = {name.rstrip("/").rpartition("/")[2]: of for name, of in results["text"].items()}
        blocks.append(shown(text_table(named)))
    if not blocks:
        return [Note("The model has not been evaluated on any task (`gptjax evaluate` does so).")]
    step, of = evaluated.get("step"), facts.checkpoint.step if facts.checkpoint else None
    when = f"Evaluated at step {step:,}" if isinstance(step, int) else "Evaluated"
    date, context = str(results.get("date", ""))[:10], evaluated.get("context")
    how = f"{when} on {date}, with {context} tokens of context, in {evaluated.get('dtype')}."
    blocks.append(
        Paragraph(
            f"{plain(how)} ± is one standard error. Items, few-shot examples and prompts are as the tasks' cards say."
        )
    )
    if of is not None and step != of:
        blocks.append(
            Note(f"These results are of step {step}, not of the described checkpoint, which is of step {of:,}.")
        )
    return blocks


def _contamination(tasks: Mapping[str, Mapping[str, Any]]) -> Block:
    checked = {name: of["contamination"] for name, of in tasks.items() if of.get("contamination")}
    if not checked:
        return Note(
            "Whether the questions of these tasks are in the training data was not checked, so the scores may be too "
            "high."
        )
    texts = [f"{name}: {of['contaminated']:,} of {tasks[name]['items']:,} items" for name, of in checked.items()]
    return Paragraph(f"Items whose text is also in the training data: {plain('; '.join(texts))}.")


def _classification(facts: RunFacts) -> list[Block]:
    """What `gptjax classify` wrote of a classifier."""
    found = facts.confusion
    if found is None:
        return []
    low, high = found["accuracy_95"]
    text = (
        f"{counted(int(found['texts']), 'text')} of the split {plain(found['split'])}, at step {found['step']:,}: "
        f"accuracy {found['accuracy']:.4f} (95 % interval {low:.3f} to {high:.3f}), macro-F1 {found['macro_f1']:.4f}, "
        f"loss {found['loss']:.4f} nats per text."
    )
    labels = [plain(label) for label in found["labels"]]
    return [Paragraph(text), shown(confusion_table(np.array(found["confusion"], np.int64), labels))]
