"""Searches Wikipedia for question sets made from it, checks every hit with Python sets, and measures the speed.

python experiments/contamination/measure.py --data=FOLDER [--repeats=3] [--oracle]: see README.md.
"""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
from absl import app, flags

from gptjax.corpus.config import evaluation
from gptjax.corpus.contamination.evaluations import listed, read_items
from gptjax.corpus.documents import Document, DocumentWriter, rows_of
from gptjax.corpus.engine import Stage, run_stage
from gptjax.corpus.engine.local import LocalProcesses
from gptjax.corpus.stages.contaminate import contaminate, index_evaluations, overlap
from gptjax.files import file_entry

DATA = flags.DEFINE_string("data", None, "The folder with text/, books/ and eval/.", required=True)
REPEATS = flags.DEFINE_integer("repeats", 3, "Timed turns, after one that is not timed.")
ORACLE = flags.DEFINE_bool("oracle", False, "Also search with Python sets (takes minutes), and compare all hits.")

N, LEAST = 13, 8
OPTIONS = {"action": "remove", "least_hits": 1}
WORD = re.compile(r"\w+")
PAGE = re.compile(r'<doc id="[^"]*" url="([^"]*)"[^>]*>\n(.*?)\n?</doc>', re.DOTALL)


def main(_) -> None:
    data = Path(DATA.value)
    sets = listed(
        [
            evaluation(name="xquad", kind="squad", path=f"{data}/eval/xquad/xquad.en.json"),
            evaluation(name="squadshifts", kind="squad", path=f"{data}/eval/squadshifts/datasets/new_wiki_v1.0.json"),
            evaluation(
                name="boolq",
                kind="jsonl",
                path=f"{data}/eval/gauntlet/reading_comprehension/boolq.jsonl",
                fields=("query",),
            ),
        ]
    )
    with tempfile.TemporaryDirectory() as folder, LocalProcesses(2) as two, LocalProcesses(1) as one:
        work = Path(folder)
        for name, documents in (("wikipedia_2014", wikipedia(data)), ("classic_books", books(data))):
            shards, size = write_shards(work, name, documents)
            for workers, executor in ((1, one), (2, two)):
                seconds = [
                    run(sets, shards, work, executor, f"{name}{workers}{turn}") for turn in range(1 + REPEATS.value)
                ]
                index, scan = (sorted(times)[len(times) // 2] for times in zip(*seconds[1:]))
                rates = [size / 1e6 / timed for _, timed in seconds[1:]]
                print(
                    f"| {name}, {workers} worker{'s' * (workers > 1)} | {size / 1e6:.1f} | {index:.2f} | {scan:.2f} | "
                    f"{statistics.median(rates):.1f} | {min(rates):.1f} | {max(rates):.1f} |",
                    flush=True,
                )
            report(sets, shards, work, two, name)
            if ORACLE.value:
                compare(sets, shards, work, name)


def wikipedia(data: Path) -> Iterator[Document]:
    for path in sorted((data / "text/wikipedia_2014").rglob("wiki_*")):
        for number, (url, text) in enumerate(PAGE.findall(path.read_text(encoding="utf-8"))):
            if text.strip():
                yield Document(text, f"{url}#{number}")


def books(data: Path) -> Iterator[Document]:
    for path in sorted((data / "books/classic_books").rglob("*.md")):
        yield Document(path.read_text(encoding="utf-8", errors="replace"), path.name)


def write_shards(work: Path, name: str, documents: Iterator[Document]) -> tuple[list[dict], int]:
    """Returns the stage's inputs (four shards, without an index) and the bytes of text."""
    writers = [DocumentWriter(work / f"{name}-{number}.parquet") for number in range(4)]
    for document in documents:
        min(writers, key=lambda writer: writer.bytes).append(rows_of(name, document, 4_000_000, Counter()))
    shards = []
    for number, writer in enumerate(writers):
        writer.close()
        shards.append({"documents": file_entry(work / f"{name}-{number}.parquet"), "verdicts": []})
    return shards, sum(writer.bytes for writer in writers)


def run(sets: list[dict], shards: list[dict], work: Path, executor, turn: str) -> tuple[float, float]:
    """Returns the seconds to build the index and to search all shards; a new `turn` prevents reuse of results."""
    started = time.perf_counter()
    index = make_index(sets, work, executor, turn)
    indexed = time.perf_counter()
    search(shards, index, work, executor, turn)
    return indexed - started, time.perf_counter() - indexed


def make_index(sets: list[dict], work: Path, executor, turn: str) -> dict:
    stage = Stage("evaluations", index_evaluations, options={"ngram": N, "least_words": LEAST, "turn": turn})
    return run_stage(stage, [{"sets": sets}], work, executor)[0]["files"]["index.npz"]


def search(shards: list[dict], index: dict, work: Path, executor, turn: str) -> list[dict]:
    stage = Stage("contaminate", contaminate, options={**OPTIONS, "turn": turn})
    return run_stage(stage, [{**shard, "index": index} for shard in shards], work, executor)


def report(sets: list[dict], shards: list[dict], work: Path, executor, name: str) -> None:
    index = make_index(sets, work, executor, "report")
    results = search(shards, index, work, executor, f"report {name}")
    found = [[result["files"][file] for file in ("hits.parquet", "grams.npz")] for result in results]
    (outcome,) = run_stage(Stage("overlap", overlap), [{"index": index, "shards": found}], work, executor)
    totals = {key: sum(result["report"][key] for result in results) for key in ("documents", "contaminated")}
    print(name, json.dumps(totals))
    for one, counts in outcome["report"]["sets"].items():
        print(one, json.dumps({key: value for key, value in counts.items() if key != "examples"}))
        print("  e.g.", counts["examples"][:1])


def compare(sets: list[dict], shards: list[dict], work: Path, name: str) -> None:
    """Compares all (document, set, n-grams) of the stage with those found by a Python dict of word tuples."""
    grams: dict[tuple[str, ...], set[str]] = {}
    for one in sets:
        for text in {text for item in read_items(one) for text in item.texts}:
            for gram in grams_of(text):
                grams.setdefault(gram, set()).add(one["name"])
    expected, found = set(), set()
    for number, shard in enumerate(shards):
        path = work / shard["documents"]["name"]
        for row, text in enumerate(pq.read_table(path, columns=["text"])["text"].to_pylist()):
            words = split(text)
            here: dict[str, set] = {}
            for length in range(LEAST, N + 1):
                for gram in zip(*(words[i:] for i in range(length))):
                    for one in grams.get(gram, ()):
                        here.setdefault(one, set()).add(gram)
            expected |= {(number, row, one, len(shared)) for one, shared in here.items()}
        stage = (
            f"contaminate-{Stage('contaminate', contaminate, options={**OPTIONS, 'turn': f'report {name}'}).key[:8]}"
        )
        hits = pq.read_table(work / stage / f"part-{number:05d}.hits.parquet").to_pylist()
        found |= {(number, hit["row"], hit["set"], hit["ngrams"]) for hit in hits}
    pairs = [{each[:3] for each in both} for both in (expected, found)]
    print(
        f"{name}: {len(grams)} n-grams by Python sets, {len(pairs[0])} pairs (document, set); found "
        f"{len(pairs[0] & pairs[1])}, missed {len(pairs[0] - pairs[1])}, false {len(pairs[1] - pairs[0])}; "
        f"with the same number of n-grams {len(expected & found)}",
        sorted(expected ^ found)[:6],
    )


def split(text: str) -> list[str]:
    return WORD.findall(unicodedata.normalize("NFC", text).lower())


def grams_of(text: str) -> set[tuple[str, ...]]:
    words = split(text)
    if LEAST <= len(words) < N:
        return {tuple(words)}
    return set(zip(*(words[i:] for i in range(N))))


if __name__ == "__main__":
    app.run(main)
