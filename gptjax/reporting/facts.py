"""Gathers what a run's folder says about the run. A part that is missing or cannot be read is None, and is noted."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptjax import tokenizer as tokenizers
from gptjax.config import ConfigError, RunError, hash_of
from gptjax.config.named_functions import is_named
from gptjax.data.facts import DataFacts
from gptjax.evaluation.harness import harness_table
from gptjax.evaluation.paired import Evaluated
from gptjax.evaluation.results import FILE as RESULTS
from gptjax.evaluation.results import FOLDER as EVALUATIONS
from gptjax.evaluation.results import notes, read_results, task_table
from gptjax.evaluation.scores import SET, Score
from gptjax.evaluation.text import text_table
from gptjax.files.folders import is_held
from gptjax.files.json_files import parsed
from gptjax.model.families import family_of
from gptjax.model.parameters import ParameterCounts, count_parameters
from gptjax.planning import resolve
from gptjax.reporting.corpus import Corpus, read_corpora
from gptjax.reporting.effort import Effort, Prices, effort_of
from gptjax.reporting.history import Start, read_starts
from gptjax.runs.comparison import RecordedRun, read_runs
from gptjax.settings import Settings
from gptjax.training.checkpoints.loading import saved_metadata, saved_steps
from gptjax.training.checkpoints.run_metadata import MODEL_MAY_BE_OWN

CONFUSION = "classification/confusion.json"
CONVENTION = "causal"  # how FLOPs are counted (model/flops.py), as in training
ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # OWNER/NAME
ORIGINS = {  # a field that names another run → what that run is to this one
    "init_from": "the run that it started from",
    "teacher": "its teacher",
    "reference": "its reference",
}


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """parameters, and training FLOPs per token by the `causal` convention."""

    parameters: ParameterCounts
    flops_per_token: float


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The checkpoint that a report describes.

    Attributes:
      step: after how many optimizer steps it was saved.
      tokens: trained on until then.
      is_best: whether it has the best score of those that are kept; otherwise it is the newest.
      metrics: its scores.
      imported: the architecture whose weights it holds, if it was not trained here; '' otherwise.
    """

    step: int
    tokens: int
    is_best: bool
    metrics: Mapping[str, Any]
    versions: Mapping[str, str | None]
    git_revision: str | None
    fingerprint: Mapping[str, Any]
    imported: str = ""


