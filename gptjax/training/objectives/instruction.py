"""Predict the answers of the assistant in conversations: fine-tuning on instructions and chats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.text import Text

from gptjax.data import Dataset
from gptjax.data.keys import SEGMENTS, TARGETS, WEIGHTS
from gptjax.tokenizer import Tokenizer
from gptjax.training.objectives.next_token import NextToken


class Instruction(NextToken):
    """Cross-entropy of what the assistant wrote, in nats per token, given the conversation before it.

    Rows hold several conversations, which do not see each other (data/conversations.py). With data.loss_on = 'all',
    the tokens of all roles and of the template count as well.
    """

    @property
    def windows(self) -> str:
        return "conversations"

    def shown_row(self, data: Dataset, tokenizer: Tokenizer) -> Text | None:
        return colored(data.batch(0, np.array([0])), tokenizer)


def colored(batch: Mapping[str, Any], tokenizer: Tokenizer) -> Text:
    """The first row of a batch: ⟦green⟧ where the loss is, dim where it is not, control tokens by their names."""
    names = {i: name for name, i in tokenizer.control_ids.items()}
    targets, weights, segments = (np.asarray(batch[name])[0] for name in (TARGETS, WEIGHTS, SEGMENTS))
    inside = segments > 0
    targets, learned, segments = targets[inside], weights[inside] > 0, segments[inside]
    starts = np.flatnonzero(np.diff(segments, prepend=0) | np.diff(learned, prepend=not learned[:1].any()))
    text = Text()
    for start, stop in zip(starts, [*starts[1:], len(targets)]):
        if start and segments[start] != segments[start - 1]:
            text.append("\n")
        words = _words(targets[start:stop].tolist(), names, tokenizer)
        text.append(f"⟦{words}⟧" if learned[start] else words, "green" if learned[start] else "dim")
    return text


def _words(ids: list[int], names: Mapping[int, str], tokenizer: Tokenizer) -> str:
    """The text of some tokens, with the names of control tokens."""
    words = ""
    run: list[int] = []
    for token in ids:
        if token in names:
            words, run = words + tokenizer.decode(run) + names[token], []
        else:
            run.append(token)
    return words + tokenizer.decode(run)
