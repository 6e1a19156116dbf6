"""Encodes what is left of a shard: token ids by split, and the place of each document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gptjax import tokenizer
from gptjax.corpus.engine import Task
from gptjax.corpus.libraries import versions_of
from gptjax.corpus.stages.base import CorpusStage
from gptjax.corpus.stages.splits import split_texts
from gptjax.corpus.stages.verdicts import remaining
from gptjax.data.prepared import token_dtype
from gptjax.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus

BATCH_CHARACTERS = 1 << 22  # text that is encoded at once
SHOWN = 24  # characters of a text that does not come back

# One entry per document, in the order of their tokens.
INDEX = np.dtype([("id", "<u8"), ("row", "<u4"), ("length", "<u4"), ("bytes", "<u4")])


def encode(task: Task, folder: Path) -> dict:
    """Writes SPLIT.tokens and SPLIT.index.npy (INDEX) for each split that has documents.

    inputs: documents, verdicts, tokenizer, most_held_out (bytes of a document). options: split, bos, compare: path of
    another tokenizer → its hash.

    Reports documents and bytes; by split documents (one whose tail is held out is in both), bytes, tokens,
    unknown_tokens and changed_documents (that decode to another text); change: of the first of those, where it changes;
    and how many tokens the compared tokenizers need for the validation split.
    """
    tokens = tokenizer.load(task.path(task.inputs["tokenizer"]))
    others = {path: tokenizer.load(path) for path in task.options["compare"]}
    for each in (tokens, *others.values()):
        each.threads = 1  # the other cores have shards of their own
    outputs: dict[str, _SplitOutput] = {}
    compared: Counter[str] = Counter()
    rows: set[int] = set()
    for split, keys, texts in _batches(task):
        rows.update(row for _, row in keys)
        if split not in outputs:
            outputs[split] = _SplitOutput(folder, split, tokens, task.options["bos"])
        outputs[split].append(keys, texts)
        if split == "validation":
            for name, other in others.items():
                compared[name] += sum(map(len, other.encode_batch(texts)))
    splits = {split: output.close() for split, output in sorted(outputs.items())}
    return {
        "documents": len(rows),
        "bytes": sum(section["bytes"] for section in splits.values()),
        "splits": splits,
        "compared": dict(compared),
        "change": next((output.change for output in outputs.values() if output.change), None),
    }


def _batches(task: Task) -> Iterator[tuple[str, list[tuple[int, int]], list[str]]]:
    """(split, (id, row) of documents, their texts), some megabytes at a time."""
    held: dict[str, tuple[list, list, int]] = {}
    for some in remaining(task):
        most = task.inputs["most_held_out"]
        for number, split, text in split_texts(some.texts, some.split_keys, **task.options["split"], most_bytes=most):
            keys, texts, characters = held.pop(split, ([], [], 0))
            keys.append((int(some.ids[number]), int(some.rows[number])))
            texts.append(text)
            if characters + len(text) < BATCH_CHARACTERS:
                held[split] = keys, texts, characters + len(text)
            else:
                yield split, keys, texts
    for split, (keys, texts, _) in held.items():
        yield split, keys, texts


class _SplitOutput:
    def __init__(self, folder: Path, split: str, tokens: Tokenizer, bos: bool):
        self._path, self._split, self._tokens = folder, split, tokens
        self._before = [tokens.bos_id] if bos else []
        self._dtype = token_dtype(tokens.vocab_size)
        self._file = open(folder / f"{split}.tokens", "wb")
        self._index: list[np.ndarray] = []
        self._counts = Counter(documents=0, bytes=0, tokens=0, unknown_tokens=0, changed_documents=0)
        self.change: tuple[str, str] | None = None  # the first there was: a piece of text, and what it becomes

    def append(self, keys: list[tuple[int, int]], texts: list[str]) -> None:
        before, after = np.array(self._before, np.int32), np.array([self._tokens.eos_id], np.int32)
        encoded = self._tokens.encode_batch(texts)
        flat = np.concatenate([part for ids in encoded for part in (before, ids, after)]).astype(self._dtype)
        self._file.write(flat.tobytes())
        index = np.zeros(len(texts), INDEX)
        index["id"], index["row"] = np.array(keys, np.uint64).T
        index["length"] = [len(ids) + len(before) + 1 for ids in encoded]
        index["bytes"] = [len(text.encode()) for text in texts]
        self._index.append(index)
        self._counts.update(documents=len(texts), bytes=int(index["bytes"].sum(dtype=np.int64)), tokens=len(flat))
        if self._tokens.unk_id is not None:
            self._counts["unknown_tokens"] += int(np.count_nonzero(flat == self._tokens.unk_id))
        if not self._tokens.lossless:
            for text, decoded in zip(texts, map(self._tokens.decode, encoded)):
                if text != decoded:
                    self._counts["changed_documents"] += 1
                    self.change = self.change or first_change(text, decoded)

    def close(self) -> dict:
        self._file.close()
        np.save(self._path / f"{self._split}.index.npy", np.concatenate(self._index))
        return dict(self._counts)


def first_change(text: str, decoded: str) -> tuple[str, str]:
    """Where two texts differ first: some characters of each, from shortly before."""
    at = next((i for i, (a, b) in enumerate(zip(text, decoded)) if a != b), min(len(text), len(decoded)))
    here = slice(max(at - SHOWN // 2, 0), at + SHOWN // 2)
    return text[here], decoded[here]


class Encode(CorpusStage):
    """The tokens of every shard."""

    name, version, function = "encode", 3, staticmethod(encode)

    def options(self, corpus: Corpus) -> dict[str, Any]:
        compare = {path: other.hash for path, other in self._others(corpus).items()}
        return {"split": corpus.split, "bos": corpus.config.tokens.bos, "compare": compare}

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        tokenizers = (corpus.tokenizer, *self._others(corpus).values())
        made_by = versions_of(name for each in tokenizers for name in each.libraries)
        of_all = {"tokenizer": corpus.tokenizer_file, "libraries": made_by}
        return corpus.inputs(lambda shard: {**of_all, **corpus.held_out(shard)})

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        for shard, result in zip(corpus.shards, results):
            shard.encoded, shard.files["encode"] = result["report"], result["files"]

    def _others(self, corpus: Corpus) -> dict[str, Tokenizer]:
        """The tokenizers to compare with."""
        return {path: tokenizer.load(path) for path in corpus.config.tokenizer.compare}
