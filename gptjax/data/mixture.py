"""Several prepared folders as one: 'data/web=0.7,data/code=0.3'."""

from __future__ import annotations

import math
import os
from pathlib import Path

from gptjax.config import ConfigError
from gptjax.files.paths import local_path

SYNTAX = "a folder, 'folder,folder' or 'folder=weight,folder=weight'"


def parse_mixture(path: str) -> list[tuple[str, float | None]]:
    """(folder, weight) of each part of `data.path`. Without weights, folders are weighted by size, as if they were one
    folder.

    Weights are relative shares of the windows drawn. A path that names an existing folder is that folder.

    Raises:
      ConfigError: the path is empty, a weight is not a positive number, or only some parts have one.
    """
    if not path.strip():
        raise ConfigError("data.path = '': name a folder that python -m gptjax.prepare made")
    if Path(os.path.expanduser(path)).is_dir():
        return [(str(local_path(path, "data.path")), None)]
    parts = [_parse_part(part.strip(), path) for part in path.split(",")]
    weighted = [weight is not None for _, weight in parts]
    if any(weighted) and not all(weighted):
        bare = parts[weighted.index(False)][0]
        raise ConfigError(f"data.path = {path!r}: {bare!r} has no weight, but others have; allowed: {SYNTAX}")
    folders = [folder for folder, _ in parts]
    if len(set(folders)) < len(folders):
        raise ConfigError(f"data.path = {path!r}: names a folder twice")
    return parts


def _parse_part(part: str, path: str) -> tuple[str, float | None]:
    folder, equals, text = part.rpartition("=") if "=" in part else (part, "", "")
    if not folder:
        raise ConfigError(f"data.path = {path!r}: a part does not name a folder; allowed: {SYNTAX}")
    folder = str(local_path(folder, "data.path"))
    if not equals:
        return folder, None
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise ConfigError(f"data.path = {path!r}: weight {text!r} of {folder!r} is not a positive number")
    return folder, weight
