"""Paths as people type them: `~` is their home, and what cannot be saved to is refused before anything is computed.

  local_path(text, "--workdir")       of what is read: expanded; an address of an object store is none
  existing_run(text, "--workdir")     of a run to read: it must have been started
  run_folder(text, "--workdir")       of what a run or a sweep is saved to: also one that checkpoints survive in
  output_folder(text, "--output")     of any other folder that will be made
  output_file(text, "--json")         likewise of one file

The second argument is what the user wrote it for, a flag or a field; messages begin with it. All raise ConfigError.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from gptjax.config import ConfigError

CONFIG = "config.json"  # of a run: its settings, written when it starts
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# What Orbax cannot save to and find again: patterns, Windows' separator, "gs:" and the like, names that are no UTF-8.
_NOT_IN_RUNS = re.compile(r"[\[*?\\\ud800-\udfff]|:(?=/|$)")
# By what a folder is known that is something else; a run in it would spoil it.
_OTHER_FOLDERS = {"manifest.json": "a folder of prepared data", ".git": "a git working tree"}


def is_address(text: str) -> bool:
    """Whether it names something elsewhere: gs://…, https://…"""
    return _ADDRESS.match(text) is not None


def local_path(text: str | Path, name: str) -> Path:
    """The path with `~` expanded; it need not exist."""
    text = str(text)
    if not text.strip():
        raise ConfigError(f"{name} = {text!r}: must name a path ('.' is the current folder)")
    if is_address(text):
        raise ConfigError(
            f"{name} = {text}: must be a path on this machine or on a file system that is mounted here; only the "
            "sources of python -m gptjax.prepare may be addresses"
        )
    if _CONTROL.search(text):
        raise ConfigError(f"{name} = {text!r}: must not contain control characters")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~") and not os.path.exists(expanded):
        user = expanded.partition("/")[0]
        raise ConfigError(f"{name} = {text}: there is no user {user[1:]!r}; write ./{text} for a folder of that name")
    return Path(expanded)


def existing_run(text: str | Path, name: str) -> Path:
    """The folder of a run that was started, whether or not it has got to a checkpoint."""
    folder = local_path(text, name)
    if not folder.is_dir():
        what = "it is a file, not a folder" if folder.exists() else "there is no such folder"
        raise ConfigError(f"{name} = {text}: must be the folder of a run; {what}")
    if not (folder / CONFIG).exists():
        raise ConfigError(f"{name} = {text}: must be the folder of a run; this folder is none, it has no {CONFIG}")
    return folder


def run_folder(text: str | Path, name: str) -> Path:
    """A folder, made or to be made, that checkpoints can be saved to and found in again."""
    folder = output_folder(text, name)
    if found := _NOT_IN_RUNS.search(str(folder.absolute())):
        what = "a folder that ends in ':'" if found[0] == ":" else repr(found[0])
        raise ConfigError(f"{name} = {text}: must not contain {what} (it is in {folder.absolute()})")
    for file, kind in _OTHER_FOLDERS.items():
        if (folder / file).exists():
            raise ConfigError(f"{name} = {text}: is {kind} (it holds {file}); choose a folder of the run's own")
    return folder


def output_folder(text: str | Path, name: str) -> Path:
    """A folder, made or to be made, that files can be written to."""
    folder = local_path(text, name)
    if "\\" in str(folder.absolute()) and os.sep == "/":
        raise ConfigError(f"{name} = {text}: must not contain a backslash; folders are separated by / here")
    _check_writable(folder, name)
    return folder


def output_file(text: str | Path, name: str) -> Path:
    """A file that can be written, or written anew; its folder must be there."""
    path = local_path(text, name)
    if path.is_dir():
        raise ConfigError(f"{name} = {text}: must be a file, there is a folder of that name")
    if not path.parent.is_dir():
        raise ConfigError(f"{name} = {text}: must be in a folder that exists, there is no {path.parent}")
    _check_writable(path if path.exists() else path.parent, name, folder=not path.exists())
    return path


def _check_writable(path: Path, name: str, folder: bool = True) -> None:
    """Asks of the path, or of the nearest one above that exists. folder: whether it must be one."""
    nearest = path.absolute()
    while True:
        try:
            os.stat(nearest)
            break
        except FileNotFoundError:
            if os.path.islink(nearest):
                raise ConfigError(f"{name} = {path}: {nearest} is a link that leads nowhere") from None
            nearest = nearest.parent
        except NotADirectoryError:
            nearest = nearest.parent
        except (OSError, ValueError) as error:  # too long a name, links in a circle, a folder that may not be entered
            raise ConfigError(f"{name} = {path}: cannot be written to ({error})") from None
    if folder and not nearest.is_dir():
        raise ConfigError(f"{name} = {path}: must be a folder, there is a file of that name ({nearest})")
    if not os.access(nearest, os.W_OK | (os.X_OK if folder else 0)):
        raise ConfigError(f"{name} = {path}: cannot be written to (no permission to write in {nearest})")
