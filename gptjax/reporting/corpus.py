"""The data that a run was trained on: the manifests of its prepared folders, if these are still there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gptjax.config import ConfigError
from gptjax.data.mixture import parse_mixture
from gptjax.data.prepared import read_manifest, split_files
from gptjax.reporting.document import plain


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A prepared folder of a run.

    Attributes:
      name: of the folder.
      weight: its share of the windows that are drawn; None: by size.
      manifest: None: the folder is gone or damaged.
      problem: why the manifest is None, or that the folder has changed since; '' if all is well.
      recorded: what the checkpoint says of the folder: tokens and hashes of its files. None: no checkpoint says so.
    """

    name: str
    weight: float | None
    manifest: Mapping[str, Any] | None
    problem: str
    recorded: Mapping[str, Any] | None


def read_corpora(path: str, fingerprint: Mapping[str, Any] | None) -> tuple[Corpus, ...]:
    """The folders of `data.path`. fingerprint: of the data, as a checkpoint records it."""
    try:
        parts = parse_mixture(path)
    except ConfigError:
        return ()
    sources = (fingerprint or {}).get("sources")
    recorded = [one for one in sources if isinstance(one, dict)] if isinstance(sources, list) else []
    return tuple(_read(Path(folder), weight, recorded, len(parts)) for folder, weight in parts)


def _read(folder: Path, weight: float | None, recorded: Sequence[Mapping[str, Any]], parts: int) -> Corpus:
    only = recorded[0] if parts == 1 == len(recorded) else None
    try:
        manifest = read_manifest(folder)
    except (ConfigError, OSError):
        problem = "is not here any more" if not folder.is_dir() else "has no manifest that can be read"
        return Corpus(folder.name, weight, None, f"The prepared folder {folder.name} {problem}.", only)
    hashes = _hashes(split_files(manifest, "train")) if "train" in manifest["splits"] else []
    same = next((one for one in recorded if _hashes(one.get("files", [])) == hashes), None)
    problem = ""
    if recorded and same is None:
        problem = (
            f"The prepared folder {folder.name} has changed since the run was trained: its files have other hashes. "
            "What follows describes the folder as it is now."
        )
    return Corpus(folder.name, weight, manifest, problem, same or only)


def _hashes(files: Any) -> list[str]:
    return [str(file.get("hash")) for file in files if isinstance(file, dict)] if isinstance(files, list) else []


def source_name(source: Mapping[str, Any]) -> str:
    """The name of a source in a manifest. `prepare --input=PATH` calls every source 'input': then its path's last
    name."""
    name, path = str(source.get("name", "")), str(source.get("path", ""))
    return plain(path.rstrip("/").rpartition("/")[2] if name == "input" and path else name)
