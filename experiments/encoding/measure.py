"""Compares the encode stage with SentencePiece's own threads, in alternating turns: see README.md."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import sentencepiece
from absl import app, flags

from gptjax.corpus.documents import Document, DocumentWriter, rows_of
from gptjax.corpus.engine import Stage, run_stage
from gptjax.corpus.engine.local import LocalProcesses
from gptjax.corpus.stages.encode import encode
from gptjax.files import file_entry

DATA = flags.DEFINE_string("data", None, "Folder of .md or .txt files.", required=True)
TOKENIZER = flags.DEFINE_string("tokenizer", None, "A SentencePiece model.", required=True)
MEGABYTES = flags.DEFINE_float("megabytes", 24, "How many megabytes of the folder to read.")
TURNS = flags.DEFINE_integer("turns", 3, "Timed turns, after one that is not timed.")

PARTS = 4
CHUNK = 4096  # characters; SentencePiece is fastest on short texts
OPTIONS = {"split": {"fraction": 0.05, "by": "document", "seed": 0}, "bos": False, "compare": {}}


def main(argv: list[str]) -> None:
    del argv
    texts, size = read_texts()
    model = sentencepiece.SentencePieceProcessor(model_file=TOKENIZER.value)
    chunks = [text[i : i + CHUNK] for text in texts for i in range(0, len(text), CHUNK)]
    with tempfile.TemporaryDirectory() as folder, LocalProcesses(2) as two, LocalProcesses(1) as one:
        work = Path(folder)
        inputs = write_shards(texts, work)
        runs = {
            "sentencepiece, 2 threads, whole documents": lambda: model.encode(texts, num_threads=2),
            f"sentencepiece, 2 threads, chunks of {CHUNK} characters": lambda: model.encode(chunks, num_threads=2),
            "gptjax encode stage, 2 workers": lambda: run_stage(stage, inputs, work, two),
            "gptjax encode stage, 1 worker": lambda: run_stage(stage, inputs, work, one),
        }
        seconds = {name: [] for name in runs}
        for turn in range(TURNS.value + 1):
            for number, (name, run) in enumerate(runs.items()):
                stage = Stage("encode", encode, version=len(runs) * turn + number, options=OPTIONS)
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    print(f"{size / 1e6:.1f} MB in {len(texts)} documents")
    for name, timed in seconds.items():
        speeds = [size / 1e6 / value for value in timed[1:]]
        print(f"| {name} | {statistics.median(speeds):.2f} | {min(speeds):.2f} | {max(speeds):.2f} |")


def read_texts() -> tuple[list[str], int]:
    texts, size = [], 0
    for path in sorted(Path(DATA.value).rglob("*.*")):
        if path.suffix in (".md", ".txt") and size < MEGABYTES.value * 1e6:
            texts.append(path.read_text(errors="replace"))
            size += len(texts[-1].encode())
    return texts, size


def write_shards(texts: list[str], work: Path) -> list[dict]:
    """Writes the stage's inputs: documents in PARTS files, and the tokenizer."""
    tokenizer = work / "tokenizer.model"
    tokenizer.write_bytes(Path(TOKENIZER.value).read_bytes())
    inputs = []
    for part in range(PARTS):
        path = work / f"{part}.parquet"
        with DocumentWriter(path) as writer:
            for number, text in enumerate(texts[part::PARTS]):
                writer.append(rows_of("books", Document(text, f"{part}/{number}"), 4_000_000, Counter()))
        inputs.append({"documents": file_entry(path), "verdicts": [], "tokenizer": file_entry(tokenizer)})
    return inputs


if __name__ == "__main__":
    app.run(main)
