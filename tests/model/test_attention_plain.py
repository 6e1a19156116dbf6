"""Attention with its own backward pass, against the definition and JAX's gradients of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.model.attention import attend
from gptjax.model.attention_plain import attend_plain

B, T, S, G, H = 2, 5, 7, 3, 4


@pytest.mark.parametrize("mask_rows", [1, B])
def test_values_and_gradients_equal_the_definition_even_if_a_query_sees_no_key(mask_rows):
    draw = np.random.default_rng(0)
    q_BTGH, k_BSH, v_BSH, weight_BTGH = (
        jnp.asarray(draw.normal(size=shape), jnp.float32)
        for shape in ((B, T, G, H), (B, S, H), (B, S, H), (B, T, G, H))
    )
    mask_BTS = jnp.asarray(draw.random((mask_rows, T, S)) < 0.6).at[:, 2].set(False)

    def own(q_BTGH, k_BSH, v_BSH):
        return jnp.sum(weight_BTGH * attend_plain(0.3, q_BTGH, k_BSH, v_BSH, mask_BTS))

    def defined(q_BTGH, k_BSH, v_BSH):
        out_BTGH = attend(q_BTGH * 0.3 * H**0.5, k_BSH[:, :, None], v_BSH[:, :, None], mask_BTS)
        return jnp.sum(weight_BTGH * out_BTGH)

    found, expected = (jax.value_and_grad(each, argnums=(0, 1, 2))(q_BTGH, k_BSH, v_BSH) for each in (own, defined))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
