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

import math
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from gptjax.inference.decode_state import DecodeState, Written, draw, started
from gptjax.inference.devices import pinned
from gptjax.inference.request_sampling import alternatives
from gptjax.inference.sampling import Sampling
from gptjax.inference.speculation import draw_several
from gptjax.model.family import Cache, Family
from gptjax.model.int8 import quantize
from gptjax.model.one_row import OutputsFirst, TiedTable
from gptjax.model.parameters import Parameter, unstack


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
    return started(family, cache, logits_BV, prompt_BT, prompt_length_B, limit_B, sampling, eos_id, num_new=num_new)


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


@partial(jax.jit, static_argnames=("family", "num_new", "proposes"))
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
    proposes: bool = False,
) -> DecodeState:
    """Draws the first token of rows whose prompts have been read: what `prefill` does after reading.

    The result still lacks the cache, so that one program serves caches of all lengths.

    Args:
      x_BD: from the last `read`. The other arguments are those of `prefill`.
      proposes: whether `decode` will propose tokens; T must then be the number of slots of the largest cache.
    """
    logits_BV = family.logits(params, x_BD[:, None])[:, 0]
    prompt = prompt_BT, prompt_length_B
    options: dict[str, Any] = dict(num_new=num_new, proposes=proposes)
    return pinned(started(family, None, logits_BV, *prompt, limit_B, sampling, eos_id, **options))


@partial(jax.jit, static_argnames=("family", "num_proposed"), donate_argnames=("state",))
def decode(
    family: Family,
    params: Any,
    state: DecodeState,
    num_steps: jax.Array,
    stop_B: jax.Array,
    *,
    num_proposed: int = 0,
) -> DecodeState:
    """Takes `num_steps` steps, or fewer if all rows are done; rows in `stop_B` are done from now on.

    A step generates one token in each row, or up to 1 + `num_proposed`, for rows that were started for that. The caller
    must ensure that the cache has room for all these tokens in every row that is not done, and for those of one step in
    every row whose cache is still needed: each step writes there, also if the row is done.
    """

    def going_on(carry: tuple[jax.Array, DecodeState]) -> jax.Array:
        steps, state = carry
        return (steps < num_steps) & ~jnp.all(state.done_B)

    def step(carry: tuple[jax.Array, DecodeState]) -> tuple[jax.Array, DecodeState]:
        steps, state = carry
        if num_proposed:
            return steps + 1, draw_several(family, params, state, num_proposed)
        cache, logits_BV = family.step(params, state.cache, state.token_B, ~state.done_B)
        return steps + 1, draw(replace(state, cache=cache), logits_BV)

    state = replace(state, done_B=state.done_B | stop_B)
    if num_proposed:
        none_B = jnp.zeros_like(state.length_B)
        state = replace(state, proposed_B=none_B, accepted_B=none_B)
    state = jax.lax.while_loop(going_on, step, (jnp.int32(0), state))[1]
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


WEIGHTS = ("float32", "bfloat16", "int8")


@partial(jax.jit, static_argnames=("family", "weights", "outputs_first"))
def decoding_params(family: Family, params: Any, weights: str, outputs_first: bool = False) -> dict[str, Any]:
    """The parameters for decoding: one tree per layer, and matrices in the type `weights`.

    With stacked float32 parameters, every token would pay for slicing and casting each layer's weights. Parameters that
    the model uses in float32 stay float32: the norms, the learned positions (added before the cast), and routers.

    outputs_first: stores linear layers and the output matrix so that one CPU multiplies few rows faster (see
      `model/one_row.py`); only for float32.
    """

    def convert(parameter: Parameter, x: jax.Array) -> Any:
        if parameter.kind == "vector" or "position" in parameter.inputs or "router" in parameter.outputs:
            return x
        if outputs_first and parameter.tied:
            return TiedTable(x.astype(weights))
        is_linear = parameter.adaptable and not parameter.active  # multiplied by `project`
        if outputs_first and (is_linear or "vocab" in parameter.outputs):
            return OutputsFirst(x.astype(weights).reshape(math.prod(parameter.inputs.values()), -1).T)
        return quantize(x, parameter.shared_scale_axes) if weights == "int8" else x.astype(weights)

    return jax.tree.map(convert, *unstack(family.declarations, params))
