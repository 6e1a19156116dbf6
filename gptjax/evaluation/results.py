"""Results of an evaluation: results.json, a table, and files that the Hugging Face hub reads.

RUN/evaluation/step-00002000/results.json          scores, standard errors, counts and hashes for one checkpoint
RUN/evaluation/step-00002000-average-3/results.json  the same for the mean of the last three checkpoints
RUN/evaluation/step-00002000/items/TASK.jsonl      the answers, item by item
RUN/evaluation/step-00002000/.eval_results/*.yaml  files for a model's repository on the hub
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xxhash
from rich.table import Table

from gptjax.corpus.libraries import versions_of
from gptjax.display.formatting import counted
from gptjax.evaluation.tasks import core
from gptjax.evaluation.tasks.metrics import METRICS, Metric
from gptjax.files import write_aside
from gptjax.files.folders import LOCK, in_turn
from gptjax.files.json_files import parsed

FOLDER, FILE, HUB_FOLDER = "evaluation", "results.json", ".eval_results"
LIBRARIES = ("gptjax", "jax", "lm_eval", "numpy", "rouge-score", "sacrebleu")


def results_folder(run: Path, step: int, averaged: int = 0) -> Path:
    """The folder for the results of a run's checkpoint, or of the mean of the last `averaged` checkpoints up to it."""
    return run / FOLDER / (f"step-{step:08d}" + (f"-average-{averaged}" if averaged else ""))


def checkpoint_hash(metadata: Mapping[str, Any]) -> str:
    """Identifies the arrays of a checkpoint by its metadata, which hold a checksum of each array."""
    arrays = json.dumps(metadata["arrays"], sort_keys=True)
    return xxhash.xxh3_64_hexdigest(arrays.encode())


def write_results(folder: Path, identity: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]]) -> dict:
    """Writes results.json and returns its content. The results of an earlier evaluation of the same model are kept.

    Args:
      identity: what was evaluated (`Subject.identity`).
      sections: 'tasks', 'averages', 'text', 'harness' … → name → result.
    """
    identity = json.loads(json.dumps(identity))
    with in_turn(folder / LOCK):  # another process may evaluate other tasks of the same checkpoint
        results: dict[str, Any] = {"evaluated": identity}
        if (folder / FILE).exists():
            earlier = read_results(folder / FILE)
            results = earlier if earlier.get("evaluated") == identity else results
        for section, found in sections.items():
            results[section] = results.get(section, {}) | dict(found)
        if core.NAME in results.get("averages", {}):  # over all tasks in the file, some of which may be earlier ones
            results["averages"][core.NAME] = core.average(results["tasks"])
        now = datetime.datetime.now(datetime.UTC)
        results |= {"date": now.isoformat(timespec="seconds"), "versions": versions_of(LIBRARIES)}
        with write_aside(folder / FILE) as file:
            file.write((json.dumps(_finite(results), indent=1, ensure_ascii=False) + "\n").encode())
        _write_for_hub(folder / HUB_FOLDER, results.get("tasks", {}), now)
    return results


def read_results(path: Path) -> dict[str, Any]:
    """Raises ConfigError if the file is damaged."""
    return parsed(path.read_bytes(), str(path), "delete it and evaluate again: recorded answers are not asked again")


