"""Finds, checks and loads tasks of lm_eval: its own tasks by name, others by the path of a YAML file.

The data files that a YAML file names are searched in the current folder, in those of --task_data, and beside the YAML
file. Anything that would use the network or run untrusted code is refused first: Python functions that a YAML names
(!function), metrics that the library `evaluate` would load as code, and tasks that run what the model writes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptjax.config import suggestion
from gptjax.errors import ConfigError
from gptjax.evaluation.harness.library import OFFLINE, OPTION, lm_eval
from gptjax.evaluation.harness.model import generated

SUFFIXES = (".yaml", ".yml")
PICKLES = "pandas"  # the name of pickles in the library `datasets`
TEXTS, DOCUMENTS = "generate_until", "loglikelihood_rolling"  # lm_eval's names of the kinds of tasks


@dataclass
class Loaded:
    """Tasks that are ready to run.

    Attributes:
      tasks: as lm_eval's `evaluate` takes them: 'tasks' and 'groups' by name, and 'group_map'.
      notes: sentences to print.
    """

    tasks: dict[str, dict[str, Any]]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Function:
    """The value after !function in a YAML file."""

    name: str
    file: Path


def load_tasks(
    names: str,
    data: Sequence[Path] = (),
    *,
    own_functions: bool = False,
    few_shot: int | None = None,
    continues: bool = True,
    option: str = "--tasks",
) -> Loaded:
    """Loads tasks with their data.

    Args:
      names: names or patterns (mmlu_*) of lm_eval's tasks, groups and tags, and paths of YAML files, separated by
        commas.
      data: folders of data files, which --task_data names.
      own_functions: whether the code that YAML files name is allowed.
      few_shot: the number of examples, unless a YAML file fixes it at 0; None: as in the YAML file.
      continues: whether the model continues texts; otherwise it cannot compute the likelihood of a document.

    Raises:
      ConfigError: there is no such task, its YAML file is invalid, its data were not found, or it needs something that
        is not allowed.
    """
    library = lm_eval()
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise ConfigError(f"{option}={names}: must name tasks of lm_eval, such as {option}=arc_easy,my/task.yaml")
    for folder in data:
        if not folder.is_dir():
            raise ConfigError(f"--task_data={folder}: must be a folder, but there is no folder of this name")
    found: dict[str, dict[str, Any]] = {"tasks": {}, "groups": {}, "group_map": {}}
    of_library: Any = None
    for name in wanted:
        if name.endswith(SUFFIXES):
            made = _of_file(Path(name).expanduser(), data, own_functions, option)
        else:
            of_library = of_library or library.tasks.TaskManager()
            made = _of_library(name, of_library, own_functions, option)
        if twice := found["tasks"].keys() & made["tasks"].keys():
            raise ConfigError(f"{option}: two of {names} have a task named {min(twice)}; ask for one of them")
        for part, some in made.items():
            found[part] |= some
    loaded = Loaded(found)
    for name, task in found["tasks"].items():
        _check(name, task, continues)
        _set_few_shot(name, task, few_shot, loaded.notes)
    return loaded


# --- lm_eval's own tasks ----------------------------------------------------------------------------------------------


def _of_library(name: str, manager: Any, own_functions: bool, option: str) -> dict[str, dict[str, Any]]:
    matching = manager.match_tasks([name])
    if not matching:
        known = manager.all_tasks
        raise ConfigError(
            f"{option}: lm_eval has no task {name!r}{suggestion(name, known)}; it has {len(known):,}, and takes the "
            "path of a .yaml file as well"
        )
    return _loaded(name, manager, matching)


def _loaded(name: str, manager: Any, specs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Loads tasks with lm_eval. Errors in the files and code of tasks become a ConfigError of one sentence."""
    try:
        made = manager.load(list(specs))
    except Exception as error:
        raise ConfigError(f"{name}: {_why(error)}") from error
    return {part: dict(made.get(part, {})) for part in ("tasks", "groups", "group_map")}


