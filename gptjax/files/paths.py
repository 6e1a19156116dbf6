"""Checks and expands the paths that users type, before anything is computed.

  local_path(text, "--workdir")       a path to read; `~` is expanded, and addresses such as s3://… are refused
  existing_run(text, "--workdir")     the folder of a run that has been started
  run_folder(text, "--workdir")       a folder to save a run or a sweep in; checkpoints can be restored from it
  output_folder(text, "--output")     any other folder to write to; it need not exist
  output_file(text, "--json")         a file to write

The second argument is the flag or field that names the path; messages begin with it. All functions raise ConfigError.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from gptjax.errors import ConfigError, setting_text

CONFIG = "config.json"  # a run's settings, written when it starts
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Orbax cannot restore from paths with these: glob patterns, backslashes, "gs:" and the like, names that are not UTF-8.
_NOT_IN_RUNS = re.compile(r"[\[*?\\\ud800-\udfff]|:(?=/|$)")
# A folder that contains one of these files has another purpose, which a run in it would spoil.
_OTHER_FOLDERS = {"manifest.json": "a folder of prepared data", ".git": "a git working tree"}


def is_address(text: str) -> bool:
    """Whether the text is an address such as gs://… or https://…"""
    return _ADDRESS.match(text) is not None


def local_path(text: str | Path, name: str) -> Path:
    """Returns the path with `~` expanded; it need not exist."""
    text = str(text)
    if not text.strip():
        raise ConfigError(f"{setting_text(name, repr(text))}: must name a path ('.' is the current folder)")
    if is_address(text):
        raise ConfigError(
            f"{setting_text(name, text)}: must be a path on this machine or on a file system that is mounted here; "
            "only the sources of python -m gptjax.prepare may be addresses"
        )
    if _CONTROL.search(text):
        raise ConfigError(f"{setting_text(name, repr(text))}: must not contain control characters")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~") and not os.path.exists(expanded):
        user = expanded.partition("/")[0]
        raise ConfigError(
            f"{setting_text(name, text)}: there is no user {user[1:]!r}; write ./{text} for a folder of that name"
        )
    return Path(expanded)


def existing_run(text: str | Path, name: str) -> Path:
    """Returns the folder of a run that has been started; it need not have a checkpoint yet."""
    folder = local_path(text, name)
    if not folder.is_dir():
        what = "it is a file, not a folder" if folder.exists() else "there is no such folder"
        raise ConfigError(f"{setting_text(name, text)}: must be the folder of a run; {what}")
    if not (folder / CONFIG).exists():
        raise ConfigError(f"{setting_text(name, text)}: must be the folder of a run; this folder has no {CONFIG}")
    return folder


def run_folder(text: str | Path, name: str) -> Path:
    """Returns a folder, existing or new, that checkpoints can be saved to and restored from."""
    folder = output_folder(text, name)
    if found := _NOT_IN_RUNS.search(str(folder.absolute())):
        what = "a folder that ends in ':'" if found[0] == ":" else repr(found[0])
        raise ConfigError(f"{setting_text(name, text)}: must not contain {what} (it is in {folder.absolute()})")
    for file, kind in _OTHER_FOLDERS.items():
        if (folder / file).exists():
            raise ConfigError(f"{setting_text(name, text)}: is {kind} (it holds {file}); choose another folder")
    return folder


def output_folder(text: str | Path, name: str) -> Path:
    """Returns a folder, existing or new, that files can be written to."""
    folder = local_path(text, name)
    if "\\" in str(folder.absolute()) and os.sep == "/":
        raise ConfigError(f"{setting_text(name, text)}: must not contain a backslash; folders are separated by / here")
    _check_writable(folder, name)
    return folder


def output_file(text: str | Path, name: str) -> Path:
    """Returns a file that can be written or replaced; its folder must exist."""
    path = local_path(text, name)
    if path.is_dir():
        raise ConfigError(f"{setting_text(name, text)}: must be a file, there is a folder of that name")
    if not path.parent.is_dir():
        raise ConfigError(f"{setting_text(name, text)}: must be in a folder that exists, there is no {path.parent}")
    _check_writable(path if path.exists() else path.parent, name, folder=not path.exists())
    return path


def _check_writable(path: Path, name: str, folder: bool = True) -> None:
    """Checks the path, or its nearest parent that exists. folder: whether the path must be a folder."""
    nearest = path.absolute()
    while True:
        try:
            os.stat(nearest)
            break
        except FileNotFoundError:
            if os.path.islink(nearest):
                raise ConfigError(f"{setting_text(name, path)}: {nearest} is a link that leads nowhere") from None
            nearest = nearest.parent
        except NotADirectoryError:
            nearest = nearest.parent
        except (OSError, ValueError) as error:  # a name that is too long, circular links, a folder without permission
            raise ConfigError(f"{setting_text(name, path)}: cannot be written to ({error})") from None
    if folder and not nearest.is_dir():
        raise ConfigError(f"{setting_text(name, path)}: must be a folder, there is a file of that name ({nearest})")
    if not os.access(nearest, os.W_OK | (os.X_OK if folder else 0)):
        raise ConfigError(f"{setting_text(name, path)}: cannot be written to (no permission to write in {nearest})")
