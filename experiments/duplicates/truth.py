"""Searches two public sets whose copies are known: python experiments/duplicates/truth.py --data=FOLDER

FOLDER/articles/data/articles_*.train has one article per line (its name first), .truth the pairs that are copies (the
set of github.com/chrisjmccormick/MinHash). FOLDER/license_texts/licenses.jsonl has texts of licences of graded
similarity: the truth is the similarity of each pair, computed with Python sets.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path

import pyarrow.parquet
from absl import app, flags
from oracle import shingles

from gptjax.corpus.documents import DocumentWriter
from gptjax.corpus.duplicates.find import Search, find_duplicates
from gptjax.corpus.duplicates.nodes import SketchedShard
from gptjax.corpus.duplicates.sketch import Sketch, bands_and_rows, write_sketches

DATA = flags.DEFINE_string("data", None, "The folder with articles/ and license_texts/.", required=True)


def clusters(texts: list[str], threshold: float) -> set[frozenset[int]]:
    """Returns the clusters that the search finds, as indices of `texts`."""
    with tempfile.TemporaryDirectory() as folder:
        shard = SketchedShard(Path(folder) / "part.parquet", Path(folder) / "part.npz")
        empty = {"parent_id": 0, "source": "", "uri": "", "license": "", "language": ""}
        with DocumentWriter(shard.documents) as writer:
            writer.append([{"id": number, "text": text, **empty} for number, text in enumerate(texts)])
        bands, rows = bands_and_rows(threshold)
        write_sketches(shard.documents, shard.sketches, Sketch(bands=bands, rows=rows))
        find_duplicates([shard], Path(folder), Search(threshold=threshold))
        rows = pyarrow.parquet.read_table(Path(folder) / "clusters.parquet").to_pylist()
    found: dict[int, set[int]] = {}
    for row in rows:
        found.setdefault(row["representative"], set()).add(row["id"])
    return {frozenset(members) for members in found.values()}


def true_clusters(texts: list[str], threshold: float) -> set[frozenset[int]]:
    sets, cluster = [shingles(text) for text in texts], [{number} for number in range(len(texts))]
    plain = ["".join(text.split()) for text in texts]
    for i, j in itertools.combinations(range(len(texts)), 2):
        union = len(sets[i] | sets[j])
        if plain[i] == plain[j] or (union and len(sets[i] & sets[j]) / union >= threshold):
            cluster[i] |= cluster[j]
            for member in cluster[i]:
                cluster[member] = cluster[i]
    return {frozenset(members) for members in cluster if len(members) > 1}


def main(_) -> None:
    for path in sorted(Path(DATA.value).glob("articles/data/*.train")):
        names, texts = zip(*(line.split(" ", 1) for line in path.read_text().splitlines()))
        truth = {
            frozenset(map(names.index, line.split())) for line in path.with_suffix(".truth").read_text().splitlines()
        }
        found = clusters(list(texts), 0.8)
        print(f"{path.name}: {len(truth)} true pairs, {len(truth & found)} found, {len(found - truth)} false")
    texts = [json.loads(line)["text"] for line in open(Path(DATA.value) / "license_texts/licenses.jsonl")]
    for threshold in (0.5, 0.7, 0.8, 0.9):
        truth, found = true_clusters(texts, threshold), clusters(texts, threshold)
        print(
            f"{len(texts)} licences at {threshold}: {len(truth)} clusters of {sum(map(len, truth))} texts, "
            f"{len(truth & found)} found exactly, {len(found - truth)} others"
        )


if __name__ == "__main__":
    app.run(main)
