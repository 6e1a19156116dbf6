"""Runs Python files that the user wrote: configs, sweeps and roads. named_functions.py has single functions.

Such code may contain mistakes. Any error in it becomes a `ConfigError` that names the line of the user's file, never a
line of a library that the file called.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import linecache
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ml_collections import ConfigDict

import gptjax
from gptjax.config.access import default, suggestion
from gptjax.errors import ConfigError


def path_and_argument(text: str) -> tuple[str, str | None]:
    """'configs/gpt2.py:124m' → ('configs/gpt2.py', '124m'), or None without an argument. `~` is expanded."""
    path, colon, argument = text.partition(".py:")
    path = os.path.expanduser(f"{path}.py" if colon else path)
    return path, argument if colon else None


def load_config(text: str, fields: Callable[[], ConfigDict] = default) -> ConfigDict:
    """Returns the config that `get_config` of 'FILE.py' or 'FILE.py:argument' returns.

    Args:
      fields: makes a config that has every field, for the suggestions in messages.

    Raises:
      ConfigError: the file does not exist, or its `get_config` fails or does not return a config.
    """
    return call_in_file(text, "get_config", ConfigDict, fields)


def call_in_file(
    text: str,
    function: str,
    returns: type,
    fields: Callable[[], ConfigDict] = default,
    keywords: Mapping[str, Any] | None = None,
) -> Any:
    """Calls a function of the file in 'FILE.py' or 'FILE.py:argument', with the argument if there is one. The file may
    import others in its folder.

    Args:
      keywords: further arguments of the function, by name.

    Raises:
      ConfigError: the file or the function does not exist, or the function does not take the argument, fails, exits, or
        does not return a `returns`.
    """
    path, argument = path_and_argument(text)
    given = [] if argument is None else [argument]
    try:
        if not Path(path).is_file():
            raise ConfigError(_no_such_file(path, argument))
        if Path(path).suffix != ".py":
            raise ConfigError(f"{path}: must be a Python file, whose name ends in .py{_in_a_run(Path(path).parent)}")
        search_in(Path(path).parent)
        names = runpy.run_path(path)
        if not callable(called := names.get(function)):
            raise ConfigError(f"{path}: must define {function}(){suggestion(function, names)}")
        _check_argument(path, function, called, argument, keywords or {})
        result = called(*given, **(keywords or {}))
    except KeyboardInterrupt:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(_what_went_wrong(error, path, argument, fields)) from error
    if result is None:
        raise ConfigError(f"{path}: {function}() returned nothing; is 'return' missing at its end?")
    if not isinstance(result, returns):
        raise ConfigError(f"{path}: {function}() must return a {returns.__name__}, not a {type(result).__name__}")
    return result


def search_in(folder: Path) -> None:
    """Lets the user's files import modules of this folder. An installed command does not search it by default."""
    if (name := str(folder.absolute())) not in sys.path:
        sys.path.append(name)


def _no_such_file(path: str, argument: str | None) -> str:
    """Reports that the Python file does not exist, and suggests a similar one in its folder or in the project's
    configs."""
    if not path.strip():
        return f"{path!r} is not a file: give a Python file, such as configs/gpt2.py:124m"
    if argument is None and ":" in Path(path).name:  # gpt2:124m without .py
        path, _, argument = path.rpartition(":")
    here, configs = Path(path), Path(gptjax.__file__).parents[1] / "configs"
    beside = sorted(here.glob("*.py")) if here.is_dir() else sorted(here.parent.glob("*.py"))
    project = sorted((Path("configs") if Path("configs").is_dir() else configs).rglob("*.py"))
    by_name = {file.stem: file for file in [*project, *beside]}  # files in the same folder take precedence
    close = difflib.get_close_matches(here.name.removesuffix(".py"), by_name, n=1, cutoff=0.6)
    like = [os.path.relpath(by_name[name]) for name in close]
    like = [f"{file}:{argument}" if argument else file for file in like]
    if here.is_dir():
        problem = f"{path} is a folder, not a Python file{_in_a_run(here)}"
    else:
        problem = f"there is no file {path}"
    return problem + (f"; did you mean {like[0]}?" if like else "")


def _in_a_run(folder: Path) -> str:
    """Says how a run is continued, if the folder is that of a run; '' if it is not."""
    if not (folder / "config.json").is_file():
        return ""
    return f"; the run continues with the config file of its first start and --workdir={folder}"


