"""The compiled programs of generation: `prefill` reads the prompts, `decode` writes tokens until it may stop.

`generate` is both in one program, for whoever only wants the end; the two by themselves are for those who watch. All
state is one pytree, `DecodeState`, which `decode` takes over (donation) and updates where it lies. The loop over tokens
is inside the program, a `lax.while_loop`. Nothing in which two generations of the same shape differ is compiled in.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from gptjax.inference import cache as kv
from gptjax.inference.sampling import Sampling, sample
from gptjax.model.decoder import Decoder, declarations
from gptjax.model.int8 import quantize
from gptjax.model.parameters import Parameter, unstack_layers


@struct.dataclass
class DecodeState:
    """G is the room for new tokens; only the first `length_B[b]` of row b are its text."""

    cache: dict
    step: jax.Array  # int32 scalar: tokens drawn by every row that is still going
    tokens_BG: jax.Array  # int32
    logprobs_BG: jax.Array  # float32, of the tokens under the unmodified model
    length_B: jax.Array  # int32: tokens of the row, its EOS included
    limit_B: jax.Array  # int32: at most so many; 0 for a row that only fills up the batch
    done_B: jax.Array  # bool
    seen_BV: jax.Array  # bool: tokens of the prompt and of the text so far
    sampling: Sampling
    eos_id: jax.Array  # int32 scalar; -1: the tokenizer has none


@partial(jax.jit, static_argnames=("config", "slots", "num_new"))
def prefill(
    config,
    params,
    prompt_BT: jax.Array,
    start_B: jax.Array,
    limit_B: jax.Array,
    sampling: Sampling,
    eos_id: jax.Array,
    *,
    slots: int,
    num_new: int,
) -> DecodeState:
    """Runs the prompts through the model and draws the first token of each row.

    Args:
      config: the resolved `model` section.
      params: from `decoding_params`.
      prompt_BT: int32, right-aligned, T as `prompt_slots` rounds it; what is before `start_B` is ignored.
      slots: positions of the cache that is returned, at least T.
      num_new: G.
    """
    model = Decoder(config)
    B, T = prompt_BT.shape

    def read_piece(cache, piece_BT):
        logits_BTV, cache = model.apply({"params": params}, piece_BT, cache=cache, last_only=True)
        return cache, logits_BTV[:, 0]

    # The prompt attends to a cache that is just long enough for it; room for what follows is added after. A long one
    # is read piece by piece, or its attention logits [B, N, T, S] would be the largest array of all.
    piece = min(T, kv.PIECE)
    pieces = jnp.moveaxis(prompt_BT.reshape(B, T // piece, piece), 1, 0)
    cache, logits_PBV = jax.lax.scan(read_piece, kv.allocate(config, start_B, T), pieces)
    is_prompt_BT = jnp.arange(T) >= start_B[:, None]
    seen_BV = jnp.zeros((B, config.vocab_size), bool).at[jnp.arange(B)[:, None], prompt_BT].max(is_prompt_BT)
    state = DecodeState(
        cache=kv.grow(cache, slots),
        step=jnp.int32(0),
        tokens_BG=jnp.zeros((B, num_new), jnp.int32),
        logprobs_BG=jnp.zeros((B, num_new), jnp.float32),
        length_B=jnp.zeros(B, jnp.int32),
        limit_B=limit_B,
        done_B=limit_B == 0,
        seen_BV=seen_BV,
        sampling=sampling,
        eos_id=eos_id,
    )
    return _draw(state, logits_PBV[-1])


@partial(jax.jit, static_argnames=("config",), donate_argnames=("state",))
def decode(config, params, state: DecodeState, until: jax.Array, stop_B: jax.Array) -> DecodeState:
    """Goes on until every row is done or has drawn `until` tokens; rows in `stop_B` are done as of now.

    The caller sees to it that the cache has room: slots >= T + until.
    """

    model = Decoder(config)

    def going_on(state):
        return (state.step < until) & ~jnp.all(state.done_B)

    def one_token(state):
        token_B1 = jax.lax.dynamic_slice_in_dim(state.tokens_BG, state.step - 1, 1, axis=1)
        logits_BTV, cache = model.apply({"params": params}, token_B1, cache=state.cache)
        return _draw(state.replace(cache=cache), logits_BTV[:, 0])

    return jax.lax.while_loop(going_on, one_token, state.replace(done_B=state.done_B | stop_B))


@partial(jax.jit, static_argnames=("config", "slots", "num_new"))
def generate(
    config,
    params,
    prompt_BT: jax.Array,
    start_B: jax.Array,
    limit_B: jax.Array,
    sampling: Sampling,
    eos_id: jax.Array,
    *,
    slots: tuple[int, ...],
    num_new: int,
) -> DecodeState:
    """`prefill`, then `decode` until every row is done; the state that is returned has no cache any more.

    Args:
      slots: the sizes through which the cache grows, the last with room for T + num_new; each has a loop of its own.
    """
    state = prefill(
        config, params, prompt_BT, start_B, limit_B, sampling, eos_id, slots=prompt_BT.shape[1], num_new=num_new
    )
    for size in slots:
        state = state.replace(cache=kv.grow(state.cache, size))
        state = decode(config, params, state, jnp.int32(size - prompt_BT.shape[1]), jnp.zeros_like(state.done_B))
    return state.replace(cache=None, seen_BV=None)


def _draw(state: DecodeState, logits_BV: jax.Array) -> DecodeState:
    """Adds one token to every row; to those that are done too, where nobody will read it.

    Logits that are no distribution give a log-probability that is NaN: all rows end there, for the host to say so.
    """
    token_B, logprob_B = sample(logits_BV, state.seen_BV, state.step, state.sampling)
    length_B = state.length_B + ~state.done_B
    is_broken = jnp.any(jnp.isnan(logprob_B) & ~state.done_B)
    return state.replace(
        step=state.step + 1,
        tokens_BG=jax.lax.dynamic_update_slice_in_dim(state.tokens_BG, token_B[:, None], state.step, axis=1),
        logprobs_BG=jax.lax.dynamic_update_slice_in_dim(state.logprobs_BG, logprob_B[:, None], state.step, axis=1),
        length_B=length_B,
        done_B=state.done_B | (token_B == state.eos_id) | (length_B >= state.limit_B) | is_broken,
        seen_BV=state.seen_BV.at[jnp.arange(token_B.shape[0]), token_B].set(True),
    )


WEIGHTS = ("float32", "bfloat16", "int8")


@partial(jax.jit, static_argnames=("config", "weights"))
def decoding_params(config, params, weights: str) -> dict:
    """The parameters as decoding reads them: one tree a layer, and matrices in the type `weights`.

    Left stacked and float32, every token would pay for slicing out each layer's weights and for casting them. What the
    model itself uses in float32 stays: the norms, and the learned positions (added before the cast).
    """

    def convert(parameter: Parameter, x: jax.Array):
        if parameter.kind == "vector" or "position" in parameter.inputs:
            return x
        return quantize(x, parameter.shared_scale_axes) if weights == "int8" else x.astype(weights)

    declared = declarations(config)
    declared = declared | {"layers": [declared["layers"]] * config.num_layers}
    params = params | {"layers": unstack_layers(params["layers"], config.num_layers)}
    return jax.tree.map(convert, declared, params)
