"""Draws tokens from next-token logits: penalties and truncations, then one draw for each row.

The processors are applied in the order of Hugging Face's `generate`, each to the result of the previous one:

    [bias →] repetition penalty → [other penalties →] temperature → top-k → top-p → min-p → draw

Those in brackets are only there for requests to the engine (`request_sampling`).

Every setting is an array `[B]` with one value per row, so that no setting ever recompiles a program and the rows of a
batch may differ. Row b at step i draws with `fold_in(key(seed_b), i)`: its tokens depend on its own seed and prompt,
but not on other rows or its position in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from gptjax.config import ConfigError
from gptjax.inference.request_sampling import RequestSampling


@struct.dataclass
class Sampling:
    """The sampling settings of each row of a batch; `make_sampling` checks the values and makes it."""

    seed_B: jax.Array  # uint32
    temperature_B: jax.Array  # 0: always the most probable token
    top_k_B: jax.Array  # 0: off
    top_p_B: jax.Array  # 1: off
    min_p_B: jax.Array  # 0: off
    repetition_penalty_B: jax.Array  # 1: off
    num_tokens: jax.Array  # int32 scalar: ids from this one on are padding of the vocabulary and are never drawn
    requested: RequestSampling | None = None  # settings that only requests to the engine have


def make_sampling(
    seeds: Any,
    *,
    num_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
) -> Sampling:
    """The settings of a batch of `len(seeds)` rows; a setting is one number for all rows or a sequence of one per row.

    Raises ConfigError for a value out of its range.
    """

    def rows(name: str, value: Any, dtype: Any, allowed: str, is_allowed: Callable[[Any], bool]) -> Any:
        try:
            value_B = np.broadcast_to(np.asarray(value), (len(seeds),))
            bad = [item for item in value_B.tolist() if not is_allowed(item)]
        except (TypeError, ValueError):  # not a number, or not one per row
            bad = [value]
        if bad:
            raise ConfigError(f"{name} = {bad[0]!r}: must be {allowed}")
        return value_B.astype(dtype)

    most = 1e30  # beyond it, arithmetic in float32 overflows
    temperature_B: Any = rows(
        "temperature", temperature, np.float64, "0 (greedy) or a positive number up to 1e30", lambda x: 0 <= x <= most
    )
    # Devices disagree on which numbers below float32's normal range are 0.
    temperature_B = np.where(temperature_B > 0, np.maximum(temperature_B, np.finfo(np.float32).tiny), 0)
    vocabulary: Any = np.int32(num_tokens)
    return Sampling(
        seed_B=rows(
            "seed", seeds, np.uint32, "an integer from 0 to 2^32 - 1", lambda x: 0 <= x < 2**32 and x == int(x)
        ),
        temperature_B=temperature_B.astype(np.float32),
        top_k_B=rows(
            "top_k", top_k, np.int32, "0 (off) or a positive integer", lambda x: 0 <= x < 2**31 and x == int(x)
        ),
        top_p_B=rows("top_p", top_p, np.float32, "above 0 and at most 1 (off)", lambda x: 0 < x <= 1),
        min_p_B=rows("min_p", min_p, np.float32, "from 0 (off) to 1", lambda x: 0 <= x <= 1),
        repetition_penalty_B=rows(
            "repetition_penalty",
            repetition_penalty,
            np.float32,
            "a number from 1e-30 to 1e30 (1: off)",
            lambda x: 1 / most <= x <= most,
        ),
        num_tokens=vocabulary,
    )


def sample(
    logits_BV: jax.Array,
    seen_BV: jax.Array,
    step_B: jax.Array,
    sampling: Sampling,
    counts_BV: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Draws one token for each row.

    Args:
      logits_BV: float32, as the model gives them.
      seen_BV: bool, the tokens of the row's prompt and of its text so far.
      step_B: int32, number of tokens that each row has already drawn.
      counts_BV: int32, how often the row's text has each token; needed for `sampling.requested`.

    Returns:
      token_B int32, and logprob_B float32: the token's log-probability under the model's own distribution, before any
      penalty, temperature or truncation, so that it does not depend on the settings.
    """
    processed_BV = process_logits(logits_BV, seen_BV, sampling, step_B, counts_BV)

    def draw(seed: jax.Array, step: jax.Array, logits_V: jax.Array) -> jax.Array:
        return jax.random.categorical(jax.random.fold_in(jax.random.key(seed), step), logits_V)

    greedy_B = jnp.argmax(processed_BV, -1)
    # Drawing needs a random number per token of the vocabulary, so it is skipped if no row needs it.
    drawn_B = jax.lax.cond(
        jnp.any(sampling.temperature_B > 0),
        lambda: jax.vmap(draw)(sampling.seed_B, step_B, processed_BV),
        lambda: greedy_B,
    )
    token_B = jnp.where(sampling.temperature_B > 0, drawn_B, greedy_B).astype(jnp.int32)
    logit_B = jnp.take_along_axis(logits_BV, token_B[:, None], -1)[:, 0]
    return token_B, logit_B - jax.nn.logsumexp(logits_BV, axis=-1)


