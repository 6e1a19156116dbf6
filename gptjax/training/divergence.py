"""How far a student's predictions are from a teacher's, per token, in nats.

With the distributions p of the teacher and q of the student at a temperature τ, which divides both models' logits:

    forward   KL(p ‖ q) = Σ p (log p - log q)      the student must cover everything that the teacher may say
    reverse   KL(q ‖ p) = Σ q (log q - log p)      the student must not say what the teacher would not

With top_k, the two distributions are compared over k + 1 events: the k tokens that the teacher finds likeliest, and
"any other token". This divergence is never larger than that over all tokens, and it is zero only if the student gives
the k tokens the teacher's own probabilities. (A sum over k tokens alone, or over k renormalized ones, has its minimum
elsewhere: arXiv:2503.16870.)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def forward_divergence(
    teacher_BTV: jax.Array, student_BTV: jax.Array, *, temperature: float = 1.0, top_k: int = 0
) -> jax.Array:
    """KL(teacher ‖ student) of every token, float32 [B, T].

    Args:
      teacher_BTV, student_BTV: float32 logits.
      top_k: how many of the teacher's tokens to compare one by one; 0: all.
    """
    p_BTV, q_BTV = _logs(teacher_BTV, temperature), _logs(student_BTV, temperature)
    if 0 < top_k < p_BTV.shape[-1]:
        p_BTV, q_BTV = _with_rest(p_BTV, q_BTV, top_k)
    return _divergence(p_BTV, q_BTV)


def reverse_divergence(teacher_BTV: jax.Array, student_BTV: jax.Array, *, temperature: float = 1.0) -> jax.Array:
    """KL(student ‖ teacher) of every token, float32 [B, T], from float32 logits."""
    return _divergence(_logs(student_BTV, temperature), _logs(teacher_BTV, temperature))


def _logs(logits_BTV: jax.Array, temperature: float) -> jax.Array:
    return jax.nn.log_softmax(logits_BTV / temperature, axis=-1)


def _with_rest(p_BTV: jax.Array, q_BTV: jax.Array, top_k: int) -> tuple[jax.Array, jax.Array]:
    """Both distributions over the `top_k` likeliest tokens of the first, and all others as one more event; as logs."""
    _, index_BTK = jax.lax.top_k(p_BTV, top_k)
    is_top_BTV = jnp.put_along_axis(jnp.zeros(p_BTV.shape, bool), index_BTK, True, axis=-1, inplace=False)

    def events(logs_BTV: jax.Array) -> jax.Array:
        rest_BT1 = jax.nn.logsumexp(jnp.where(is_top_BTV, -jnp.inf, logs_BTV), axis=-1, keepdims=True)
        return jnp.concatenate([jnp.where(is_top_BTV, logs_BTV, -jnp.inf), rest_BT1], axis=-1)

    return events(p_BTV), events(q_BTV)


def _divergence(p_BTV: jax.Array, q_BTV: jax.Array) -> jax.Array:
    """KL of the first distribution from the second, both as logs. Events of probability 0 in the first add nothing."""
    possible_BTV = p_BTV > -jnp.inf
    difference_BTV = jnp.where(possible_BTV, p_BTV, 0.0) - jnp.where(possible_BTV, q_BTV, 0.0)
    return jnp.sum(jnp.exp(p_BTV) * difference_BTV, axis=-1)
