"""Predict the target of a pair from its source: translation or summarization with an encoder and a decoder."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gptjax.data.keys import SOURCE, SOURCE_POSITIONS, SOURCE_SEGMENTS
from gptjax.training.objectives.next_token import NextToken
from gptjax.training.objectives.objective import Batch


class Seq2Seq(NextToken):
    """Cross-entropy of a target's next token, in nats, given its source and the target so far.

    A row holds several pairs, which do not see each other (data/pairs.py): besides the arrays of a packed batch of
    `NextToken`, which describe the targets, there are source, source_segments and source_positions int32 [B, S]. All
    scores are over the targets' tokens.
    """

    @property
    def windows(self) -> str:
        return "pairs"

    def row_fields(self) -> dict[str, jax.ShapeDtypeStruct]:
        data = self.config.data
        source = jax.ShapeDtypeStruct((data.source_length or data.sequence_length,), jnp.int32)
        return super().row_fields() | dict.fromkeys((SOURCE, SOURCE_SEGMENTS, SOURCE_POSITIONS), source)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        sources = {
            "source_BS": batch[SOURCE],
            "source_segments_BS": batch[SOURCE_SEGMENTS],
            "source_positions_BS": batch[SOURCE_POSITIONS],
        }
        return super().inputs(batch) | sources
