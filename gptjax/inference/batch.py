"""The texts that one model generates together: a row for each, on the device.

The number of rows and of slots per row follow what is needed, in the few steps of `EngineShapes`, since a step costs
time for every row and slot, whether in use or not. Each pair of the two has its program (see `engine_programs`). When
a text ends, its keys and values are kept for prompts that begin with it, such as the next turn of a conversation.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np

from gptjax.inference.decode import DecodeState, arrange, decode, insert
from gptjax.inference.generate import Generator
from gptjax.inference.growing_text import GrowingText
from gptjax.inference.prefix import PrefixCache
from gptjax.inference.shapes import EngineShapes, smallest
from gptjax.parallel.distributed import fetch

_PATIENCE = 16  # steps for which a smaller batch would have been enough before it is made smaller

_log = logging.getLogger(__name__)


class Steps(NamedTuple):
    """What a call has done."""

    steps: int
    proposed: int  # tokens, in all rows
    accepted: int


class Batch:
    """Rows of texts. It belongs to the engine's thread.

    The arguments are those of `PromptReading`.
    """

    def __init__(self, generator: Generator, sizes: EngineShapes, prefix: PrefixCache | None, model_id: bytes):
        self.generator, self._sizes, self._prefix, self._model_id = generator, sizes, prefix, model_id
        self._texts: list[GrowingText | None] = []  # of each row; None: it is free
        self._state: Any = None
        self._too_large_for = 0

    @property
    def texts(self) -> list[GrowingText]:
        """Those in progress."""
        return [text for text in self._texts if text is not None]

    def place(self, row: DecodeState, text: GrowingText) -> None:
        """Takes the row of a text that has its first token, unless the text has ended with it."""
        if text.limit == 0:
            text.end("length")
        else:
            _collect(text, *_fetched(row, text.request.params.logprobs), 0)
        if text.finish_reason is not None:
            return
        slots = max(self._needed_slots(text, 0), row.cache.num_slots)
        if self._state is not None:
            slots = max(slots, self._state.cache.num_slots)
        row = self._with_slots(row, slots)
        if self._state is None:  # a copy, since the row's cache may be needed for another text of the same prompt
            self._state, self._texts = arrange(row, np.zeros(1, np.int32), slots=slots), [text]
            return
        self._state = self._with_slots(self._state, slots)
        if None not in self._texts:
            self._resize_rows(smallest(self._sizes.rows, len(self._texts) + 1))
        place = self._texts.index(None)
        state, self._state = self._state, None  # it is donated
        self._state = insert(state, row, np.int32(place))
        self._texts[place] = text

    def step(self, num_steps: int) -> Steps:
        """Takes up to `num_steps` steps, each of which generates a token or more in every row.

        Texts that end are taken out of their rows.
        """
        num_steps = min(num_steps, self._sizes.num_steps, max(text.limit - text.num_tokens for text in self.texts))
        self._fit(num_steps)
        stop_B = np.array([text is None for text in self._texts])
        state, self._state = self._state, None  # it is donated
        generator = self.generator
        num_proposed, proposed, accepted = self._sizes.num_proposed, 0, 0
        inputs = generator.family, generator.params, state, np.int32(num_steps), stop_B
        self._state = decode(*inputs, num_proposed=num_proposed)
        num_top = max((text.request.params.logprobs or 0 for text in self.texts), default=0)
        written = _fetched(self._state, num_top)
        if num_proposed:
            num_steps, proposed, accepted = self._counted(written[2])
        for place, text in enumerate(self._texts):
            if text is not None:
                _collect(text, *written, place)
        self.release()
        return Steps(num_steps, proposed, accepted)

    def _counted(self, length_B: Any) -> tuple[int, int, int]:
        """The steps of the latest call, and the tokens that were proposed and accepted in it."""
        proposed_B, accepted_B = fetch((self._state.proposed_B, self._state.accepted_B))
        new = {place: int(length_B[place]) - text.num_tokens for place, text in enumerate(self._texts) if text}
        steps = max(count - int(accepted_B[place]) for place, count in new.items())
        return steps, int(proposed_B.sum()), int(accepted_B.sum())

    def release(self) -> list[GrowingText]:
        """Takes texts that have ended out of their rows, and returns them."""
        ended = [text for text in self.texts if text.finish_reason is not None]
        for place, text in enumerate(self._texts):
            if text in ended:
                self._keep(text, place)
        self._texts = [None if text is None or text.finish_reason is not None else text for text in self._texts]
        if not self.texts:
            self.clear()
        return ended

    def _keep(self, text: GrowingText, place: int) -> None:
        """Keeps the blocks of an ended text and its prompt for later prompts."""
        if self._prefix is not None and text.finish_reason != "error":  # otherwise logits may not have been finite
            chain = self._prefix.chain(self._model_id, text.request.prompt_tokens + text.drawn)  # the last is not read
            self._prefix.keep(chain, self._state.cache, place)

    def clear(self) -> None:
        """Frees all rows, whatever has become of their state."""
        self._state, self._texts, self._too_large_for = None, [], 0

    # --- Sizes

    def _needed_slots(self, text: GrowingText, num_steps: int) -> int:
        """The number of slots that the row of a text needs for the next steps."""
        own = len(text.request.prompt_tokens) if self.generator.family.continues else 1
        new = num_steps * (1 + self._sizes.num_proposed)
        return self._sizes.slots_for(own + min(text.num_tokens - 1 + new, text.limit - 1))

    def _fit(self, num_steps: int) -> None:
        """Makes the batch large enough for the next steps, or smaller if that would have been enough for some time."""
        rows = smallest(self._sizes.rows, len(self.texts))
        slots = max(self._needed_slots(text, num_steps) for text in self.texts)
        current = self._state.cache.num_slots
        if slots > current:
            self._state = self._with_slots(self._state, slots)
        is_too_large = rows < len(self._texts) or slots < current
        self._too_large_for = self._too_large_for + num_steps if is_too_large else 0
        if self._too_large_for > _PATIENCE:
            self._resize_rows(rows)
            self._state = self._with_slots(self._state, slots)

    def _resize_rows(self, rows: int) -> None:
        """Moves the texts to a batch of `rows` rows, step by step over the sizes between."""
        for size in _way(self._sizes.rows, len(self._texts), rows):
            order = [place for place, text in enumerate(self._texts) if text is not None]
            order += [-1] * (size - len(order))
            texts = [None if place < 0 else self._texts[place] for place in order]
            self._state = arrange(self._state, np.array(order, np.int32), slots=self._state.cache.num_slots)
            self._texts = texts

    def _with_slots(self, state: DecodeState, slots: int) -> DecodeState:
        rows = np.arange(len(state.done_B), dtype=np.int32)
        for size in _way(self._sizes.slots, state.cache.num_slots, slots):
            state = arrange(state, rows, slots=size)
        return state


def _way(sizes: tuple[int, ...], start: int, end: int) -> list[int]:
    """The sizes from one to another, without the first: only steps between neighbours are compiled."""
    first, last = sizes.index(start), sizes.index(end)
    return [sizes[i] for i in (range(first + 1, last + 1) if last > first else range(first - 1, last - 1, -1))]


def _fetched(state: DecodeState, num_top: int | None) -> tuple[Any, ...]:
    """The tokens of all rows, their log-probabilities and lengths, and, if a row wants them, the alternatives."""
    alternatives = (state.top_tokens_BGA, state.top_logprobs_BGA) if num_top else ()
    return fetch((state.tokens_BG, state.logprobs_BG, state.length_B, *alternatives))


def _collect(text: GrowingText, tokens_BG: Any, logprobs_BG: Any, length_B: Any, *rest: Any) -> None:
    """Adds the new tokens of a row to its text. The last argument is the row's place."""
    *alternatives, row = rest
    G = tokens_BG.shape[1]
    num_top = text.request.params.logprobs or 0
    for index in range(text.num_tokens, int(length_B[row])):
        place, top = index % G, ()
        if num_top:
            tokens_A, logprobs_A = (x_BGA[row, place, :num_top].tolist() for x_BGA in alternatives)
            top = tuple(zip(tokens_A, logprobs_A))  # type: ignore[assignment]
        try:
            text.add(int(tokens_BG[row, place]), float(logprobs_BG[row, place]), top)
        except Exception as error:  # of this text alone: the device has done its part
            _log.exception("request %s: a token could not be added to its text", text.request.id)
            text.end("error", f"{type(error).__name__}: {error}")
