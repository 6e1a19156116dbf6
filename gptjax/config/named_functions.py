"""A user's own functions, which a config names as 'module:function'.

As in config files (user_code.py), any error in such code becomes a `ConfigError` that names the line of the user's
file.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import platform
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from gptjax.config.access import suggestion
from gptjax.config.user_code import is_same_file, search_in
from gptjax.errors import ConfigError


def is_named(text: str) -> bool:
    """Whether a value such as that of `optimizer.name` names a user's function as 'module:function'."""
    return ":" in text


def named_function(field: str, text: str, takes: int | tuple[int, ...] | None = None) -> Callable:
    """Imports the function that 'module:function' names. The module may also be a file in the current folder.

    Only functions and classes that the module itself defines are accepted, so that a config cannot name others.

    Args:
      field: the config field, for messages.
      takes: how many positional arguments the function must take, or several such numbers; None: not checked.

    Raises:
      ConfigError: the module or function does not exist, the module fails, or the function takes other arguments.
    """
    setting = f"{field} = {text!r}"
    module_name, _, name = text.partition(":")
    if not (all(part.isidentifier() for part in module_name.split(".")) and name.isidentifier()):
        raise ConfigError(f"{setting}: expected 'module:function', such as 'my_ideas:make'")
    search_in(current := Path.cwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"{setting}: there is no module {module_name} in {current} or among those installed"
            ) from None
        raise ConfigError(f"{setting}: {_place(error, module_name)}: {error}") from error
    except SyntaxError as error:
        raise ConfigError(f"{setting}: {error.filename}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{setting}: {_place(error, module_name)}: {type(error).__name__}: {error}") from error
    _hash_of(module)  # cached now, while the file is still as imported
    function = getattr(module, name, None)
    its_own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module_name]
    if not callable(function) or getattr(function, "__module__", None) != module_name:
        raise ConfigError(f"{setting}: {module_name} defines no function {name}{suggestion(name, its_own)}")
    if takes is not None:
        allowed = (takes,) if isinstance(takes, int) else takes
        try:
            number = num_arguments(function)
        except ValueError:  # a function that is not written in Python
            raise ConfigError(f"{setting}: {name} does not say which arguments it takes") from None
        if number not in allowed:
            raise ConfigError(
                f"{setting}: {name}{inspect.signature(function)} must take {' or '.join(map(str, allowed))} "
                f"argument{'s' if allowed != (1,) else ''}, which GUIDE.md describes ('Your own ideas')"
            )
    return function


def code_hash(text: str) -> str | None:
    """Returns a hash of the file that defines 'module:function', as it was when this process imported it.

    Other modules that it imports are not included. A module without a file, such as a builtin one, is identified by a
    version. Returns None if this process has not imported the module.
    """
    module = sys.modules.get(text.partition(":")[0])
    return None if module is None else _hash_of(module)


@functools.cache
def _hash_of(module: ModuleType) -> str:
    try:
        loader: Any = module.__loader__
        return hashlib.sha256(loader.get_data(module.__file__)).hexdigest()[:16]  # also from a zip archive
    except (AttributeError, OSError, TypeError):
        if module.__name__ in sys.builtin_module_names:
            return f"Python {platform.python_version()}"
        return str(getattr(module, "__version__", "unknown"))


def num_arguments(function: Callable) -> int:
    """Returns how many positional arguments without a default a function has."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return sum(parameter.kind in kinds and parameter.default is inspect.Parameter.empty for parameter in parameters)


def called(field: str, text: str, call: Callable[[], Any]) -> Any:
    """Returns `call()`, which calls the function that `text` names in `field`.

    Raises:
      ConfigError: the function fails; the message names the field and the line.
      MemoryError: as the function raised it.
    """
    try:
        return call()
    except (ConfigError, MemoryError):
        raise
    except Exception as error:
        place = _place(error, text.partition(":")[0])
        raise ConfigError(f"{field} = {text!r}: {place}: {type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _place(error: BaseException, module_name: str) -> str:
    """Returns 'FILE, line N' for the last line of the module that an error passed through, or else of another file."""
    file = getattr(sys.modules.get(module_name), "__file__", None) or f"{module_name.replace('.', '/')}.py"
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [place for place in frames if is_same_file(place[0], file)] or frames[-1:]
    return f"{own[-1][0]}, line {own[-1][1]}"
