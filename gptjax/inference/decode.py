"""The compiled programs of generation: `prefill` reads the prompts, and `decode` generates tokens.

`generate` is both in one program, for callers who need only the result. `prefill` and `decode` are for callers who show
text while it is generated. All state is one pytree, `DecodeState`, which is donated to `decode` and updated in place.
The loop over tokens is inside the program, a `lax.while_loop`. Only shapes are compiled in: two generations of the same
shape share one program.

Rows are independent: `insert` replaces a finished row by one that was just prefilled, while the others continue. The
text of a row depends only on its prompt and its seed. For the engine, which does that all the time (see `batch`), a
prompt may also be read by several calls of `read`, after which `start` makes its row, and `arrange` changes the number
of rows and slots.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from gptjax.inference.devices import pinned
from gptjax.inference.request_sampling import alternatives, num_alternatives
from gptjax.inference.sampling import Sampling, sample
from gptjax.model.family import Cache, Family
from gptjax.model.int8 import quantize
from gptjax.model.parameters import Parameter, unstack


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

    @property
    def written(self) -> Written:
        return Written(self.tokens_BG, self.logprobs_BG, self.length_B)


@partial(jax.jit, static_argnames=("family", "room", "num_new", "piece"))
def prefill(
    family: Family,
    params: Any,
    prompt_BT: jax.Array,
    prompt_length_B: jax.Array,
    limit_B: jax.Array,
    sampling: Sampling,
    eos_id: jax.Array,
    *,
    room: int,
    num_new: int,
    piece: int,
) -> DecodeState:
    """Runs the prompts through the model and draws the first token of each row.

    Args:
      family: the model family, with its config.
      params: from `decoding_params`.
      prompt_BT: int32, row b's prompt in its first prompt_length_B[b] ≥ 1 places, T as `prompt_slots` rounds it.
      room: new tokens that the cache has room for.
      num_new: G.
      piece: prompt tokens that the model reads at a time.
    """
    cache, logits_BV = family.prefill(params, prompt_BT, prompt_length_B, room=room, piece=piece)
    return _started(family, cache, logits_BV, prompt_BT, prompt_length_B, limit_B, sampling, eos_id, num_new=num_new)


@partial(jax.jit, static_argnames=("family", "slots"))
def empty_cache(family: Family, *, slots: int) -> Cache:
    """The cache of one row that has read nothing."""
    return pinned(family.empty_cache(1, slots))


@partial(jax.jit, static_argnames=("family",), donate_argnames=("caches",))
def read(
    family: Family, params: Any, caches: tuple[Cache, ...], tokens_RT: jax.Array, num_new_R: jax.Array
) -> tuple[tuple[Cache, ...], tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """Reads the next num_new_R[r] ≥ 1 tokens of each of R prompts, whose caches have one row each.

    Returns, for each prompt:
      its cache; x_1TD of all T tokens, for `score`; x_1D of the last one, for `start`.
    """
    cache = jax.tree.map(lambda *rows: jnp.concatenate(rows), *caches)
    cache, x_RTD = family.read(params, cache, tokens_RT, num_new_R)
    last_RD = x_RTD[jnp.arange(len(caches)), num_new_R - 1]

    def split(tree: Any) -> tuple[Any, ...]:
        return tuple(jax.tree.map(lambda x, row=row: x[row : row + 1], tree) for row in range(len(caches)))

    return pinned((split(cache), split(x_RTD), split(last_RD)))


@partial(jax.jit, static_argnames=("family",))
def score(family: Family, params: Any, x_BTD: jax.Array, next_BT: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-probabilities [B, T] of the tokens that follow those read, and the alternatives to them (`alternatives`)."""
    logits_BTV = family.logits(params, x_BTD)
    logprob_BT = jnp.take_along_axis(jax.nn.log_softmax(logits_BTV), next_BT[..., None], -1)[..., 0]
    return logprob_BT, *alternatives(logits_BTV)


@partial(jax.jit, static_argnames=("family", "num_new"))
def start(
    family: Family,
    params: Any,
    x_BD: jax.Array,
    prompt_BT: jax.Array,
    prompt_length_B: jax.Array,
    limit_B: jax.Array,
    sampling: Sampling,
    eos_id: jax.Array,
    *,
    num_new: int,
) -> DecodeState:
    """Draws the first token of rows whose prompts have been read: what `prefill` does after reading.

    The result still lacks the cache, so that one program serves caches of all lengths.

    x_BD: from the last `read`. The other arguments are those of `prefill`.
    """
    logits_BV = family.logits(params, x_BD[:, None])[:, 0]
    prompt = prompt_BT, prompt_length_B
    return pinned(_started(family, None, logits_BV, *prompt, limit_B, sampling, eos_id, num_new=num_new))