@dataclasses.dataclass(frozen=True)
class TokenizerFacts:
    """The tokenizer of a run. controls: the names of its control tokens."""

    kind: str
    vocab_size: int
    lossless: bool
    hash: str
    controls: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What is known about a run.

    Attributes:
      name: of the run's folder, or as the user gave it.
      size: None if it depends on code or data that are not here.
      checkpoint: None: none can be read.
      corpora: one for each folder of `data.path`.
      evaluated: results.json of that checkpoint, or of the newest evaluation, with its folder; None: none.
      confusion: what `gptjax classify` wrote of a classifier: its scores and its confusion matrix.
      origins: a field of ORIGINS → the name of the run that it names.
      base_model: the name on the Hugging Face hub of the model that it was imported from, or that it started from.
      missing: sentences on what could not be read.
    """

    name: str
    run: RecordedRun
    config_hash: str
    size: ModelSize | None
    checkpoint: Checkpoint | None
    tokenizer: TokenizerFacts | None
    starts: tuple[Start, ...]
    effort: Effort
    corpora: tuple[Corpus, ...]
    evaluated: Evaluated | None
    confusion: Mapping[str, Any] | None
    origins: Mapping[str, str]
    base_model: str | None
    is_running: bool
    missing: tuple[str, ...]

    @property
    def config(self) -> Settings:
        return self.run.config

    @property
    def results(self) -> Mapping[str, Any] | None:
        """The content of results.json."""
        return self.evaluated.results if self.evaluated else None

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.run.rows

    @property
    def judged_by(self) -> Score:
        return self.run.judged_by


def gather_all(folders: list[Path], prices: Prices, name: str | None = None) -> list[RunFacts]:
    """The facts of several runs; `name` is given to a single one.

    Raises:
      ConfigError: a folder is not a run's, or its config cannot be read.
    """
    runs = [_cleaned(run) for run in read_runs(folders)]
    return [_gather(run, name or (run.name if len(runs) > 1 else run.folder.resolve().name), prices) for run in runs]


def gather(folder: Path, name: str | None = None, step: int | None = None) -> RunFacts:
    """The facts of one run; raises as `gather_all`. step: that of the checkpoint to describe; None: the best one."""
    (run,) = map(_cleaned, read_runs([folder]))
    return _gather(run, name or run.folder.resolve().name, Prices(), step)


def _cleaned(run: RecordedRun) -> RecordedRun:
    """The run without the values of its metrics that no report shows: texts, lists, and numbers beyond any float."""
    rows = [{name: value for name, value in row.items() if _is_shown(name, value)} for row in run.rows]
    return dataclasses.replace(run, rows=[row for row in rows if row.get("step", -1) >= 0])


def _is_shown(name: str, value: Any) -> bool:
    if name == SET:
        return isinstance(value, str)
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18)


def _gather(run: RecordedRun, name: str, prices: Prices, step: int | None = None) -> RunFacts:
    missing: list[str] = []
    if not (run.folder / "metrics.jsonl").exists():
        missing.append("The run has no metrics.jsonl, so nothing is known about the course of training.")
    checkpoint = _checkpoint(run, step, missing)
    size = _size(run, missing)
    starts = read_starts(run.folder)
    fingerprint = checkpoint.fingerprint if checkpoint else None
    return RunFacts(
        name=name,
        run=run,
        config_hash=hash_of(run.config),
        size=size,
        checkpoint=checkpoint,
        tokenizer=_tokenizer(run, missing),
        starts=starts,
        effort=effort_of(run.rows, starts, size.flops_per_token if size else None, run.last("tokens"), prices),
        corpora=read_corpora(run.config.data.path, fingerprint),
        evaluated=_results(name, run, checkpoint, missing),
        confusion=_confusion(run, missing),
        origins={field: Path(value).name for field in ORIGINS if (value := run.config.training[field])},
        base_model=_base_model(run),
        is_running=is_held(run.folder),
        missing=tuple(missing),
    )


def _checkpoint(run: RecordedRun, step: int | None, missing: list[str]) -> Checkpoint | None:
    """The checkpoint of a step; None: the best one, or the newest if none has a score."""
    try:
        steps = saved_steps(run.folder)
    except (ConfigError, RunError, OSError):
        steps = []
    if not steps:
        missing.append("The run has no checkpoint yet, so there is no model to describe, to load or to sample from.")
        return None
    wanted: tuple[str | int, ...] = ("best", "latest") if step is None else (step,)
    for which in wanted:
        try:
            found = saved_metadata(run.folder, which=which)
        except (ConfigError, RunError, OSError):
            continue
        if found is not None:
            imported = found.get("imported")
            return Checkpoint(
                step=found["step"],
                tokens=found.get("tokens", 0),
                is_best=which == "best" or found["step"] == _best_step(run),
                metrics=found.get("metrics") or {},
                versions=found.get("versions") or {},
                git_revision=found.get("git_revision"),
                fingerprint=found.get("fingerprint") or {},
                imported=str(imported.get("architecture", "")) if isinstance(imported, dict) else "",
            )
    missing.append("None of the run's checkpoints can be read.")
    return None


def _best_step(run: RecordedRun) -> int | None:
    """The step of the best checkpoint; None if none has a score."""
    try:
        best = saved_metadata(run.folder, which="best")
    except (ConfigError, RunError, OSError):
        return None
    return best["step"] if best else None


def _base_model(run: RecordedRun) -> str | None:
    """The name of an imported model, of this run or of the one that it started from, if it is a name on the hub."""
    for folder in (run.folder, run.config.training.init_from):
        try:
            found = saved_metadata(folder) if folder else None
        except (ConfigError, RunError, OSError):
            continue
        imported = (found or {}).get("imported")
        config = imported.get("config") if isinstance(imported, dict) else None
        name = config.get("_name_or_path") if isinstance(config, dict) else None
        if isinstance(name, str) and ON_HUB.fullmatch(name) and not Path(name).exists():
            return name
    return None


def _size(run: RecordedRun, missing: list[str]) -> ModelSize | None:
    if any(is_named(run.config.model[field.removeprefix("model.")]) for field in MODEL_MAY_BE_OWN):
        missing.append("The model is defined by code of the user, which a report does not run: its size is unknown.")
        return None
    model = dataclasses.replace(run.config.model, attention="auto", dtype="auto", layers="auto")
    training = dataclasses.replace(run.config.training, batch_per_device="")  # decided for other devices
    config = dataclasses.replace(run.config, model=model, training=training)
    try:
        resolved = resolve(config, DataFacts(vocab_size=max(model.vocab_size, 1)), platform="cpu", batch_devices=1)
        family = family_of(resolved.model)
        flops = family.flops_per_token(run.config.data.sequence_length, run.config.data.source_length)
        return ModelSize(count_parameters(family.declarations), flops[CONVENTION])
    except ConfigError as error:
        missing.append(f"The size of the model cannot be computed from its config: {error}.")
        return None


def _tokenizer(run: RecordedRun, missing: list[str]) -> TokenizerFacts | None:
    try:
        found = tokenizers.load(run.folder)
    except (ConfigError, OSError):
        missing.append("The run's folder has no tokenizer that can be read.")
        return None
    controls = tuple(found.control_ids)
    return TokenizerFacts(found.kind, found.vocab_size, found.lossless, found.hash, controls)


def _results(name: str, run: RecordedRun, checkpoint: Checkpoint | None, missing: list[str]) -> Evaluated | None:
    """The results of the described checkpoint, or else of the highest step that was evaluated."""
    paths = sorted(run.folder.glob(f"{EVALUATIONS}/*/{RESULTS}"))
    of_step = f"step-{checkpoint.step:08d}" if checkpoint else None
    for path in sorted(paths, key=lambda path: path.parent.name != of_step and len(paths) - paths.index(path)):
        try:
            found = read_results(path)
        except (ConfigError, OSError):
            missing.append(f"The results in {EVALUATIONS}/{path.parent.name} are damaged and were left out.")
            continue
        if isinstance(found.get("evaluated"), dict) and _can_be_shown(found):
            return Evaluated(name, path.parent, found)
        missing.append(f"The results in {EVALUATIONS}/{path.parent.name} are of another version and were left out.")
    return None


def _confusion(run: RecordedRun, missing: list[str]) -> Mapping[str, Any] | None:
    path = run.folder / CONFUSION
    if not path.exists():
        return None
    try:
        found = parsed(path.read_bytes(), str(path), "")
        size = len(found["labels"])
        counts = [count for row in found["confusion"] for count in row]
        low, high = found["accuracy_95"]
        numbers = [found[name] for name in ("accuracy", "macro_f1", "loss", "texts", "step")] + [low, high]
        is_whole = isinstance(found["split"], str) and [len(row) for row in found["confusion"]] == [size] * size
        if is_whole and all(type(count) is int and 0 <= count < 2**53 for count in counts):
            if all(isinstance(number, int | float) and abs(number) < 2**53 for number in numbers):
                return found
    except (ConfigError, OSError, KeyError, TypeError, ValueError):
        pass
    missing.append(f"The scores in {CONFUSION} are damaged and were left out.")
    return None


def _can_be_shown(results: Mapping[str, Any]) -> bool:
    """Whether the tables of results can be made, which needs all their fields."""
    try:
        tasks, averages = results.get("tasks", {}), results.get("averages", {})
        task_table(tasks, averages), notes(tasks, averages)
        harness_table(results.get("harness", {})), text_table(results.get("text", {}))
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return False
    return True