def process_logits(
    logits_BV: jax.Array,
    seen_BV: jax.Array,
    sampling: Sampling,
    step_B: jax.Array | None = None,
    counts_BV: jax.Array | None = None,
) -> jax.Array:
    """Applies the processors in their order. Tokens that cannot be drawn get the logit -inf.

    The last two arguments, as in `sample`, are needed for `sampling.requested`.
    """
    requested = sampling.requested
    exists_V = jnp.arange(logits_BV.shape[-1]) < sampling.num_tokens
    logits_BV = jnp.where(exists_V, logits_BV, -jnp.inf)
    if requested is not None:
        logits_BV = requested.biased(logits_BV, step_B)
    logits_BV = penalize_repetition(logits_BV, seen_BV, sampling.repetition_penalty_B)
    if requested is not None:
        logits_BV = requested.penalized(logits_BV, counts_BV)
    logits_BV = divide_by_temperature(logits_BV, sampling.temperature_B)
    # Each search reads the logits 32 times, so it is skipped if no row needs it.
    logits_BV = jax.lax.cond(
        jnp.any(sampling.top_k_B > 0), lambda x_BV: keep_top_k(x_BV, sampling.top_k_B), lambda x_BV: x_BV, logits_BV
    )
    logits_BV = jax.lax.cond(
        jnp.any(sampling.top_p_B < 1), lambda x_BV: keep_top_p(x_BV, sampling.top_p_B), lambda x_BV: x_BV, logits_BV
    )
    return keep_min_p(logits_BV, sampling.min_p_B)


def penalize_repetition(logits_BV: jax.Array, seen_BV: jax.Array, penalty_B: jax.Array) -> jax.Array:
    """CTRL's penalty (arXiv:1909.05858, section 4.1), as usually implemented: it lowers the logits of seen tokens."""
    penalty_B1 = penalty_B[:, None]
    penalized_BV = jnp.where(logits_BV > 0, logits_BV / penalty_B1, logits_BV * penalty_B1)
    return jnp.where(seen_BV, penalized_BV, logits_BV)


def divide_by_temperature(logits_BV: jax.Array, temperature_B: jax.Array) -> jax.Array:
    """Logits divided by temperature; rows of temperature 0, which take the maximum anyway, are unchanged.

    Below 1, logits are shifted so that the largest is 0, which changes no probability: at any temperature, the
    quotients can only overflow to -inf, and the draw becomes the maximum.
    """
    peak_B = jnp.where((temperature_B > 0) & (temperature_B < 1), jnp.max(logits_BV, -1), 0.0)
    return (logits_BV - peak_B[:, None]) / jnp.where(temperature_B > 0, temperature_B, 1.0)[:, None]


def keep_top_k(logits_BV: jax.Array, top_k_B: jax.Array) -> jax.Array:
    """Keeps the k most probable tokens (0: all), and those that tie with the last of them."""
    V, order_BV = logits_BV.shape[-1], _order(logits_BV)
    k_B1 = jnp.where(top_k_B > 0, jnp.minimum(top_k_B, V), V)[:, None]
    last_B1 = _smallest(lambda x_B1: jnp.sum(order_BV > x_B1, -1, keepdims=True) < k_B1, top_k_B.shape)
    return jnp.where(order_BV >= last_B1, logits_BV, -jnp.inf)


def keep_top_p(logits_BV: jax.Array, top_p_B: jax.Array) -> jax.Array:
    """Keeps the nucleus (arXiv:1904.09751): the smallest set of most probable tokens whose mass reaches p, at least
    one, and those that tie with the last of them."""
    probability_BV, order_BV, p_B1 = jax.nn.softmax(logits_BV), _order(logits_BV), top_p_B[:, None]

    def is_reached_later(x_B1: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(order_BV > x_B1, probability_BV, 0), -1, keepdims=True) < p_B1

    last_B1 = jnp.minimum(_smallest(is_reached_later, top_p_B.shape), jnp.max(order_BV, -1, keepdims=True))
    # p = 1 is off: rounding in the sum must not cut the tail.
    return jnp.where((order_BV >= last_B1) | (p_B1 >= 1), logits_BV, -jnp.inf)


def _order(x: jax.Array) -> jax.Array:
    """Integers uint32 in the same order as these float32 numbers."""
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.uint32)  # -0 = 0
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _smallest(is_enough: Callable[[jax.Array], jax.Array], shape: tuple[int, ...]) -> jax.Array:
    """The smallest x_B1, uint32, for which `is_enough`, which is true for all numbers from some one on in each row.

    It is found bit by bit, in 32 steps. Sorting the vocabulary took ten times as long on a CPU.
    """

    def with_bit(step: jax.Array, x_B1: jax.Array) -> jax.Array:
        bit = jnp.uint32(1 << 31) >> step.astype(jnp.uint32)
        return jnp.where(is_enough(x_B1 | (bit - 1)), x_B1, x_B1 | bit)

    return jax.lax.fori_loop(0, 32, with_bit, jnp.zeros((*shape, 1), jnp.uint32))


def keep_min_p(logits_BV: jax.Array, min_p_B: jax.Array) -> jax.Array:
    """Min-p (arXiv:2407.01082): leaves out tokens less probable than min_p times the most probable one (0: off)."""
    threshold_B1 = jnp.max(logits_BV, -1, keepdims=True) + jnp.log(min_p_B)[:, None]
    return jnp.where(logits_BV >= threshold_B1, logits_BV, -jnp.inf)
