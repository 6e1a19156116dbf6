"""Preferences: a row has a prompt with the chosen answer, and the same prompt with the rejected one."""

from __future__ import annotations

import numpy as np

from gptjax.config import ConfigError
from gptjax.data.keys import REJECTED, TARGETS, TOKENS, WEIGHTS
from gptjax.data.pairs import after_begin, completion_places, completions, placed
from gptjax.data.tokens import TokenSource


class PreferenceRows:
    """Row i has two texts of at most T tokens. Only answers have a weight.

    Of prompts and answers that are texts: begin token, prompt, EOS, answer, EOS; the layout of `PackedCompletions`, so
    that a model can learn to complete pairs first. Of messages: begin token, the conversation as a template writes it;
    the layout of `PackedConversations`.

    Attributes:
      left_out: the number of preferences that are left out because one of their texts is longer than a row.
    """

    LAYOUT = "begin token, prompt, answer; the chosen and the rejected answer beside each other"
    FORMS = ("preferences", "chat_preferences")
    LENGTHS = ("sequence_length",)

    def __init__(self, source: TokenSource, sequence_length: int):
        """Raises ConfigError if no preference fits into a row."""
        self._source, self._length = source, sequence_length
        self._is_chat = source.form == "chat_preferences"
        texts = np.arange(source.num_documents // (1 if self._is_chat else 2))
        fits = self._places(texts)[1].reshape(-1, 2).max(axis=1) <= sequence_length
        self._kept = np.flatnonzero(fits)
        self.left_out = len(fits) - len(self._kept)
        if not len(self._kept):
            raise ConfigError(
                f"data.sequence_length = {sequence_length}: none of the {len(fits):,} preferences of {source.folder} "
                "fits into a row"
            )

    def __len__(self) -> int:
        return len(self._kept)

    def gather(self, index_B: np.ndarray) -> dict[str, np.ndarray]:
        """tokens, targets int32 [B, T] and weights float32 [B, T] of the chosen answers; those of the rejected ones
        have the prefix REJECTED."""
        batch: dict[str, np.ndarray] = {}
        for answer, prefix in enumerate(("", REJECTED)):
            rows = self._rows(2 * self._kept[index_B] + answer)
            batch |= {f"{prefix}{name}": rows[name] for name in (TOKENS, TARGETS, WEIGHTS)}
        return batch

    def spans(self, index: int) -> np.ndarray:
        """int64 [1, 3]: (position in the row, place in the stream, tokens) of the prompt and the chosen answer."""
        starts, lengths = self._places(2 * self._kept[[index]])
        return np.stack([np.zeros(1, np.int64), starts, lengths], axis=1)

    def _places(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 [texts]: the place of each text's first target, and the number of its targets."""
        if not self._is_chat:
            return completion_places(self._source, texts)[:2]
        own_begin = self._source.own_begin
        starts, ends = (self._source.offsets_of(texts + place) for place in range(2))
        return starts + own_begin, ends - starts - own_begin - 1  # no template has written the EOS at its end

    def _rows(self, texts_B: np.ndarray) -> dict[str, np.ndarray]:
        if not self._is_chat:
            return completions(self._source, np.ones(len(texts_B), np.int64), texts_B, self._length)
        starts, lengths = self._places(texts_B)
        targets = self._source.take_runs(starts, lengths)
        inside_BT = np.arange(self._length) < lengths[:, None]
        weights_BT = placed(inside_BT, self._source.take_supervised(starts, lengths)).astype(np.float32)
        tokens = after_begin(targets, lengths, self._source.begin_id)
        return {TOKENS: placed(inside_BT, tokens), TARGETS: placed(inside_BT, targets), WEIGHTS: weights_BT}