@partial(jax.jit, static_argnames=("family",), donate_argnames=("state",))
def decode(family: Family, params: Any, state: DecodeState, num_steps: jax.Array, stop_B: jax.Array) -> DecodeState:
    """Generates `num_steps` more tokens, or fewer if all rows are done; rows in `stop_B` are done from now on.

    The caller must ensure that the cache has room for these tokens in every row that is not done.
    """

    def going_on(carry: tuple[jax.Array, DecodeState]) -> jax.Array:
        steps, state = carry
        return (steps < num_steps) & ~jnp.all(state.done_B)

    def one_token(carry: tuple[jax.Array, DecodeState]) -> tuple[jax.Array, DecodeState]:
        steps, state = carry
        cache, logits_BV = family.step(params, state.cache, state.token_B, ~state.done_B)
        return steps + 1, _draw(replace(state, cache=cache), logits_BV)

    start = jnp.int32(0), replace(state, done_B=state.done_B | stop_B)
    state = jax.lax.while_loop(going_on, one_token, start)[1]
    return state if state.sampling.requested is None else pinned(state)


@partial(jax.jit, donate_argnames=("state",))
def insert(state: DecodeState, new: DecodeState, row: jax.Array) -> DecodeState:
    """The state with row `row` replaced by the only row of `new`, which has the same room or less.

    The whole row is overwritten, up to the last slot of its cache, so nothing of the earlier row remains.
    """

    def place(x: jax.Array, new_1: jax.Array) -> jax.Array:
        if x.ndim == 0:  # these belong to the whole batch
            return x
        padded = jnp.pad(new_1, [(0, size - length) for size, length in zip((1, *x.shape[1:]), new_1.shape)])
        return jax.lax.dynamic_update_slice_in_dim(x, padded.astype(x.dtype), row, axis=0)

    return pinned(jax.tree.map(place, state, new))


@partial(jax.jit, static_argnames=("slots",))
def arrange(state: DecodeState, row_B: jax.Array, *, slots: int) -> DecodeState:
    """The state with other rows, row_B[b] of the old ones in place b, and with `slots` slots.

    A negative number stands for a row that is done. No row that goes on may have more tokens than `slots`.
    """
    state = jax.tree.map(lambda x: x if x.ndim == 0 else x[jnp.maximum(row_B, 0)], state)
    return pinned(replace(state, cache=state.cache.with_slots(slots), done_B=state.done_B | (row_B < 0)))


@partial(jax.jit, static_argnames=("family", "rooms", "num_new", "piece"))
def generate(
    family: Family,
    params: Any,
    prompt_BT: jax.Array,
    prompt_length_B: jax.Array,
    limit_B: jax.Array,
    sampling: Sampling,
    eos_id: jax.Array,
    *,
    rooms: tuple[int, ...],
    num_new: int,
    piece: int,
) -> Written:
    """`prefill`, then `decode` until every row is done.

    Args:
      rooms: the numbers of new tokens for which the cache has room after each growth, the last at least num_new; each
        has its own loop.
    """
    inputs = (prompt_BT, prompt_length_B, limit_B, sampling, eos_id)
    state = prefill(family, params, *inputs, room=0, num_new=num_new, piece=piece)
    for before, room in zip((0, *rooms), rooms):
        state = replace(state, cache=state.cache.grown(room - before))
        # The first new token of a row comes from the prefill, and the last one is not read.
        state = decode(family, params, state, jnp.int32(room - max(before, 1)), jnp.zeros_like(state.done_B))
    return state.written


def _started(
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
    return _draw(state, logits_BV)


def _draw(state: DecodeState, logits_BV: jax.Array) -> DecodeState:
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
    # Finished rows also draw a token, which is dropped.
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
    counts_BV = counts_BV.at[rows, token_B].add(1)
    return replace(state, counts_BV=counts_BV, top_tokens_BGA=tokens_BGA, top_logprobs_BGA=logprobs_BGA)


WEIGHTS = ("float32", "bfloat16", "int8")


@partial(jax.jit, static_argnames=("family", "weights"))
def decoding_params(family: Family, params: Any, weights: str) -> dict[str, Any]:
    """The parameters for decoding: one tree per layer, and matrices in the type `weights`.

    With stacked float32 parameters, every token would pay for slicing and casting each layer's weights. Parameters that
    the model uses in float32 stay float32: the norms, the learned positions (added before the cast), and routers.
    """

    def convert(parameter: Parameter, x: jax.Array) -> Any:
        if parameter.kind == "vector" or "position" in parameter.inputs or "router" in parameter.outputs:
            return x
        return quantize(x, parameter.shared_scale_axes) if weights == "int8" else x.astype(weights)

    return jax.tree.map(convert, *unstack(family.declarations, params))
