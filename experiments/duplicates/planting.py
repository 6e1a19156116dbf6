"""Makes a corpus with planted copies: python experiments/duplicates/planting.py --texts=FOLDER,FOLDER --work=FOLDER

Texts are cut into documents of 300 to 3,000 words. Added to them are near duplicates of 8,000 (with words replaced,
paragraphs left out, cut short, or wrapped in other text), 1,000 exact copies and 300 near duplicates of one document.
Writes 16 Parquet shards and truth.npz: the planted pairs with their Jaccard similarities over sets of five-word
shingles, computed with Python sets and regular expressions.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from absl import app, flags
from oracle import WORD, similarity

from gptjax.corpus.documents import DocumentWriter, document_id

TEXTS = flags.DEFINE_list("texts", None, "Folders with text: books, articles, source code.", required=True)
WORK = flags.DEFINE_string("work", None, "The folder to write the corpus to.", required=True)
SUFFIXES = (".py", ".md", ".txt", ".rst", ".tex")
SHARDS, NEAR, EXACT, HOT = 16, 8000, 1000, 300


def documents(folders: list[str], rng: np.random.Generator) -> Iterator[str]:
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and (path.suffix in SUFFIXES or path.name.startswith("wiki_")):
                try:
                    yield from cut(path.read_text(encoding="utf-8"), rng)
                except UnicodeDecodeError:
                    continue


def cut(text: str, rng: np.random.Generator) -> Iterator[str]:
    """Splits `text` at line ends into pieces of 300 to 3,000 words; a shorter rest is left out."""
    lines, words, wanted = [], 0, rng.integers(300, 3000)
    for line in text.splitlines(keepends=True):
        lines.append(line)
        words += len(line.split())
        if words >= wanted:
            yield "".join(lines)
            lines, words, wanted = [], 0, rng.integers(300, 3000)
    if words >= 300:
        yield "".join(lines)


def near_copy(text: str, rng: np.random.Generator) -> str:
    kind, share = rng.integers(4), rng.uniform(0.05, 0.4)
    if kind == 0:
        rate = rng.uniform(0.0025, 0.06)
        return WORD.sub(lambda match: f"w{rng.integers(1 << 30)}" if rng.random() < rate else match[0], text)
    if kind == 1:
        return text[: int(len(text) * (1 - share))]
    lines = text.splitlines(keepends=True)
    if kind == 2:
        first = int(len(lines) * rng.uniform(0, 1 - share))
        return "".join(lines[:first] + lines[first + int(len(lines) * share) :])
    extra = " ".join(f"extra{rng.integers(1 << 30)}" for _ in range(int(len(text.split()) * share / 2)))
    return f"{extra}\n{text}\n{extra[::-1]}"


def main(_) -> None:
    rng, work = np.random.default_rng(0), Path(WORK.value)
    texts = list(documents(TEXTS.value, rng))
    originals = rng.choice(len(texts), NEAR + EXACT + 1, replace=False)
    pairs = []
    for number, original in enumerate([*originals, *[originals[-1]] * (HOT - 1)]):
        copy = texts[original] if NEAR <= number < NEAR + EXACT else near_copy(texts[original], rng)
        pairs.append((original, len(texts)))
        texts.append(copy)
    with ProcessPoolExecutor() as executor:
        jaccard = list(executor.map(similarity, [(texts[i], texts[j]) for i, j in pairs], chunksize=100))
    place = rng.permutation(len(texts))  # where each text goes
    work.mkdir(parents=True, exist_ok=True)
    np.savez(work / "truth.npz", pairs=place[np.array(pairs)], jaccard=jaccard)
    shuffled = np.argsort(place)
    for shard, numbers in enumerate(np.array_split(np.arange(len(texts)), SHARDS)):
        with DocumentWriter(work / f"part-{shard:05d}.parquet") as writer:
            for number in numbers.tolist():
                text, uri = texts[shuffled[number]], str(number)
                common = {"parent_id": 0, "source": "planted", "license": "", "language": ""}
                writer.append([{"id": document_id("planted", uri, text), "uri": uri, "text": text, **common}])
    size = sum(len(text.encode()) for text in texts)
    print(f"{len(texts)} documents, {size / 1e6:.0f} MB; {np.sum(np.array(jaccard) >= 0.8)} planted pairs of J ≥ 0.8")


if __name__ == "__main__":
    app.run(main)
