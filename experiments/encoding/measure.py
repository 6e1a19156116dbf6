"""Compares ways to the ids of a SentencePiece BPE model, in alternating turns: see README.md."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import sentencepiece
import tokenizers
from absl import app, flags
from tokenizers import pre_tokenizers

from gptjax import tokenizer
from gptjax.corpus.documents import Document, DocumentWriter, rows_of
from gptjax.corpus.engine import Task
from gptjax.corpus.stages.encode import encode
from gptjax.files import file_entry
from gptjax.interop.tokenizer_json import tokenizer_json
from gptjax.tokenizer import sentencepiece_file, sentencepiece_model
from gptjax.tokenizer.sentencepiece_file import NORMAL, USER_DEFINED
from gptjax.tokenizer.words import word_pattern

DATA = flags.DEFINE_string("data", None, "Folder of text files.", required=True)
ENDINGS = flags.DEFINE_list("endings", ".md,.txt,.py", "The files that are read, by the ends of their names.")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "A SentencePiece BPE model, or its folder.", required=True)
MEGABYTES = flags.DEFINE_float("megabytes", 24, "How many megabytes of the folder to read.")
TURNS = flags.DEFINE_integer("turns", 3, "Timed turns.")

SEGMENT = 1 << 12  # characters: about where SentencePiece is fastest
OPTIONS = {"split": {"fraction": 0.05, "by": "document", "seed": 0}, "bos": False, "compare": {}}


def main(_) -> None:
    texts, size = read_texts()
    made = tokenizer.load(TOKENIZER.value)
    model = sentencepiece.SentencePieceProcessor(model_proto=made.file_bytes)
    segments = [segment for text in texts for segment in cut_after_newlines(text)]
    theirs = tokenizers.Tokenizer.from_str(tokenizer_json(made).decode())
    theirs.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(words_of(made)), "isolated")

    def ours(by_merges: bool) -> tokenizer.Tokenizer:
        """The tokenizer, without the words that it remembers from the turn before."""
        with mock.patch.object(sentencepiece_model, "can_encode", return_value=by_merges):
            again = tokenizer.load(TOKENIZER.value)
        again.threads = 1
        return again

    runs: dict[str, Callable[[], Any]] = {
        "sentencepiece, whole documents": lambda: model.encode(texts, num_threads=1),
        "sentencepiece, cut after newlines": lambda: joined(model.encode(segments, num_threads=1), texts),
        "tokenizers, its BPE with the same merges, by words": lambda: [
            theirs.encode(text, add_special_tokens=False).ids for text in texts
        ],
        "gptjax, each word once by sentencepiece": lambda: ours(by_merges=False).encode_batch(texts),
        "gptjax, by tiktoken with the same merges": lambda: ours(by_merges=True).encode_batch(texts),
    }
    seconds: dict[str, list[float]] = {name: [] for name in [*runs, "gptjax, the encode stage"]}
    equal: dict[str, float] = {}
    expected: Any = None
    with tempfile.TemporaryDirectory() as folder:
        task = stage_task(texts, Path(folder), made)
        for _ in range(TURNS.value):
            for name, run in runs.items():
                start = time.process_time()
                ids = run()
                seconds[name].append(time.process_time() - start)
                expected = ids if name.endswith("whole documents") else expected
                equal[name] = np.mean([np.array_equal(a, b) for a, b in zip(ids, expected, strict=True)])
                del ids
            start = time.process_time()
            encode(task, Path(folder))
            seconds["gptjax, the encode stage"].append(time.process_time() - start)
    print(f"{size / 1e6:.1f} MB in {len(texts)} documents, {made.vocab_size:,} tokens")
    for name, timed in seconds.items():
        speeds = [size / 1e6 / value for value in timed]
        same = f"{equal[name]:.1%}" if name in equal else ""
        print(f"| {name} | {statistics.median(speeds):.2f} | {min(speeds):.2f} | {max(speeds):.2f} | {same} |")


def read_texts() -> tuple[list[str], int]:
    texts, size = [], 0
    for path in sorted(Path(DATA.value).rglob("*.*")):
        if path.suffix in ENDINGS.value and size < MEGABYTES.value * 1e6 and (text := path.read_text(errors="replace")):
            texts.append(text.replace("▁", " "))
            size += len(texts[-1].encode())
    return texts, size


def cut_after_newlines(text: str) -> list[str]:
    """Parts of SEGMENT characters or more; no token contains a newline and another character."""
    parts, start = [], 0
    while (end := text.find("\n", start + SEGMENT) + 1) > 0:
        parts.append(text[start:end])
        start = end
    return [*parts, text[start:]]


def joined(ids: list[list[int]], texts: list[str]) -> list[list[int]]:
    """The ids of documents from those of their parts."""
    rest = iter(ids)
    return [[i for _ in cut_after_newlines(text) for i in next(rest)] for text in texts]


def words_of(made: tokenizer.Tokenizer) -> str:
    """The pattern of the model's words, as the regular expressions of `tokenizers` write it."""
    pieces = sentencepiece_file.pieces(made.file_bytes)
    of_text = (piece.text.replace("▁", " ") for piece in pieces if piece.type in (NORMAL, USER_DEFINED))
    return word_pattern(of_text).pattern.replace("(?s:.)", r"[\s\S]")


def stage_task(texts: list[str], work: Path, made: tokenizer.Tokenizer) -> Task:
    """A task of the encode stage: all documents in one shard."""
    path, saved = work / "documents.parquet", made.save(work)
    with DocumentWriter(path) as writer:
        for number, text in enumerate(texts):
            writer.append(rows_of("texts", Document(text, str(number)), 1 << 30, Counter()))
    inputs = {
        "documents": file_entry(path),
        "verdicts": [],
        "tokenizer": file_entry(saved),
        "most_held_out": 1 << 30,
    }
    return Task(0, inputs, OPTIONS, work)


if __name__ == "__main__":
    app.run(main)
