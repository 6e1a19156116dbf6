"""The state of rows while their texts are generated, and how a token is added to it.

All state is one pytree, so that a program can take it, donate it and return it (see `decode`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from gptjax.inference.request_sampling import alternatives, num_alternatives
from gptjax.inference.sampling import Sampling, sample
from gptjax.model.family import Cache, Family


class Written(NamedTuple):
    """G is the room for new tokens; the first `length_B[b]` of row b are its text."""

    tokens_BG: jax.Array
    logprobs_BG: jax.Array
    length_B: jax.Array


@struct.dataclass
class DecodeState:
    """The state of a batch of rows during generation."""

    cache: Cache
    token_B: jax.Array  # int32: the latest token of each row, which the model has not read yet
    tokens_BG: jax.Array  # int32
    logprobs_BG: jax.Array  # float32, of the tokens under the unmodified model
    length_B: jax.Array  # int32: tokens of the row, including EOS
    limit_B: jax.Array  # int32: the maximum length; 0 for a row that only fills the batch
    done_B: jax.Array  # bool
    seen_BV: jax.Array  # bool: tokens of the prompt and of the text so far
    sampling: Sampling
    eos_id: jax.Array  # int32 scalar; -1: the tokenizer has none
    # Only with `sampling.requested`: how often each token is in the text, and A alternatives to each of its tokens.
    counts_BV: jax.Array | None = None  # int32
    top_tokens_BGA: jax.Array | None = None  # int32
    top_logprobs_BGA: jax.Array | None = None  # float32
    # Only with proposals (see `speculation`): the token in each slot of the cache, and the tokens that were proposed
    # and that were accepted, of each row in the latest call.
    read_BS: jax.Array | None = None  # int32
    proposed_B: jax.Array | None = None  # int32
    accepted_B: jax.Array | None = None  # int32

    @property
    def written(self) -> Written:
        return Written(self.tokens_BG, self.logprobs_BG, self.length_B)


def started(
    family: Family,
    cache: Any,
    logits_BV: jax.Array,
    prompt_BT: jax.Array,
    prompt_length_B: jax.Array,
    limit_B: jax.Array,
    sampling: Sampling,
    eos_id: jax.Array,
    *,
    num_new: int,
    proposes: bool = False,
) -> DecodeState:
    """The state of rows whose prompts have been read, with their first token."""
    B, T = prompt_BT.shape
    is_prompt_BT = (jnp.arange(T) < prompt_length_B[:, None]) & family.continues
    seen_BV = jnp.zeros(logits_BV.shape, bool).at[jnp.arange(B)[:, None], prompt_BT].max(is_prompt_BT)
    state = DecodeState(
        cache=cache,
        token_B=jnp.zeros(B, jnp.int32),
        tokens_BG=jnp.zeros((B, num_new), jnp.int32),
        logprobs_BG=jnp.zeros((B, num_new), jnp.float32),
        length_B=jnp.zeros(B, jnp.int32),
        limit_B=limit_B,
        done_B=limit_B == 0,
        seen_BV=seen_BV,
        sampling=sampling,
        eos_id=eos_id,
    )
    if sampling.requested is not None:
        shape = (B, num_new, num_alternatives(logits_BV.shape[-1]))
        state = replace(
            state,
            counts_BV=jnp.zeros(logits_BV.shape, jnp.int32),
            top_tokens_BGA=jnp.zeros(shape, jnp.int32),
            top_logprobs_BGA=jnp.zeros(shape, jnp.float32),
        )
    if proposes:
        none_B = jnp.zeros(B, jnp.int32)
        state = replace(state, read_BS=prompt_BT, proposed_B=none_B, accepted_B=none_B)
    return draw(state, logits_BV)


def draw(state: DecodeState, logits_BV: jax.Array) -> DecodeState:
    """Adds one token to every row that is not done.

    Non-finite logits give a log-probability of NaN, which the host reports: all rows end there, or in the engine, where
    they belong to different callers, that row.
    """
    rows, G, requested = jnp.arange(state.length_B.shape[0]), state.tokens_BG.shape[1], state.sampling.requested
    token_B, logprob_B = sample(logits_BV, state.seen_BV, state.length_B, state.sampling, state.counts_BV)
    length_B = state.length_B + ~state.done_B
    is_broken_B = jnp.isnan(logprob_B) & ~state.done_B
    if requested is None:
        ends_B, is_broken_B = token_B == state.eos_id, jnp.any(is_broken_B)
    else:
        ends_B = requested.ends(token_B)
        state = _with_requested(state, logits_BV, token_B)
    token_B = jnp.where(state.done_B, state.token_B, token_B)  # finished rows also draw a token, which is dropped
    place_B = jnp.where(state.done_B, G, state.length_B % G)
    return replace(
        state,
        token_B=token_B,
        tokens_BG=state.tokens_BG.at[rows, place_B].set(token_B, mode="drop"),
        logprobs_BG=state.logprobs_BG.at[rows, place_B].set(logprob_B, mode="drop"),
        length_B=length_B,
        done_B=state.done_B | ends_B | (length_B >= state.limit_B) | is_broken_B,
        seen_BV=state.seen_BV.at[rows, token_B].set(True),
    )


def _with_requested(state: DecodeState, logits_BV: jax.Array, token_B: jax.Array) -> DecodeState:
    """Counts the tokens just drawn, and writes the alternatives to them where a row asks for some."""
    rows, G = jnp.arange(token_B.shape[0]), state.tokens_BG.shape[1]
    place_B = jnp.where(state.done_B, G, state.length_B % G)

    def written(arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(x.at[rows, place_B].set(new, mode="drop") for x, new in zip(arrays, alternatives(logits_BV)))

    old: Any = (state.top_tokens_BGA, state.top_logprobs_BGA)
    requested: Any = state.sampling.requested
    is_wanted = jnp.any((requested.num_top_B > 0) & ~state.done_B)
    tokens_BGA, logprobs_BGA = jax.lax.cond(is_wanted, written, lambda old: old, old)
    counts_BV: Any = state.counts_BV
    counts_BV = counts_BV.at[rows, token_B].add(~state.done_B)
    return replace(state, counts_BV=counts_BV, top_tokens_BGA=tokens_BGA, top_logprobs_BGA=logprobs_BGA)
