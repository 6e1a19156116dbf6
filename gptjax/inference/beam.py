"""Beam search: finds probable texts by keeping the best few beginnings at each token.

Sampling draws one token after another. A beam search keeps, for each prompt, the W most probable beginnings (beams),
extends each by every token of the vocabulary, and keeps the best W of these. A text that ends in EOS leaves the beams
and is kept among the W best finished texts. With W = 1 this is greedy decoding; with W of the order of V^(G - 1),
nothing is dropped, and the result is the most probable text.

Texts of different lengths are compared by log p(text) / ((5 + length) / 6)^penalty (Wu et al. 2016, arXiv:1609.08144,
equation 14, without its coverage term): each token lowers the log-probability, so that without a penalty (0) the
shortest text would win too often. `length` counts tokens including EOS.

A batch of B prompts is B · W rows of the model; row b W + w is beam w of prompt b. The whole search is one compiled
program.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from gptjax.model.family import Cache, Family


@struct.dataclass
class Texts:
    """W texts for each of B prompts, with room for G tokens, of which the first `length_BW` are the text."""

    tokens_BWG: jax.Array  # int32
    logprobs_BWG: jax.Array  # float32, of each token
    score_BW: jax.Array  # float32, best first; -inf: no text
    length_BW: jax.Array  # int32


@struct.dataclass
class SearchState:
    cache: Cache
    token_BW: jax.Array  # int32: the latest token of each beam, which the model has not read yet
    logprob_BW: jax.Array  # float32: log-probability of each beam; -inf: not a beam
    tokens_BWG: jax.Array  # int32: the beams' tokens
    logprobs_BWG: jax.Array  # float32
    length: jax.Array  # int32 scalar: tokens of each beam
    finished: Texts
    done_B: jax.Array  # bool: no beam can become better than the finished texts


@partial(jax.jit, static_argnames=("family", "rooms", "num_new", "num_beams", "num_tokens", "piece"))
def beam_search(
    family: Family,
    params: Any,
    prompt_BT: jax.Array,
    prompt_length_B: jax.Array,
    limit_B: jax.Array,
    penalty: jax.Array,
    eos_id: jax.Array,
    *,
    num_beams: int,
    num_tokens: int,
    rooms: tuple[int, ...],
    num_new: int,
    piece: int,
) -> Texts:
    """The best `num_beams` texts that a search finds after each prompt, best first.

    A row with non-finite logits ends at once with a text whose last log-probability is NaN.

    Args:
      family, params, prompt_BT, prompt_length_B, rooms, num_new, piece: as `decode.generate` takes them.
      limit_B: the maximum number of tokens of a text; a beam that reaches it is finished without EOS. 0: a row that
        only fills the batch.
      penalty: float32 scalar, the exponent of the length.
      eos_id: int32 scalar; -1: no token ends a text.
      num_beams: W.
      num_tokens: tokens of the tokenizer, ≥ 2; logits beyond them belong to no token.
    """
    B, W = prompt_BT.shape[0], num_beams
    cache, logits_BV = family.prefill(params, prompt_BT, prompt_length_B, room=0, piece=piece)
    cache = _rows(cache, jnp.repeat(jnp.arange(B), W))
    nothing = jnp.zeros((B, W, num_new), jnp.int32)
    unlikely_BW = jnp.full((B, W), -jnp.inf)
    state = SearchState(
        cache=cache,
        token_BW=jnp.zeros((B, W), jnp.int32),
        logprob_BW=unlikely_BW.at[:, 0].set(0.0),  # all beams equal the prompt, so only one takes part
        tokens_BWG=nothing,
        logprobs_BWG=nothing.astype(jnp.float32),
        length=jnp.int32(0),
        finished=Texts(nothing, nothing.astype(jnp.float32), unlikely_BW, jnp.zeros((B, W), jnp.int32)),
        done_B=limit_B == 0,
    )
    extend = partial(_extend, limit_B=limit_B, penalty=penalty, eos_id=eos_id, num_tokens=num_tokens)
    state = extend(state, jnp.repeat(logits_BV, W, axis=0))

    def one_token(state: SearchState) -> SearchState:
        going_R = jnp.repeat(~state.done_B, W)
        cache, logits_RV = family.step(params, state.cache, state.token_BW.reshape(-1), going_R)
        return extend(replace(state, cache=cache), logits_RV)

    for before, room in zip((0, *rooms), rooms):
        # The last token is not read, so beams may have one more token than the cache has room for.
        state = replace(state, cache=state.cache.grown(room - before))
        state = jax.lax.while_loop(partial(_goes_on, room), one_token, state)
    return state.finished


def _goes_on(room: int, state: SearchState) -> jax.Array:
    return (state.length < room) & ~jnp.all(state.done_B)


def _extend(
    state: SearchState,
    logits_RV: jax.Array,
    *,
    limit_B: jax.Array,
    penalty: jax.Array,
    eos_id: jax.Array,
    num_tokens: int,
) -> SearchState:
    """Extends every beam by every token: keeps the best W to extend further, and the best W finished texts."""
    (B, W, _), V = state.tokens_BWG.shape, num_tokens
    logprob_BWV = jax.nn.log_softmax(logits_RV.astype(jnp.float32)).reshape(B, W, -1)[..., :V]
    length = state.length + 1  # the length of the new beams
    total_BWV = state.logprob_BW[..., None] + logprob_BWV
    # At most one extension of each beam is finished, so at least W of the best 2 W are unfinished.
    total_BC, index_BC = jax.lax.top_k(total_BWV.reshape(B, W * V), 2 * W)
    beam_BC, token_BC = index_BC // V, index_BC % V

    def extended(x_BWG: jax.Array, new_BC: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x_BWG, beam_BC[..., None], axis=1).at[:, :, state.length].set(new_BC, mode="drop")

    tokens_BCG = extended(state.tokens_BWG, token_BC)
    logprobs_BCG = extended(state.logprobs_BWG, jnp.take_along_axis(logprob_BWV.reshape(B, W * V), index_BC, axis=1))

    ends_BC = (token_BC == eos_id) | (length >= limit_B)[:, None]
    ending_BC = jnp.where(ends_BC, total_BC / _length_divisor(length, penalty), -jnp.inf)
    finished = Texts(tokens_BCG, logprobs_BCG, ending_BC, jnp.full((B, 2 * W), length))
    both = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), state.finished, finished)
    finished = _best(both, both.score_BW, W)

    going_BC = jnp.where(ends_BC, -jnp.inf, total_BC)
    going = _best((token_BC, going_BC, tokens_BCG, logprobs_BCG, beam_BC), going_BC, W)
    token_BW, logprob_BW, tokens_BWG, logprobs_BWG, beam_BW = going

    # Log-probabilities only fall, and the divisor is monotone: no beam's score can rise above the better of these two.
    best_B = logprob_BW[:, 0]
    divisors = _length_divisor(length + 1, penalty), _length_divisor(limit_B, penalty)
    bound_B = jnp.maximum(best_B / divisors[0], best_B / divisors[1])
    done_B = bound_B <= finished.score_BW[:, -1]

    is_broken_B = jnp.any(jnp.isnan(logits_RV.reshape(B, -1)), axis=-1)
    finished = replace(
        finished,
        score_BW=finished.score_BW.at[:, 0].set(jnp.where(is_broken_B, jnp.inf, finished.score_BW[:, 0])),
        length_BW=finished.length_BW.at[:, 0].set(jnp.where(is_broken_B, length, finished.length_BW[:, 0])),
        logprobs_BWG=jnp.where(is_broken_B[:, None, None], jnp.nan, finished.logprobs_BWG),
    )
    source_R = (jnp.arange(B)[:, None] * W + beam_BW).reshape(-1)
    new = SearchState(
        cache=_rows(state.cache, source_R),
        token_BW=token_BW,
        logprob_BW=logprob_BW,
        tokens_BWG=tokens_BWG,
        logprobs_BWG=logprobs_BWG,
        length=length,
        finished=finished,
        done_B=done_B | (length >= limit_B) | is_broken_B,
    )
    return _unless(state.done_B, state, new)


def _unless(done_B: jax.Array, old: Any, new: Any) -> SearchState:
    """The new state, except that finished prompts keep their old values. Their rows of the cache are not read."""

    def choose(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.where(done_B.reshape(-1, *[1] * (x.ndim - 1)), x, y) if x.ndim else y

    kept: Any = jax.tree.map(choose, replace(old, cache=None), replace(new, cache=None))
    return replace(kept, cache=new.cache)


def _length_divisor(length: jax.Array, penalty: jax.Array) -> jax.Array:
    return ((5.0 + length) / 6.0) ** penalty


def _best(tree: Any, score_BC: jax.Array, count: int) -> Any:
    """The `count` entries with the highest scores along axis 1, best first."""
    index_BW = jax.lax.top_k(score_BC, count)[1]
    return jax.tree.map(
        lambda x: jnp.take_along_axis(x, index_BW.reshape(*index_BW.shape, *[1] * (x.ndim - 2)), axis=1), tree
    )


def _rows(cache: Any, index_R: jax.Array) -> Any:
    """A cache whose row r is row index_R[r] of this one."""
    return jax.tree.map(lambda x: x[index_R], cache)
