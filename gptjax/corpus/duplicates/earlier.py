"""Finished corpora to compare a new one with: their sketches are reused, and their text verifies candidates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gptjax.config import ConfigError
from gptjax.corpus.manifest import WORK
from gptjax.data.prepared import MANIFEST, read_manifest
from gptjax.paths import local_path


def earlier_inputs(folders: Sequence[str], sketch: dict) -> dict[str, list]:
    """What stages/copies.py takes of prepared folders: shards ([documents, sketches] each) and clusters, as entries of
    files with absolute paths. sketch: the options of the new corpus's.

    Documents that a rule or an evaluation set put out of an earlier corpus stand for its copies all the same.

    Raises:
      ConfigError: a folder was prepared without a search for copies, or with another sketch, or its work is gone.
    """
    found: dict[str, list] = {"shards": [], "clusters": []}
    for name in folders:
        folder = local_path(name, "duplicates.earlier").absolute()
        if not (folder / MANIFEST).is_file():
            raise ConfigError(f"duplicates.earlier: {name!r} is not a prepared folder")
        manifest = read_manifest(folder)
        copies = manifest.get("copies")
        if not copies:
            raise ConfigError(f"duplicates.earlier: {name} was prepared with duplicates.kind = 'none'")
        if (made := manifest["stages"]["sketch"]["options"]) != sketch:
            different = ", ".join(
                f"{field} {made.get(field)!r}" for field in sketch if made.get(field) != sketch[field]
            )
            raise ConfigError(f"duplicates.earlier: {name} was prepared with {different}, this corpus uses {sketch}")
        for pair in copies["sketched"]:
            found["shards"].append([_absolute(folder / WORK, entry) for entry in pair])
        found["clusters"].append(_absolute(folder / WORK, copies["file"]))
    return found


def _absolute(work: Path, entry: dict) -> dict:
    path = work / entry["name"]
    if not path.is_file() or path.stat().st_size != entry["size"]:
        raise ConfigError(
            f"duplicates.earlier: {path} is missing or has changed: earlier corpora must keep their folder {WORK}/"
        )
    return {**entry, "name": str(path)}