def _finite(value: Any) -> Any:
    """JSON with None for numbers that JSON lacks, such as an infinite perplexity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _write_for_hub(folder: Path, tasks: Mapping[str, Mapping[str, Any]], now: datetime.datetime) -> None:
    """A YAML file for each task whose card names a benchmark on the hub (hub-docs, eval_results.yaml)."""
    for name, result in tasks.items():
        value = result["scores"][result["metric"]]["value"]
        if "hub" not in result or value is None or result["items"] < result["of"]:
            continue  # a score on part of the items is not a result of the benchmark
        metric = METRICS[result["metric"]]
        notes = f"{metric.words}, {result['few_shot']}-shot, prompts {result['hashes']['prompts']}, by gptjax"
        lines = (
            "- dataset:",
            f"    id: {json.dumps(result['hub']['dataset'])}",
            f"    task_id: {json.dumps(result['hub']['task_id'])}",
            f"  value: {metric.scale * value:.4f}",
            f'  date: "{now.date().isoformat()}"',
            f"  notes: {json.dumps(notes, ensure_ascii=False)}",
        )
        folder.mkdir(parents=True, exist_ok=True)
        with write_aside(folder / f"{name}.yaml") as file:
            file.write(("\n".join(lines) + "\n").encode())


# --- Tables and notes ------------------------------------------------------------------------------------------------


def score_text(score: Mapping[str, Any] | None, how: Metric) -> str:
    """'25.31 % ± 0.43', or without an error if it is not known."""
    if score is None or not isinstance(score["value"], int | float) or not math.isfinite(score["value"]):
        return "–"
    error = score["standard_error"]
    unit = f" {how.unit}" if how.unit else ""
    return f"{how.scale * score['value']:.4g}{unit}" + (f" ± {how.scale * error:.2g}" if error is not None else "")


def task_table(results: Mapping[str, Mapping[str, Any]], averages: Mapping[str, Any] | None = None) -> Table:
    """A row per task: its first metric with the standard error, the bits per byte of the right answer, and counts."""
    table = Table(box=None, pad_edge=False)
    checked = any(result["contamination"] for result in results.values())
    table.add_column("task", no_wrap=True)
    table.add_column("shots", justify="right")
    table.add_column("items", justify="right", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    table.add_column("score ± standard error", justify="right", no_wrap=True)
    table.add_column("guessing", justify="right", no_wrap=True)
    table.add_column("bits per byte", justify="right")
    if checked:
        table.add_column("contaminated", justify="right")
        table.add_column("score of the clean", justify="right")
    for name, result in results.items():
        for number, metric in enumerate([each for each in shown_metrics(result) if each != "bits_per_byte"]):
            first = number == 0
            of = f"{result['items']:,}" + (f" of {result['of']:,}" if result["items"] < result["of"] else "")
            guessed = f"{100 * result['baseline']:g} %" if first and shows_guessing(result) else ""
            bits = score_text(result["scores"].get("bits_per_byte"), METRICS["bits_per_byte"]) if first else ""
            row = [
                name if first else "",
                str(result["few_shot"]) if first else "",
                of if first else "",
                METRICS[metric].words,
                score_text(result["scores"][metric], METRICS[metric]),
                guessed,
                "" if bits == "–" else bits,
            ]
            table.add_row(*row, *(_contamination_cells(result, metric, first) if checked else ()))
    for name, average in (averages or {}).items():
        error = average["standard_error"]
        text = f"{average['value']:.4f}" + (f" ± {error:.4f}" if error is not None else "")
        table.add_row(name.upper(), "", f"{len(average['tasks'])} of {average['of']} tasks", "centred average", text)
    return table


def shown_metrics(result: Mapping[str, Any]) -> list[str]:
    """The metrics that a table shows: for tasks with choices, only the first metric and bits per byte."""
    names = [name for name in result["scores"] if name != "bits_per_byte"]
    shown = names[:1] if result["kind"] in ("multiple_choice", "schema") else names
    return shown + ["bits_per_byte"] * ("bits_per_byte" in result["scores"])


def shows_guessing(result: Mapping[str, Any]) -> bool:
    """Whether the score of guessing is known for the first metric."""
    return result["baseline"] > 0 and result["metric"].startswith("accuracy")


def _contamination_cells(result: Mapping[str, Any], metric: str, first: bool) -> tuple[str, str]:
    found = result["contamination"]
    if not found:
        return ("not compared" if first else "", "")
    count = f"{found['contaminated']:,} ({100 * found['contaminated'] / max(result['items'], 1):.1f} %)"
    return (count if first else "", score_text(found["clean_scores"].get(metric), METRICS[metric]))


def notes(results: Mapping[str, Mapping[str, Any]], averages: Mapping[str, Any]) -> list[str]:
    """Sentences about items that were left out or truncated, and about missing tasks of CORE."""
    found = []
    for name, result in results.items():
        if "members" in result:
            over = {"members": "", "items": "the items of "}[result["average"]]
            found.append(f"{name}: the mean over {over}{len(result['members'])} members (each is in results.json)")
        for reason, count in result["skipped"].items():
            found.append(f"{name}: {counted(count, 'row')} left out: {reason}")
        if result.get("empty"):
            found.append(f"{name}: nothing was written for {result['empty']:,} of {counted(result['items'], 'item')}")
        if (found_in := result["contamination"]) and found_in.get("too_short"):
            found.append(
                f"{name}: {counted(found_in['too_short'], 'item')} of its set too short to be searched for in the "
                "training text, and counted as clean"
            )
        if result["truncated"]:
            found.append(f"{name}: {counted(result['truncated'], 'item')} longer than the context, and not read whole")
    for name, average in averages.items():
        if average["missing"]:
            found.append(f"{name.upper()} without {', '.join(average['missing'])}: their data were not found")
        if average.get("unlike"):  # files of older versions do not say it
            found.append(
                f"{name.upper()} with another number of examples or only a part of the items of "
                f"{', '.join(average['unlike'])}: not comparable with published values"
            )
    return found


def averages_of(names: Sequence[str], results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The averages that --tasks names, over the tasks that have results."""
    return {core.NAME: core.average(results)} if core.NAME in names else {}
