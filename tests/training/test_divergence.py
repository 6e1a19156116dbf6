"""Divergences equal SciPy's, and a comparison of a few tokens is exact where it can be and never too large."""

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr

from gptjax.training.divergence import forward_divergence, reverse_divergence

DRAW = np.random.default_rng(0)
TEACHER, STUDENT = (DRAW.normal(0, 3, (2, 3, 7)).astype(np.float32) for _ in range(2))


def entropy(p_logits, q_logits, temperature=1.0):
    p, q = (np.exp(log_softmax(x.astype(np.float64) / temperature, axis=-1)) for x in (p_logits, q_logits))
    return rel_entr(p, q).sum(axis=-1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_divergences_are_relative_entropies(temperature):
    forward = forward_divergence(TEACHER, STUDENT, temperature=temperature)
    np.testing.assert_allclose(forward, entropy(TEACHER, STUDENT, temperature), rtol=1e-4)
    reverse = reverse_divergence(TEACHER, STUDENT, temperature=temperature)
    np.testing.assert_allclose(reverse, entropy(STUDENT, TEACHER, temperature), rtol=1e-4)


def test_the_likeliest_tokens_are_compared_one_by_one_and_the_others_together():
    p, q = (np.exp(log_softmax(x.astype(np.float64), axis=-1)) for x in (TEACHER, STUDENT))
    top = np.argsort(-p, axis=-1)[..., :2]
    p_top, q_top = (np.take_along_axis(x, top, -1) for x in (p, q))
    events = [np.concatenate([x, 1 - x.sum(-1, keepdims=True)], -1) for x in (p_top, q_top)]
    found = forward_divergence(TEACHER, STUDENT, top_k=2)
    np.testing.assert_allclose(found, rel_entr(*events).sum(-1), rtol=1e-4)
    whole = forward_divergence(TEACHER, STUDENT)
    assert (found <= whole).all() and (found < whole).any()
    for top_k in (7, 100):  # all tokens
        np.testing.assert_array_equal(forward_divergence(TEACHER, STUDENT, top_k=top_k), whole)


@pytest.mark.parametrize("teacher", [TEACHER, np.zeros_like(TEACHER), np.where(TEACHER > 2, TEACHER, -np.inf)])
def test_a_students_gradient_is_zero_at_the_teacher_and_finite_elsewhere(teacher):
    gradient = jax.grad(lambda student: forward_divergence(teacher, student, top_k=2).sum())
    np.testing.assert_allclose(gradient(np.maximum(teacher, -1e4)), 0.0, atol=1e-6)
    assert np.isfinite(gradient(STUDENT)).all() and np.abs(gradient(STUDENT)).max() > 0.01