def _why(error: Exception) -> str:
    """Why a task cannot be loaded: it needs a network, or its files are invalid."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import OfflineModeIsEnabled

    first = " ".join(str(error).partition("\n")[0].split())
    offline = isinstance(error, ConnectionError | OfflineModeIsEnabled | DatasetNotFoundError)
    offline |= isinstance(error, OSError | ValueError) and "Couldn't find cache" in first
    if offline and os.environ.get(OFFLINE) != "0":
        return f"its data are not on this machine, and no network is used ({OFFLINE}=0 allows it): {first}"
    return f"lm_eval cannot load it ({type(error).__name__}: {first})"


# --- YAML files -------------------------------------------------------------------------------------------------------


def _of_file(path: Path, data: Sequence[Path], own_functions: bool, option: str) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise ConfigError(f"{option}: {path}: must be a task of lm_eval, a YAML file; {what}")
    path = path.resolve()
    settings = _read(path)
    if not ({"task", "group", "class"} & settings.keys()):
        raise ConfigError(f"{path}: has no key 'task', which names the task of lm_eval that it describes")
    manager, files = lm_eval().tasks.TaskManager, {path: settings}
    if "group" in settings:  # its members are tasks of other files in its folder
        files |= {other: _read(other) for other in sorted(path.parent.rglob("*.yaml")) if other != path}
        made = manager(include_path=path.parent, include_defaults=False)
    else:
        made = manager(include_defaults=False)
    if not own_functions:
        for file, one in files.items():
            _check_runs_no_code(file, one)
    place = _place(path, [name for one in files.values() for name in _data_files(one)], data)
    with contextlib.chdir(place):
        return _loaded(str(path), made, [settings["group"] if "group" in settings else str(path)])


def _read(path: Path, within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings of a YAML file and of the files that it includes. Functions are only named, not imported.

    Raises:
      ConfigError: a file cannot be read.
    """
    import yaml  # comes with lm_eval

    class Reader(yaml.SafeLoader):
        pass

    Reader.add_constructor("!function", lambda reader, node: _Function(str(node.value), path))
    try:
        settings = yaml.load(path.read_text("utf-8"), Reader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: must hold keys with values, as a task of lm_eval")
    included = settings.pop("include", None) or []
    merged: dict[str, Any] = {}
    for name in included if isinstance(included, list) else [included]:
        other = (path.parent / str(name)).resolve()
        if other in (path, *within):
            raise ConfigError(f"{path}: include: {name}: includes itself")
        merged |= _read(other, (*within, path))
    return merged | settings


def _values(value: Any) -> Iterator[Any]:
    """Everything in a YAML file that is neither a list nor a mapping."""
    if isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _values(each)
    else:
        yield value


def _check_runs_no_code(path: Path, settings: Mapping[str, Any]) -> None:
    """Raises ConfigError if the task would import or load code that is not lm_eval's own."""
    library = Path(str(lm_eval().__file__)).parent
    allow = "--own_functions allows it"
    for value in _values(settings):
        if isinstance(value, _Function) and not value.file.is_relative_to(library):
            raise ConfigError(f"{path}: !function {value.name}: would run Python code on this machine; {allow}")
    from lm_eval.api.registry import metric_registry

    for each in settings.get("metric_list") or ():
        metric = each.get("metric") if isinstance(each, Mapping) else None
        if isinstance(metric, str) and (each.get("hf_evaluate") or metric not in metric_registry):
            raise ConfigError(
                f"{path}: metric {metric!r}: is not one of lm_eval's{suggestion(metric, metric_registry)}; the library "
                f"evaluate would load it as code; {allow}"
            )
    if settings.get("dataset_path") == PICKLES:
        raise ConfigError(f"{path}: dataset_path = {PICKLES!r}: reads pickles, which can run code; {allow}")


def _data_files(settings: Mapping[str, Any]) -> list[str]:
    """The local files and folders that hold a task's data."""
    more = settings.get("dataset_kwargs") or {}
    named = [each for key in ("data_files", "data_dir") for each in _values(more.get(key, []))]
    return [each for each in named if isinstance(each, str) and "://" not in each]


def _place(path: Path, files: Sequence[str], data: Sequence[Path]) -> Path:
    """The folder below which all these files exist.

    Raises:
      ConfigError: there is no such folder.
    """
    looked = [Path.cwd(), *(folder.resolve() for folder in data), path.parent]
    for folder in looked:
        if all(_is_there(folder, name) for name in files):
            return folder
    missing = next(name for name in files if not _is_there(path.parent, name))
    raise ConfigError(
        f"{path}: there is no {missing} in {', '.join(map(str, looked))} (--task_data=FOLDER names the folder of the "
        "data)"
    )


def _is_there(folder: Path, name: str) -> bool:
    if Path(name).is_absolute():
        return Path(name).exists() or any(Path("/").glob(name.lstrip("/")))
    return (folder / name).exists() or any(folder.glob(name))


# --- Loaded tasks -----------------------------------------------------------------------------------------------------


def _check(name: str, task: Any, continues: bool) -> None:
    """Raises ConfigError if a task needs answers that this model cannot give."""
    if getattr(task, "MULTIMODAL", False):
        raise ConfigError(f"{name}: asks about images or sound, and the model reads text")
    if getattr(task, "UNSAFE_CODE", False):
        raise ConfigError(f"{name}: runs the programs that the model writes, which {OPTION} does not")
    if task.OUTPUT_TYPE == DOCUMENTS and not continues:
        raise ConfigError(f"{name}: asks for the likelihood of documents, and the model predicts targets from sources")
    metrics = getattr(task, "_metric_fn_list", {})
    if unknown := [metric for metric, function in metrics.items() if function is None]:
        raise ConfigError(f"{name}: metric {unknown[0]!r}: is neither lm_eval's nor one that is on this machine")
    if task.OUTPUT_TYPE == TEXTS:
        try:
            generated("", task.get_config("generation_kwargs") or {})
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None


def _set_few_shot(name: str, task: Any, few_shot: int | None, notes: list[str]) -> None:
    """Sets the number of examples by lm_eval's rule: a 0 in the YAML file is kept, since examples may be part of the
    prompt."""
    fixed = task.get_config("num_fewshot")
    if fixed is None or few_shot is not None:
        if fixed == 0 and few_shot:
            notes.append(f"{name}: 0 examples, which its YAML fixes, rather than {few_shot}")
        else:
            task.set_config(key="num_fewshot", value=few_shot or 0)
    task.set_fewshot_seed(seed=SEED)


SEED = 1234  # seed of few-shot examples; lm_eval's default
