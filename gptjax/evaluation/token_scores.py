"""Log-likelihoods of given tokens, from logits that exist only for some tokens of the vocabulary at a time.

With a large vocabulary, the logits of few positions fill a processor's cache. If the positions were divided instead of
the vocabulary, the output matrix, which is larger still, would be read from memory anew for each few positions. Here it
is read once for many: log Σ exp(logits) and the most likely token are carried from one part of the vocabulary to the
next.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gptjax.model.int8 import Int8
from gptjax.model.precision import project_float32
from gptjax.model.softcap import softcap


def score_tokens(
    x_qD: jax.Array, head: Callable[[], jax.Array | Int8], tokens_q: jax.Array, logit_softcap: float, most: int
) -> tuple[jax.Array, jax.Array]:
    """Scores one token per position.

    Args:
      x_qD: the last hidden state of each position.
      head: returns the output matrix head_DV. It is called where it is used: a matrix transposed before the loop over
        its parts would be copied.
      tokens_q: the tokens to score.
      logit_softcap: as in `softcap`.
      most: the number of tokens of the vocabulary whose logits may exist at a time. At least V: all.

    Returns:
      The log-likelihood of each token, and whether it is the most likely one: the first of them if several are.
    """
    V = jax.eval_shape(head).shape[1]
    parts = -(-V // most)
    C = -(-V // parts)

    def logits_of(head_DC: jax.Array | Int8) -> jax.Array:
        return softcap(project_float32(x_qD[None], head_DC)[0], logit_softcap)

    if parts == 1:
        return _whole(logits_of(head()), tokens_q)

    def read_part(i: jax.Array, read: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        largest_q, sum_q, at_token_q, best_q = read
        first = jnp.minimum(i * C, V - C)  # the last part has the same size and repeats some of the one before,
        new_C = first + jnp.arange(C) >= i * C  # which counts once
        part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, C, axis=1), head())
        logits_qC = jnp.where(new_C, logits_of(part), -jnp.inf)
        place_q = tokens_q - first
        found_q = jnp.take_along_axis(logits_qC, jnp.clip(place_q, 0, C - 1)[:, None], axis=-1)[:, 0]
        at_token_q = jnp.where((tokens_q >= i * C) & (place_q < C), found_q, at_token_q)
        here_q = logits_qC.max(axis=-1)
        # The place of the largest logit, in plain arithmetic: XLA:CPU's argmax takes longer than the head's product.
        best_here_q = jnp.where(logits_qC == here_q[:, None], first + jnp.arange(C), V).min(axis=-1)
        best_q = jnp.where(here_q > largest_q, best_here_q, best_q)
        new_q = jnp.maximum(largest_q, here_q)
        sum_q = sum_q * jnp.exp(largest_q - new_q) + jnp.exp(logits_qC - new_q[:, None]).sum(axis=-1)
        return new_q, sum_q, at_token_q, best_q

    zeros_q = jnp.zeros(tokens_q.shape, jnp.float32)
    nothing = jnp.full_like(zeros_q, -jnp.inf), zeros_q, zeros_q, jnp.full_like(tokens_q, -1)
    largest_q, sum_q, at_token_q, best_q = jax.lax.fori_loop(0, parts, read_part, nothing)
    return at_token_q - largest_q - jnp.log(sum_q), best_q == tokens_q


def _whole(logits_qV: jax.Array, tokens_q: jax.Array) -> tuple[jax.Array, jax.Array]:
    at_tokens_q1 = jnp.take_along_axis(logits_qV, tokens_q[:, None], axis=-1)
    nats_q = at_tokens_q1[:, 0] - jax.nn.logsumexp(logits_qV, axis=-1)
    # Whether argmax is the token, in plain arithmetic, as above.
    is_earlier_qV = jnp.arange(logits_qV.shape[1]) < tokens_q[:, None]
    loses_qV = jnp.where(is_earlier_qV, logits_qV < at_tokens_q1, logits_qV <= at_tokens_q1)
    return nats_q, loses_qV.all(axis=-1)
