"""Encodes the remaining documents of a shard: token ids by split, and the place of each document."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from gptjax import tokenizer
from gptjax.conversation import Message, Renderer, template_of
from gptjax.corpus.engine import Task
from gptjax.corpus.forms import (
    CHAT_PREFERENCES,
    LABELLED,
    PAIRS,
    SIDED,
    TEMPLATED,
    TEXT,
    messages_in,
    preference_in,
    sides_of,
)
from gptjax.corpus.libraries import versions_of
from gptjax.corpus.stages.base import CorpusStage
from gptjax.corpus.stages.splits import split_texts
from gptjax.corpus.stages.verdicts import remaining
from gptjax.data.prepared import token_dtype
from gptjax.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus, DocumentShard

BATCH_CHARACTERS = 1 << 22  # bytes of text encoded at once
SHOWN = 24  # characters shown of a text that decoding does not restore

# One entry per document, in the order of their tokens.
INDEX = np.dtype([("id", "<u8"), ("row", "<u4"), ("length", "<u4"), ("bytes", "<u4")])


def encode(task: Task, folder: Path) -> dict:
    """Writes SPLIT.tokens and SPLIT.index.npy (INDEX) for each split that has documents.

    inputs: documents, verdicts, tokenizer, most_held_out (bytes of a document); for pairs source_tokenizer, if there is
    one, and references (which of several targets to encode); for labelled texts labels, their names in order.
    options: split, bos, compare: path of another tokenizer → its hash; form, if it is not running text; template, for
    conversations.

    A pair becomes two documents, its source and its target, whose entries in the index differ only in their lengths. A
    preference becomes two pairs, that of its prompt and the chosen answer and that of its prompt and the rejected one.
    Held-out pairs are also written as text to SPLIT.pairs.jsonl: id, source, targets. The labels of labelled texts are
    in SPLIT.labels.npy, a number for each document. For conversations, SPLIT.supervised has a byte for each token: 1 if
    the assistant wrote it. A preference in a conversation becomes two conversations, with the chosen and the rejected
    answer, and only these are supervised.

    Reports documents and bytes; by split documents (a document whose tail is held out is in both), bytes, tokens,
    unknown_tokens and changed_documents (documents or messages that decode to another text); change: where the first of
    these changes; and how many tokens the compared tokenizers need for the validation split.
    """
    tokens = tokenizer.load(task.path(task.inputs["tokenizer"]))
    form = task.options.get("form", TEXT)
    numbers = {label: number for number, label in enumerate(task.inputs.get("labels", ()))}
    source = tokenizer.load(task.path(entry)) if (entry := task.inputs.get("source_tokenizer")) else tokens
    others = {path: tokenizer.load(path) for path in task.options["compare"]}
    for each in (tokens, source, *others.values()):
        each.threads = 1  # the other cores have their own shards
    in_turns = [source, tokens] if form in SIDED else [tokens]
    if form in TEMPLATED:
        renderer = Renderer(template_of(task.options["template"], "template"), tokens)
    outputs: dict[str, _SplitOutput] = {}
    compared: Counter[str] = Counter()
    rows: set[int] = set()
    for split, keys, texts in _batches(task):
        rows.update(row for _, row in keys)
        if split not in outputs:
            outputs[split] = _SplitOutput(folder, split, in_turns, task.options["bos"])
        if form in SIDED:
            sides = [sides_of(text) for text in texts]
            if form == PAIRS and split != "train":
                outputs[split].keep_pairs(keys, sides)
            chosen = [side[: 2 if task.inputs.get("references") == "first" else None] for side in sides]
            keys = [key for key, side in zip(keys, chosen) for _ in range(2 * len(side) - 2)]
            texts = [text for first, *rest in chosen for one in rest for text in (first, one)]
        elif form == LABELLED:
            sides = [sides_of(text) for text in texts]
            outputs[split].keep_labels([numbers[label] for _, label in sides])
            texts = [text for text, _ in sides]
        if form in TEMPLATED:
            if form == CHAT_PREFERENCES:
                preferences = [preference_in(text) for text in texts]
                keys = [key for key in keys for _ in range(2)]
                conversations = [[*prompt, *answer] for prompt, *answers in preferences for answer in answers]
                given = [len(prompt) for prompt, *answers in preferences for _ in answers]
            else:
                conversations = [messages_in(text) for text in texts]
                given = [0] * len(texts)
            outputs[split].append_conversations(keys, conversations, given, renderer)
            texts = [message.content for messages in conversations for message in messages]
        else:
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
    """Yields (split, (id, row) of documents, their texts), a few megabytes at a time.

    All documents that `remaining` gives at once are done before the next, since the task's journal says that they are.
    """
    for some in remaining(task):
        held: dict[str, tuple[list, list, int]] = {}
        cut = {"most_bytes": task.inputs["most_held_out"], "given": task.inputs.get("given", "")}
        for number, split, text in split_texts(some.texts, some.split_keys, **task.options["split"], **cut):
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
    """The files of a split. in_turns: the tokenizers of the first document, the second and so on, then the first's."""

    def __init__(self, folder: Path, split: str, in_turns: Sequence[Tokenizer], bos: bool):
        self._path, self._split, self._in_turns, self._bos = folder, split, in_turns, bos
        self._dtype = token_dtype(max(tokens.vocab_size for tokens in in_turns))
        self._file = open(folder / f"{split}.tokens", "wb")
        self._index: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._pairs: IO[str] | None = None
        self._supervised: IO[bytes] | None = None
        self._counts = Counter(documents=0, bytes=0, tokens=0, unknown_tokens=0, changed_documents=0)
        self.change: tuple[str, str] | None = None  # the first change: a piece of text, and what it becomes

    def append(self, keys: list[tuple[int, int]], texts: list[str]) -> None:
        encoded = [np.zeros(0, self._dtype)] * len(texts)
        for turn, tokens in enumerate(self._in_turns):
            ids = self._encoded(tokens, texts[turn :: len(self._in_turns)])
            encoded[turn :: len(self._in_turns)] = [self._framed(tokens, each) for each in ids]
        self._write(keys, [len(text.encode()) for text in texts], encoded)

    def append_conversations(
        self, keys: list[tuple[int, int]], conversations: list[list[Message]], given: list[int], renderer: Renderer
    ) -> None:
        """given: for each conversation, the number of messages before the first that is supervised."""
        (tokens,) = self._in_turns
        contents = iter(self._encoded(tokens, [message.content for each in conversations for message in each]))
        rendered = [
            renderer.joined([message.role for message in each], [next(contents) for _ in each], before)
            for each, before in zip(conversations, given)
        ]
        sizes = [sum(len(message.content.encode()) for message in each) for each in conversations]
        self._write(keys, sizes, [self._framed(tokens, each.ids) for each in rendered])
        if self._supervised is None:
            self._supervised = open(self._path / f"{self._split}.supervised", "wb")
        for each in rendered:
            self._supervised.write(np.pad(each.supervised, (int(self._bos), 1)).tobytes())

    def _write(self, keys: list[tuple[int, int]], sizes: list[int], encoded: list[np.ndarray]) -> None:
        """Adds documents of these sizes in bytes and these tokens."""
        flat = np.concatenate(encoded)
        self._file.write(flat.tobytes())
        index = np.zeros(len(encoded), INDEX)
        index["id"], index["row"] = np.array(keys, np.uint64).T
        index["length"] = [len(ids) for ids in encoded]
        index["bytes"] = sizes
        self._index.append(index)
        self._counts.update(documents=len(encoded), bytes=sum(sizes), tokens=len(flat))

    def _framed(self, tokens: Tokenizer, ids: np.ndarray) -> np.ndarray:
        """The ids of a document, with the tokens around them."""
        before = [tokens.bos_id] if self._bos else []
        return np.concatenate([before, ids, [tokens.eos_id]]).astype(self._dtype)

    def _encoded(self, tokens: Tokenizer, texts: list[str]) -> list[np.ndarray]:
        """The ids of each text; losses are counted."""
        encoded = tokens.encode_batch(texts)
        if tokens.unk_id is not None:
            self._counts["unknown_tokens"] += sum(int(np.count_nonzero(ids == tokens.unk_id)) for ids in encoded)
        if not tokens.lossless:
            for text, decoded in zip(texts, map(tokens.decode, encoded)):
                if text != decoded:
                    self._counts["changed_documents"] += 1
                    self.change = self.change or first_change(text, decoded)
        return encoded

    def keep_pairs(self, keys: list[tuple[int, int]], sides: list[list[str]]) -> None:
        if self._pairs is None:
            self._pairs = open(self._path / f"{self._split}.pairs.jsonl", "w", encoding="utf-8")
        for (key, _), (source, *targets) in zip(keys, sides):
            line = {"id": key, "source": source, "targets": targets}
            self._pairs.write(json.dumps(line, ensure_ascii=False) + "\n")

    def keep_labels(self, labels: list[int]) -> None:
        self._labels.append(np.array(labels, np.int32))

    def close(self) -> dict:
        self._file.close()
        if self._pairs is not None:
            self._pairs.close()
        if self._supervised is not None:
            self._supervised.close()
        if self._labels:
            np.save(self._path / f"{self._split}.labels.npy", np.concatenate(self._labels))
        np.save(self._path / f"{self._split}.index.npy", np.concatenate(self._index))
        return dict(self._counts)


