"""New rows begin near the mean of all others, and the others stay as they are."""

import jax.numpy as jnp
import numpy as np

from gptjax.training.checkpoints.vocabulary_growth import grown


def test_new_rows_are_the_mean_and_their_fresh_values():
    draw = np.random.default_rng(0)
    old = {"embedding": jnp.float32(draw.normal(size=(5, 3))), "head": jnp.float32(draw.normal(size=(3, 5)))}
    fresh = {"embedding": jnp.float32(draw.normal(size=(7, 3))), "head": jnp.float32(draw.normal(size=(3, 7)))}
    made = grown(old, fresh)
    np.testing.assert_array_equal(made["embedding"][:5], old["embedding"])
    np.testing.assert_array_equal(made["head"][:, :5], old["head"])
    np.testing.assert_allclose(made["embedding"][5:], old["embedding"].mean(0) + fresh["embedding"][5:], rtol=1e-6)
    np.testing.assert_allclose(
        made["head"][:, 5:], old["head"].mean(1, keepdims=True) + fresh["head"][:, 5:], rtol=1e-6
    )
