"""The libraries that decide what a task writes: their versions are among its inputs, so that an upgrade reruns it.

  {"source": …, "pieces": …, "libraries": {"trafilatura": "2.3.0", "lxml": "6.1.1", "resiliparse": "0.15.2"}}

Libraries are listed if their next version may write something else: extractors, detectors, tokenizers, readers of
formats. Not listed are those that are exact in any version: decompression, hashing, NumPy, SciPy, our Parquet files.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gptjax.config import ConfigError


@functools.cache
def installed(name: str) -> str | None:
    """The version of a library; None if it is not installed, which may also decide what is written."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def versions_of(names: Iterable[str]) -> dict[str, str | None]:
    return {name: installed(name) for name in sorted(set(names))}


def changes(made_by: Mapping[str, str | None]) -> str:
    """A text on the libraries that have another version here, with both versions; '' if there are none."""
    return ", ".join(
        f"{name} {_version_text(there)} (here {_version_text(here)})"
        for name, there in made_by.items()
        if (here := installed(name)) != there
    )


def check_same_here(inputs: Any) -> None:
    """Raises ConfigError on a worker whose library versions differ from those that its task was planned with."""
    made_by = inputs.get("libraries", {}) if isinstance(inputs, Mapping) else {}
    if different := changes(made_by):
        raise ConfigError(f"a worker has other libraries than the command that it works for: there {different}")


def _version_text(found: str | None) -> str:
    return "not installed" if found is None else found
