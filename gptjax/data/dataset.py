"""Batches as a function of the seed and the step: the windows of each row and their order.

The order of windows is computed from their places in the stream (`order.py`), and a batch is read directly from the
files. Any process can compute the batch of any step, so a checkpoint only needs to save the step, and the stream does
not depend on the number of training processes or loader processes. Grain runs the loader processes.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import grain
import numpy as np
from ml_collections import ConfigDict

from gptjax.config import ConfigError
from gptjax.data import loaders, order
from gptjax.data.conversations import PackedConversations
from gptjax.data.labelled import LabelledRows
from gptjax.data.mixture import parse_mixture
from gptjax.data.packing import PackedWindows
from gptjax.data.pairs import PackedCompletions, PackedPairs
from gptjax.data.preferences import PreferenceRows
from gptjax.data.prepared import SPLITS
from gptjax.data.prompts import PromptRows
from gptjax.data.tokens import TokenSource
from gptjax.data.windows import ContiguousWindows
from gptjax.settings import DataSettings


class Windows(Protocol):
    """The rows that a split is cut into.

    Attributes:
      LAYOUT: describes the content of a row; it is part of a run's fingerprint.
      FORMS: the forms of prepared folders that it reads.
      LENGTHS: the fields of the config's `data` section that its constructor takes.
      OPTIONS: further fields that it takes, if it has this attribute.
      left_out: the number of documents or pairs that are left out because they are longer than a row.
    """

    LAYOUT: str
    FORMS: tuple[str, ...]
    LENGTHS: tuple[str, ...]
    left_out: int

    def __len__(self) -> int: ...
    def gather(self, index_B: np.ndarray) -> dict[str, np.ndarray]: ...
    def spans(self, index: int) -> np.ndarray: ...


# Classes of Windows. Each is constructed from a source and the fields that its LENGTHS and OPTIONS name.
TEXT_WINDOWS: dict[str, Any] = {"contiguous": ContiguousWindows, "packed": PackedWindows}
WINDOWS = TEXT_WINDOWS | {
    "pairs": PackedPairs,
    "completions": PackedCompletions,
    "prompts": PromptRows,
    "preferences": PreferenceRows,
    "labelled": LabelledRows,
    "conversations": PackedConversations,
}
# The content of a folder by its form, for the error if the objective reads another form.
OBJECTIVES_OF = {
    "text": "text, which next_token and masked read",
    "pairs": "pairs, which seq2seq, completion, grpo and on_policy_distillation read",
    "labelled": "labelled texts, which classification, next_token and masked read",
    "preferences": "preferences, which preference reads",
    "conversations": "conversations, which instruction reads",
    "chat_preferences": "preferences in conversations, which preference reads",
}
FOREVER = 1 << 62

Batch = dict[str, np.ndarray]


class Rewriting(Protocol):
    """Changes rows after they are read. The result depends only on the rows and their places in the order of rows."""

    def __call__(self, rows: Batch, places_B: np.ndarray) -> Batch: ...

    def facts(self) -> dict:
        """What the new rows depend on besides the old rows, as JSON values."""


def open_dataset(
    config_data: ConfigDict | DataSettings,
    split: str,
    *,
    seed: int,
    batch_size: int,
    tokens: int = 0,
    windows: str = "",
    rewriting: Callable[[Sequence[TokenSource], Sequence[float]], Rewriting] | None = None,
) -> Dataset:
    """Opens the 'train', 'validation' or 'test' split of `config.data.path` as batches of `batch_size` rows.

    'train' never ends: each epoch has all windows in a new order. The other splits have every window once, in one
    shuffled order that does not depend on the seed, the batch size or the order of the folders.

    Args:
      tokens: the size of the sample of a held-out split, rounded up to whole windows of `data.sequence_length`
        positions. A sample is the beginning of every larger one. 0: the whole split.
      windows: a key of WINDOWS, for data that are not plain text; '': `data.windows`.
      rewriting: makes a `Rewriting` from the sources, which have the facts about tokenizer and labels, and their
        weights in the mixture. None: rows do not change.

    Raises:
      ConfigError: names the invalid field, or the file that differs from the manifest.
    """
    if split not in SPLITS:
        raise ConfigError(f"split = {split!r}: expected one of {', '.join(SPLITS)}")
    if config_data.windows not in TEXT_WINDOWS:
        raise ConfigError(f"data.windows = {config_data.windows!r}: expected one of {', '.join(TEXT_WINDOWS)}")
    if config_data.sequence_length < 1:
        raise ConfigError(f"data.sequence_length = {config_data.sequence_length}: must be at least 1")
    if batch_size < 1:
        raise ConfigError(f"training.batch_size = {batch_size}: must be at least 1")
    mixture = parse_mixture(config_data.path)
    sources = [TokenSource(folder, split, config_data.verify) for folder, _ in mixture]
    kind = WINDOWS[windows or config_data.windows]
    _check_fit(config_data.path, kind, sources)
    weights = [weight for _, weight in mixture]
    if split != "train":  # every window has the same weight
        sources, weights = sorted(sources, key=lambda source: json.dumps(source.files)), [None] * len(sources)
    lengths = {name: config_data[name] or config_data.sequence_length for name in kind.LENGTHS}
    options = {name: config_data[name] for name in getattr(kind, "OPTIONS", ())}
    parts = [kind(source, **lengths, **options) for source in sources]
    shares = [len(part) if weight is None else weight for part, weight in zip(parts, weights)]
    return Dataset(
        sources,
        parts,
        shares,
        repeats=split == "train",
        limit=-(-tokens // config_data.sequence_length) if split != "train" else 0,
        seed=seed,
        batch_size=batch_size,
        description={
            "split": split,
            "windows": windows or config_data.windows,
            **lengths,
            **options,
            "layout": kind.LAYOUT,
        },
        rewriting=rewriting(sources, shares) if rewriting else None,
    )


def _check_fit(path: str, kind: Any, sources: Sequence[TokenSource]) -> None:
    """Raises ConfigError unless the sources have a form that the windows read, and agree with each other."""
    for source in sources:
        if source.form not in kind.FORMS:
            raise ConfigError(
                f"data.path = {path!r}: {source.folder} holds {OBJECTIVES_OF[source.form]}; "
                f"the training.objective of this run reads {' or '.join(kind.FORMS)}"
            )
    first, *others = sources
    for other in others:
        if other.tokenizer_hash != first.tokenizer_hash:
            raise ConfigError(
                f"data.path = {path!r}: {first.folder} has tokenizer {first.tokenizer_hash}, "
                f"{other.folder} has {other.tokenizer_hash}: prepare one with --tokenizer=<the other folder>"
            )
        if other.begin_id != first.begin_id:
            raise ConfigError(
                f"data.path = {path!r}: documents of {first.folder} start after token "
                f"{first.begin_id}, those of {other.folder} after {other.begin_id}: prepare both with the same "
                "tokens.bos"
            )
        if other.source_tokenizer_hash != first.source_tokenizer_hash:
            raise ConfigError(
                f"data.path = {path!r}: {first.folder} and {other.folder} have different tokenizers "
                "of their sources: prepare one with --source_tokenizer=<the other folder's source_tokenizer file>"
            )
        if other.labels != first.labels:
            raise ConfigError(
                f"data.path = {path!r}: {first.folder} and {other.folder} have different labels: prepare them together"
            )
        if other.template != first.template:
            raise ConfigError(
                f"data.path = {path!r}: the conversations of {first.folder} and {other.folder} are written by "
                "different templates: prepare both with the same --template"
            )


class Dataset:
    """A split, cut into windows in a defined order. Made by `open_dataset`.

    Attributes:
      num_tokens: the number of tokens of the split, over all sources.
      num_windows: the number of windows of one epoch or of the sample of a held-out split, over all sources.
      steps_per_epoch: the number of batches that cover the windows once; the last one may be partial.
      vocab_size, eos_id, tokenizer_hash: facts about the tokenizer.
      begin_id: the token after which every document starts.
      form: the form of the folders (see prepared.py).
      labels: the names of the labels of labelled texts.
      num_classes: the number of labels that a row may have; 0: rows have no labels.
      template: the fields of the chat template of conversations; empty for other forms.
      num_stored: the number of windows from which a sample is chosen, over all sources.
      left_out: the number of pairs or conversations that are left out because they are longer than a row.
      truncated: the number of labelled texts or conversations that are longer than a row, which has only their
        beginning.
      source_vocab_size, source_eos_id: facts about the tokenizer of the sources of pairs.
      has_two_vocabularies: whether the sources of pairs have their own tokenizer.
    """

    def __init__(
        self,
        sources: Sequence[TokenSource],
        windows: Sequence[Windows],
        weights: Sequence[float],
        *,
        repeats: bool,
        limit: int,
        seed: int,
        batch_size: int,
        description: dict,
        rewriting: Rewriting | None = None,
    ):
        self._sources = sources
        self._windows = windows
        self._seed = seed
        self._batch_size = batch_size
        self._repeats = repeats
        self._rewriting = rewriting
        self._columns: Mapping[str, np.ndarray] = {}
        self._description = description if rewriting is None else {**description, "rewriting": rewriting.facts()}
        sizes = [len(part) for part in windows]
        self._order = order.TrainingOrder(sizes, weights, seed) if repeats else order.ValidationOrder(sizes)

        self.num_tokens = sum(source.num_tokens for source in sources)
        self.num_stored = sum(sizes)
        self.num_windows = min(limit, self.num_stored) if limit else self.num_stored
        self.steps_per_epoch = -(-self.num_windows // batch_size)
        self.vocab_size = sources[0].vocab_size
        self.eos_id = sources[0].eos_id
        self.begin_id = sources[0].begin_id
        self.tokenizer_hash = sources[0].tokenizer_hash
        self.form, self.labels, self.template = sources[0].form, sources[0].labels, sources[0].template
        self.source_vocab_size, self.source_eos_id = sources[0].source_vocab_size, sources[0].source_eos_id
        self.has_two_vocabularies = sources[0].has_two_vocabularies
        self.num_classes = len(self.labels) if all(isinstance(part, LabelledRows) for part in windows) else 0
        self.left_out = sum(part.left_out for part in windows)
        self.truncated = sum(getattr(part, "truncated", 0) for part in windows)

    def batch(self, step: int, rows: np.ndarray) -> Batch:
        """The rows (numbers from 0 to batch_size - 1) of the global batch of a step, as arrays of len(rows) × T.

        They are int32 tokens and targets, and float32 weights, which are 0 where nothing is predicted. Packed windows
        also have int32 segments (from 1; 0 is padding) and positions. For the arrays of pairs see data/pairs.py. In the
        last batch of a held-out split, rows after the end of the split are padding.

        Raises:
          IndexError: `step` is beyond the validation split, or a row is beyond the batch.
        """
        rows = np.asarray(rows)
        places = self._places(step, rows)
        present = np.ones(len(rows), bool) if self._repeats else places < self.num_windows
        source_of, index = self._order(places[present])
        batch = self._gather(source_of, index, np.flatnonzero(present), len(rows))
        return batch if self._rewriting is None else self._rewriting(batch, places)

    def stored(self, numbers_B: np.ndarray) -> Batch:
        """The windows with these numbers, which count all windows from 0, source by source. For numbers from
        `num_stored` on, rows are padding, as in `batch`."""
        starts = self._starts()
        present = numbers_B < self.num_stored
        source_of = np.searchsorted(starts, numbers_B[present], side="right") - 1
        return self._gather(source_of, numbers_B[present] - starts[source_of], np.flatnonzero(present), len(numbers_B))

    def with_columns(self, columns: Mapping[str, np.ndarray]) -> Dataset:
        """This split with further arrays in its batches: name → one value for each stored window, in the order of
        `stored`. They are 0 in rows that are padding."""
        made = copy.copy(self)
        made._columns = dict(columns)
        return made

    def spans(self, step: int, row: int) -> tuple[TokenSource, np.ndarray]:
        """Returns the origin of one row of a training batch: its source, and its spans, int64 [spans, 3].

        A span is (its first position in the row, the place of that position's target in the source's stream, its number
        of targets). The inputs are the tokens before the targets. Raises IndexError as `batch` does.
        """
        source_of, index = self._order(self._places(step, np.array([row])))
        return self._sources[source_of[0]], self._windows[source_of[0]].spans(int(index[0]))

    def batches(
        self, start_step: int, rows: np.ndarray, workers: int = 0, num_steps: int | None = None
    ) -> Iterator[Batch]:
        """Yields `batch(step, rows)` for the steps from `start_step` on, prepared by `workers` processes if not 0.

        Ends after `num_steps`, or at the end of a held-out split. Loader processes import this program's main module
        again, so it must be guarded by `if __name__ == "__main__"`, and absl's flags must be parsed.
        """
        last_step = FOREVER if self._repeats else self.steps_per_epoch
        stop = last_step if num_steps is None else min(start_step + num_steps, last_step)
        steps = grain.MapDataset.range(start_step, stop).map(functools.partial(self.batch, rows=np.asarray(rows)))
        # Grain's own threads would be slower, since reading is a copy from the page cache.
        made = steps.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        if workers:
            options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=4)
            made = made.mp_prefetch(options, worker_init_fn=loaders.depend_on_the_parent)
        return loaders.checked(iter(made)) if workers else iter(made)

    def fingerprint(self) -> dict:
        """Everything that the stream of batches depends on, as JSON values, without the paths of folders."""
        return {
            **self._description,
            "order": order.VERSION,
            "seed": self._seed,
            "batch_size": self._batch_size,
            "tokenizer_hash": self.tokenizer_hash,
            "begin_id": self.begin_id,
            **({"source_tokenizer_hash": self._sources[0].source_tokenizer_hash} if self.has_two_vocabularies else {}),
            **({"labels": self.labels} if self.num_classes else {}),
            **({"template": self.template} if self.template else {}),
            "sources": [
                {"weight": weight, "tokens": source.num_tokens, "files": source.files}
                for source, weight in zip(self._sources, self._order.weights)
            ],
        }

    def epochs(self, num_steps: int) -> dict[str, float]:
        """Folder → the average number of times that each of its windows is read in `num_steps` batches."""
        reads = num_steps * self._batch_size
        return {
            str(source.folder): reads * weight / len(windows)
            for source, windows, weight in zip(self._sources, self._windows, self._order.weights)
        }

    def identity(self) -> str:
        """Twelve hexadecimal digits that identify the windows and their tokens, whatever the order and the batches.
        Losses of two runs can be compared if these digits are equal."""
        facts = {name: value for name, value in self.fingerprint().items() if name not in ("seed", "batch_size")}
        facts["num_windows"] = self.num_windows
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]

    def _places(self, step: int, rows: np.ndarray) -> np.ndarray:
        """Checks the step and the rows, and returns their places in the order of windows."""
        last_step = FOREVER if self._repeats else self.steps_per_epoch
        if not 0 <= step < last_step:
            raise IndexError(f"step {step}: this split has steps 0 to {last_step - 1}")
        if len(rows) and not 0 <= rows.min() <= rows.max() < self._batch_size:
            raise IndexError(f"rows {rows.min()} to {rows.max()}: a batch has rows 0 to {self._batch_size - 1}")
        return step * self._batch_size + rows

    def _gather(self, source_of: np.ndarray, index: np.ndarray, into: np.ndarray, num_rows: int) -> Batch:
        """Reads windows by source and index, and puts them into `num_rows` rows at `into`; other rows are zeros."""
        columns = self._of_columns(source_of, index, into, num_rows)
        if len(into) == num_rows > 0 and (source_of == source_of[0]).all():
            return self._windows[source_of[0]].gather(index) | columns
        batch: Batch = {}
        for source, window in enumerate(self._windows):
            of_source = source_of == source
            if source and not of_source.any():
                continue
            for name, values in window.gather(index[of_source]).items():
                batch.setdefault(name, np.zeros((num_rows, *values.shape[1:]), values.dtype))[into[of_source]] = values
        return batch | columns

    def _of_columns(self, source_of: np.ndarray, index: np.ndarray, into: np.ndarray, num_rows: int) -> Batch:
        batch: Batch = {}
        for name, values in self._columns.items():
            batch[name] = np.zeros(num_rows, values.dtype)
            batch[name][into] = values[self._starts()[source_of] + index]
        return batch

    def _starts(self) -> np.ndarray:
        """int64 [sources]: the number of windows in the sources before each."""
        return np.cumsum([0, *(len(windows) for windows in self._windows)])[:-1]
