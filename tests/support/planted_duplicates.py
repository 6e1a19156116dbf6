"""Documents with known near duplicates, their similarities by brute force, and shards of them, for several tests."""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import xxhash


def words(text: str) -> list[str]:
    """The words of a text, found character by character: the slow reference."""
    found, inside = [], False
    for character in text:
        name = unicodedata.name(character, "")
        single = name.startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI", "LAO")) and (
            character.isalnum() or unicodedata.category(character)[0] == "M"
        )
        joins = character.isalnum() or character == "_" or unicodedata.category(character)[0] == "M"
        if single or (joins and not inside):
            found.append("")
        if joins:
            found[-1] += character.casefold() if len(character.casefold()) == 1 else character.lower()
        inside = joins and not single
    return found


def shingle_set(text: str, n: int = 5) -> set[tuple[str, ...]]:
    units = words(text)
    return {tuple(units[i : i + n]) for i in range(len(units) - n + 1)}


def similarity(a: str, b: str, n: int = 5) -> float:
    first, second = shingle_set(a, n), shingle_set(b, n)
    return len(first & second) / max(len(first | second), 1)


def pair_similarities(texts: list[str], n: int = 5) -> np.ndarray:
    sets = [shingle_set(text, n) for text in texts]
    found = np.eye(len(texts))
    for i, j in itertools.combinations(range(len(texts)), 2):
        found[i, j] = found[j, i] = len(sets[i] & sets[j]) / max(len(sets[i] | sets[j]), 1)
    return found


def prose(rng: np.random.Generator, length: int) -> list[str]:
    return [f"word{number}" for number in rng.integers(0, 5000, length)]


def near_copy(rng: np.random.Generator, original: list[str], changes: int) -> list[str]:
    """Replaces some words with new ones; each changes up to five shingles."""
    changed = list(original)
    for place in rng.choice(len(original), changes, replace=False):
        changed[place] = f"new{rng.integers(1 << 30)}"
    return changed


def planted(seed: int = 0, families: int = 25, alone: int = 50) -> list[str]:
    """Families of an original, near duplicates from J = 0.95 down to 0.4 and an exact copy, and single documents."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(prose(rng, rng.integers(100, 300))) for _ in range(alone)]
    for family in range(families):
        original = prose(rng, rng.integers(100, 300))
        copies = [near_copy(rng, original, changes) for changes in (1, 2, 6, 12)[: family % 5]]
        texts += [" ".join(original), *(" ".join(copy) for copy in copies), "\n".join(original)]
    return [texts[place] for place in rng.permutation(len(texts))]


def rows(texts: list[str], source: str = "web") -> list[dict]:
    return [
        {"id": xxhash.xxh3_64_intdigest(f"{source} {number} {text}".encode()), "source": source, "text": text}
        for number, text in enumerate(texts)
    ]


def write_shards(folder: Path, documents: list[dict], sizes: list[int], row_group: int = 16) -> list[Path]:
    """Writes Parquet shards of the given numbers of documents; the last one gets the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    schema = pyarrow.schema([("id", pyarrow.uint64()), ("source", pyarrow.string()), ("text", pyarrow.large_string())])
    cuts = [0, *np.cumsum(sizes).tolist(), len(documents)]
    paths = []
    for number, (start, end) in enumerate(itertools.pairwise(cuts)):
        paths.append(folder / f"part-{number:05d}.parquet")
        table = pyarrow.Table.from_pylist(documents[start:end], schema=schema)
        pyarrow.parquet.write_table(table, paths[-1], row_group_size=row_group)
    return paths