def _check_argument(
    path: str, name: str, function: Callable, argument: str | None, keywords: Mapping[str, Any]
) -> None:
    """Raises ConfigError if the function cannot be called with the argument, or without one, and with the keywords."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a callable without a signature
        return
    try:
        signature.bind_partial(**keywords)
    except TypeError:
        raise ConfigError(f"{path}: {name}{signature} must take the keywords {', '.join(keywords)}") from None
    try:
        signature.bind(*([] if argument is None else [argument]), **keywords)
    except TypeError:
        if argument is not None:
            raise ConfigError(
                f"{path}:{argument}: {name}{signature} takes no argument, so nothing can stand after the colon"
            ) from None
        raise ConfigError(f"{path}: {name}{signature} needs an argument, as in {path}:ARGUMENT") from None


def _what_went_wrong(error: BaseException, path: str, argument: str | None, fields: Callable[[], ConfigDict]) -> str:
    """Describes an error in a user's file in one sentence, with the line of that file."""
    if isinstance(error, SyntaxError) and is_same_file(error.filename, path):
        source = " ".join((error.text or "").split())
        return f"{path}, line {error.lineno}: {error.msg}" + (f", in {source!r}" if source else "")
    frames = list(traceback.walk_tb(error.__traceback__))
    line = next((line for frame, line in reversed(frames) if is_same_file(frame.f_code.co_filename, path)), None)
    place = path if line is None else f"{path}, line {line}"
    if isinstance(error, ConfigError):
        own = line is None or is_same_file(frames[-1][0].f_code.co_filename, path)
        return str(error) if own else f"{place}: {error}"  # an error that the file itself raised needs no line
    if isinstance(error, SystemExit):
        return f"{place}: it ends the program with exit status {error.code!r}, but should return"
    of_field = _wrong_field(error.__traceback__, fields)
    if of_field:
        return f"{place}: {of_field}"
    if isinstance(error, KeyError) and (known := _looked_up_in(error, path)):
        return f"{place}: {error}: expected one of {', '.join(known)}{suggestion(str(error.args[0]), known)}"
    given = "" if argument is None else f" (its argument is {argument!r})"
    return f"{place}: {type(error).__name__}: {error}{given}"


def is_same_file(one: str | None, other: str) -> bool:
    return one is not None and (one == other or Path(one).absolute() == Path(other).absolute())


def _wrong_field(trace: TracebackType | None, fields: Callable[[], ConfigDict]) -> str | None:
    """Explains an error that reading or setting a field of a ConfigDict raised; None for other errors."""
    touched = None
    for frame, _ in traceback.walk_tb(trace):
        names = frame.f_locals
        if frame.f_code.co_filename == ConfigDict.__setitem__.__code__.co_filename and isinstance(
            names.get("self"), ConfigDict
        ):
            key = names.get("key", names.get("attribute"))
            touched = (names["self"], key, names.get("value")) if isinstance(key, str) else touched
    if touched is None:
        return None
    config, key, value = touched
    section = _name_of_section(config, fields())
    field = f"{section}.{key}" if section else key
    if key in config:
        return f"{field} = {value!r}: expected {type(config[key]).__name__}, got {type(value).__name__}"
    return f"unknown field {field}{suggestion(field, list(_names(fields())))}"


def _looked_up_in(error: KeyError, path: str) -> list[str]:
    """The keys of the dict in which a line of the file did not find a key: of `SIZES` in `SIZES[arg]`, or of a dict
    that is written there; [] if another expression failed, or one over several lines."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    places = traceback.extract_tb(error.__traceback__)
    if not is_same_file(places[-1].filename, path) or places[-1].lineno != places[-1].end_lineno:
        return []
    line = linecache.getline(places[-1].filename, places[-1].lineno or 0).encode()
    try:
        lookup = ast.parse(line[places[-1].colno : places[-1].end_colno], mode="eval").body
    except SyntaxError:
        return []
    looked_up = lookup.value if isinstance(lookup, ast.Subscript) else None
    if isinstance(looked_up, ast.Dict):
        return [str(key.value) for key in looked_up.keys if isinstance(key, ast.Constant)]
    names = {**frames[-1].f_globals, **frames[-1].f_locals}
    found = names.get(looked_up.id) if isinstance(looked_up, ast.Name) else None
    return list(map(str, found)) if isinstance(found, dict) else []


def _names(config: Mapping, prefix: str = "") -> Iterable[str]:
    """Yields the dotted names of all sections and fields."""
    for name, value in config.items():
        yield prefix + name
        if isinstance(value, ConfigDict):
            yield from _names(value, f"{prefix}{name}.")


def _name_of_section(section: ConfigDict, config: ConfigDict, name: str = "") -> str:
    """Returns the dotted name of the section of `config` that has the same fields as `section`, which may be a copy."""
    if set(section) == set(config):
        return name
    inner = ((key, value) for key, value in config.items() if isinstance(value, ConfigDict))
    return next(
        (found for key, value in inner if (found := _name_of_section(section, value, f"{name}.{key}"))), ""
    ).lstrip(".")
