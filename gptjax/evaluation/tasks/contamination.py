"""Which items of a task the model's training text contains, as found when the corpus was prepared.

`python -m gptjax.prepare` compares the corpus with the evaluation sets of its config (contamination.sets), and writes
for each item how many of its n-grams are in the documents that were kept. This module looks the items up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gptjax.data.prepared import read_manifest
from gptjax.errors import ConfigError
from gptjax.evaluation.tasks.kinds import Item
from gptjax.files import file_hash

WORK = "work"  # the folder in a prepared folder where the list of items is


@dataclass(frozen=True)
class TrainingText:
    """What is known about a model's training text.

    Attributes:
      sets: the evaluation sets that it was compared with.
      shared: set → item's id → number of its n-grams that the training text contains.
      ngram: the number of words in an n-gram.
      notes: files that could not be read.
      too_short: set → the number of its items that have no text long enough to be searched for. They count as clean.
    """

    sets: frozenset[str] = frozenset()
    shared: dict[str, dict[str, int]] | None = None
    ngram: int = 0
    notes: tuple[str, ...] = ()
    too_short: dict[str, int] = field(default_factory=dict)

    def shared_by(self, name: str, item: Item) -> int:
        """The number of n-grams of the item that the training text contains."""
        known = (self.shared or {}).get(name, {})
        return max((known.get(each, 0) for each in item.known_as), default=0)


def of_folders(folders: Sequence[str | Path]) -> TrainingText:
    """Reads the manifests of prepared folders. A set counts as compared if every folder was compared with it.

    Folders that no longer exist are named in the notes.
    """
    shared: dict[str, dict[str, int]] = {}
    compared: list[frozenset[str]] = []
    too_short: dict[str, int] = {}
    ngrams: list[int] = []
    notes: list[str] = []
    for folder in map(Path, folders):
        try:
            section = read_manifest(folder).get("contamination")
        except ConfigError as error:
            notes.append(f"contamination is unknown: {error}")
            compared.append(frozenset())
            continue
        if not section:
            compared.append(frozenset())
            continue
        path = folder / WORK / section["items"]["name"]
        if not path.is_file() or file_hash(path) != section["items"]["hash"]:
            notes.append(f"contamination is unknown: {path} is missing or was changed")
            compared.append(frozenset())
            continue
        compared.append(frozenset(section["sets"]))
        ngrams.append(section["ngram"])
        for name, of_set in section["sets"].items():
            too_short[name] = max(too_short.get(name, 0), of_set.get("too_short", 0))
        for row in _rows(path):
            items = shared.setdefault(row["set"], {})
            items[row["item"]] = max(items.get(row["item"], 0), row["left"])
    sets = frozenset.intersection(*compared) if compared else frozenset()
    return TrainingText(sets, shared, max(ngrams, default=0), tuple(notes), too_short)


def _rows(path: Path) -> list[dict]:
    try:
        return pq.read_table(path, columns=["set", "item", "left"]).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
