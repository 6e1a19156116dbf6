"""The result of a stage in a few words, read from the files that its command wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptjax.config import ConfigError
from gptjax.display.formatting import size_text
from gptjax.evaluation.results import FILE, FOLDER, read_results, score_text, shown_metrics
from gptjax.evaluation.tasks.metrics import METRICS
from gptjax.roads.definition import Stage
from gptjax.training.records.writers import read_metrics


def figures_of(stage: Stage) -> str:
    """What came out of a finished stage; "" if its command has no figures. A missing file has no figures either."""
    name = "" if stage.is_script else stage.command[0]
    if name not in READERS:
        return size_of(Path(stage.makes)) if stage.makes else ""
    try:
        return READERS[name](stage)
    except (OSError, ConfigError, KeyError, ValueError):  # the command has succeeded; its files may have changed since
        return ""


def of_prepare(stage: Stage) -> str:
    manifest = json.loads((Path(stage.flag("output")) / "manifest.json").read_bytes())
    splits = manifest["splits"]
    return f"{splits['train']['tokens']:,} tokens to train, {splits['validation']['tokens']:,} held out"


def of_train(stage: Stage) -> str:
    rows = read_metrics(Path(stage.flag("workdir")) / "metrics.jsonl")
    scores = {
        name: row[name] for row in rows for name in ("validation/loss", "validation/bits_per_byte") if name in row
    }
    loss = f"validation loss {scores['validation/loss']:.3f}" if "validation/loss" in scores else ""
    bits = scores.get("validation/bits_per_byte")
    return f"{rows[-1]['step']:,} steps, {loss}" + (f", {bits:.3f} bits per byte" if bits else "")


def of_evaluate(stage: Stage) -> str:
    (results,) = sorted((Path(stage.flag("workdir")) / FOLDER).glob(f"step-????????/{FILE}"))[-1:]
    found = read_results(results)
    tasks = {name: found["tasks"][name] for name in _names(stage) if name in found.get("tasks", {})}
    texts = [found["text"][path]["all"]["bits_per_byte"] for path in stage.flag("text").split(",") if path]
    bits = [f"{each:.3f} bits per byte" for each in texts]
    return ", ".join([*bits, *(f"{name} {_first_score(result)}" for name, result in tasks.items())])


def _names(stage: Stage) -> list[str]:
    return [Path(name).stem for name in stage.flag("tasks").split(",") if name]


def _first_score(result: dict[str, Any]) -> str:
    metric = shown_metrics(result)[0]
    return score_text(result["scores"][metric], METRICS[metric])


def size_of(path: Path) -> str:
    """The number and size of the files in a folder, or the size of a file."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    size = size_text(sum(file.stat().st_size for file in files if file.exists()))
    return f"{len(files):,} files, {size}" if path.is_dir() else size


READERS: dict[str, Callable[[Stage], str]] = {"prepare": of_prepare, "train": of_train, "evaluate": of_evaluate}
