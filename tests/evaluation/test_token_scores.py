"""Log-likelihoods by parts of the vocabulary are those of all logits, and no array of all logits exists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.evaluation.token_scores import score_tokens
from gptjax.model.int8 import quantize

Q, D, V = 6, 8, 50
DRAW = np.random.default_rng(0)
X_QD = DRAW.normal(size=(Q, D)).astype(np.float32)
HEAD_DV = DRAW.normal(size=(D, V)).astype(np.float32)
HEAD_DV[:, 49] = HEAD_DV[:, 7] = 3 * X_QD[0]  # two equally likely tokens, in different parts of the vocabulary
TOKENS = np.array([49, 7, 0, 19, 20, 49])


@pytest.mark.parametrize("softcap", [0.0, 2.0])
@pytest.mark.parametrize("most", [1, 7, 25, 49, 50, 64])
def test_parts_of_the_vocabulary_give_the_same_as_the_whole(most, softcap):
    logits = X_QD.astype(np.float64) @ HEAD_DV
    logits = softcap * np.tanh(logits / softcap) if softcap else logits
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for tokens in (TOKENS, logits.argmax(-1), np.array([7, 49, 7, 49, 7, 49])):
        nats, hits = score_tokens(X_QD, lambda: jnp.array(HEAD_DV), jnp.array(tokens), softcap, most)
        np.testing.assert_allclose(nats, expected[np.arange(Q), tokens], atol=1e-5)
        np.testing.assert_array_equal(hits, logits.argmax(-1) == tokens)


def test_an_8_bit_matrix_is_read_in_parts_too():
    head = quantize(jnp.array(HEAD_DV), (0,))
    whole, parts = (score_tokens(jnp.array(X_QD), lambda: head, jnp.array(TOKENS), 0.0, most) for most in (V, 7))
    np.testing.assert_allclose(parts[0], whole[0], atol=1e-5)
    np.testing.assert_array_equal(parts[1], whole[1])


def test_logits_exist_for_a_part_of_the_vocabulary_only():
    """A matrix that is stored transposed, as a tied embedding is, is not copied either."""

    def scores(x_qD, embedding_VD, tokens_q):
        return score_tokens(x_qD, lambda: embedding_VD.T, tokens_q, 0.0, 7)

    program = jax.jit(scores).lower(X_QD, np.ascontiguousarray(HEAD_DV.T), TOKENS).compile().as_text()
    assert f"f32[{Q},7]" in program and f"f32[{Q},{V}]" not in program
    assert f"f32[{D},{V}]{{1,0}}" not in program
