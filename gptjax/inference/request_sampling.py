"""Settings of rows that only requests to the engine have: biases, penalties, several end tokens, alternatives.

Programs without them, those of `Generator`, do not pay for them. As in `sampling`, every setting is an array with one
entry per row, and what no row of a batch asks for is skipped on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from gptjax.inference.sampling_params import MOST_BIASES, MOST_LOGPROBS, MOST_STOP_TOKENS, SamplingParams

_NO_TOKEN = 2**30  # fills lists of tokens: it is beyond every vocabulary, and writes to it are dropped


@struct.dataclass
class RequestSampling:
    """E is the room for end tokens, M that for biases."""

    end_BE: jax.Array  # int32: tokens that end the row
    min_tokens_B: jax.Array  # int32: no end token is drawn before the row has this many
    presence_penalty_B: jax.Array
    frequency_penalty_B: jax.Array
    biased_BM: jax.Array  # int32: tokens
    bias_BM: jax.Array  # float32: what is added to their logits
    num_top_B: jax.Array  # int32: alternatives to report with each token

    def biased(self, logits_BV: jax.Array, step_B: Any) -> jax.Array:
        """Logits with the biases; end tokens of rows that are still too short are impossible."""
        rows_B1 = jnp.arange(logits_BV.shape[0])[:, None]
        logits_BV = jax.lax.cond(
            jnp.any(self.bias_BM != 0),
            lambda logits_BV: logits_BV.at[rows_B1, self.biased_BM].add(self.bias_BM, mode="drop"),
            lambda logits_BV: logits_BV,
            logits_BV,
        )
        too_short_B1 = (step_B < self.min_tokens_B)[:, None]
        banned_BE = jnp.where(too_short_B1, self.end_BE, _NO_TOKEN)
        return logits_BV.at[rows_B1, banned_BE].set(-jnp.inf, mode="drop")

    def penalized(self, logits_BV: jax.Array, counts_BV: Any) -> jax.Array:
        """OpenAI's penalties of tokens that the text already has, counts_BV times."""
        presence_B1, frequency_B1 = self.presence_penalty_B[:, None], self.frequency_penalty_B[:, None]
        return jax.lax.cond(
            jnp.any((presence_B1 != 0) | (frequency_B1 != 0)),
            lambda logits_BV: logits_BV - presence_B1 * (counts_BV > 0) - frequency_B1 * counts_BV,
            lambda logits_BV: logits_BV,
            logits_BV,
        )

    def ends(self, token_B: jax.Array) -> jax.Array:
        """Whether the token ends its row, bool [B]."""
        return jnp.any(token_B[:, None] == self.end_BE, axis=1)


def alternatives(logits_BV: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The most probable tokens [B, A] and their log-probabilities, best first; A is MOST_LOGPROBS or V."""
    logprob_BA, token_BA = jax.lax.top_k(jax.nn.log_softmax(logits_BV), num_alternatives(logits_BV.shape[-1]))
    return token_BA.astype(jnp.int32), logprob_BA


def num_alternatives(vocab_size: int) -> int:
    """A, the number of alternatives that programs compute."""
    return min(MOST_LOGPROBS, vocab_size)


def make_request_sampling(params: SamplingParams, end_ids: Sequence[int]) -> RequestSampling:
    """The settings of a row [1]."""

    def filled(values: Sequence[Any], room: int, fill: Any, dtype: Any) -> Any:
        return np.array([[*values, *[fill] * (room - len(values))]], dtype)

    def one(value: Any, dtype: Any) -> Any:
        return np.array([value], dtype)

    return RequestSampling(
        end_BE=filled(end_ids, MOST_STOP_TOKENS + 1, _NO_TOKEN, np.int32),
        min_tokens_B=one(params.min_tokens, np.int32),
        presence_penalty_B=one(params.presence_penalty, np.float32),
        frequency_penalty_B=one(params.frequency_penalty, np.float32),
        biased_BM=filled(list(params.logit_bias), MOST_BIASES, _NO_TOKEN, np.int32),
        bias_BM=filled(list(params.logit_bias.values()), MOST_BIASES, 0.0, np.float32),
        num_top_B=one(params.logprobs or 0, np.int32),
    )