def first_change(text: str, decoded: str) -> tuple[str, str]:
    """The first difference of two texts: some characters of each, from shortly before it."""
    at = next((i for i, (a, b) in enumerate(zip(text, decoded)) if a != b), min(len(text), len(decoded)))
    here = slice(max(at - SHOWN // 2, 0), at + SHOWN // 2)
    return text[here], decoded[here]


class Encode(CorpusStage):
    """The tokens of every shard."""

    name, version, function = "encode", 3, staticmethod(encode)

    def options(self, corpus: Corpus) -> dict[str, Any]:
        compare = {path: other.hash for path, other in self._others(corpus).items()}
        options = {"split": corpus.split, "bos": corpus.config.tokens.bos, "compare": compare}
        return options | corpus.form_option() | corpus.template_option()

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        tokenizers = [corpus.tokenizer, *self._others(corpus).values()]
        of_all: dict[str, Any] = {"tokenizer": corpus.tokenizer_file}
        if corpus.source_tokenizer is not None:
            tokenizers.append(corpus.source_tokenizer)
            of_all["source_tokenizer"] = corpus.source_tokenizer_file
        of_all["libraries"] = versions_of(name for each in tokenizers for name in each.libraries)
        if corpus.form == LABELLED:
            of_all["labels"] = corpus.labels

        def of_shard(shard: DocumentShard) -> dict[str, Any]:
            options = shard.source.options
            references = {"references": options.get("references", "each")} if corpus.form == PAIRS else {}
            return {**of_all, **references, **corpus.held_out(shard)}

        return corpus.inputs(of_shard)

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        for shard, result in zip(corpus.shards, results):
            shard.encoded, shard.files["encode"] = result["report"], result["files"]

    def _others(self, corpus: Corpus) -> dict[str, Tokenizer]:
        """The tokenizers to compare with."""
        return {path: tokenizer.load(path) for path in corpus.config.tokenizer.compare}
