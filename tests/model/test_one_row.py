"""Forms of products for one row: equal to the usual ones, and compiled by XLA:CPU as intended."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.model.attention import cached_attention
from gptjax.model.cache import write
from gptjax.model.one_row import MOST_ROWS, OutputsFirst, TiedTable, computed_once, outputs_first_product, unmerged

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (MOST_ROWS, 1), (MOST_ROWS + 1, 1), (2, 5)])
def test_a_matrix_stored_with_its_outputs_first_gives_the_usual_product(shape):
    x, weight = normal(*shape, 24), normal(24, 40)
    given = OutputsFirst(weight.T)
    assert given.shape == weight.shape
    np.testing.assert_allclose(outputs_first_product(x, given), x @ weight, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jnp.einsum("BTD,DV->BTV", x, given), x @ weight, rtol=1e-5, atol=1e-5)


def test_a_tied_table_gives_rows_and_its_transpose_is_the_output_matrix():
    rows = normal(9, 16)
    table, tokens = TiedTable(rows), jnp.asarray([[3, 1]])
    np.testing.assert_array_equal(table[tokens], rows[tokens])
    np.testing.assert_array_equal(table.T.stored_OI, rows)
    assert table.T.shape == (16, 9)


def test_numbers_that_are_computed_once_stay_the_same():
    x = jnp.asarray([1.5, -2.0, 0.0, -0.0, 2e-38, 3e38, jnp.inf, -jnp.inf, jnp.nan])
    kept = jax.jit(computed_once)(x)
    np.testing.assert_array_equal(kept, x)
    np.testing.assert_array_equal(np.signbit(kept[:-1]), np.signbit(x[:-1]))
    np.testing.assert_array_equal(jax.jit(unmerged)(x, 7), x)


def compiled(function, *operands, **options):
    return jax.jit(function, **options).lower(*operands).compile().as_text()


def test_what_computes_a_row_is_not_repeated_in_the_loop_over_outputs():
    """The loop contains the product and nothing of what scales the row, in each of the rows."""
    x, scale, weight = normal(2, 1, 96), normal(96), OutputsFirst(normal(128, 96))

    def product(x, scale, weight):
        return outputs_first_product(x * scale, weight)

    bodies = re.findall(r"^%\S+ \([^\n]*\{\n(.*?)^\}", compiled(product, x, scale, weight), re.DOTALL | re.MULTILINE)
    loops = [body for body in bodies if " dot(" in body and "transpose(" in body]
    assert loops
    assert not [body for body in loops if " multiply(" in body or " divide(" in body]


def test_the_cache_of_a_single_row_is_updated_in_place():
    """In a loop over tokens, keys and values are neither copied nor transposed, and updated once each."""
    B, K, S, H, steps = 1, 2, 64, 16, 4
    q, new = normal(B, 1, 2 * K, H), normal(B, 1, K, H)

    def generate(keys, values, q, new):
        def step(i, carry):
            keys, values, q = carry
            lengths = jnp.full(B, i, jnp.int32)
            keys, values = write(keys, new * q[0, 0, 0, 0], lengths), write(values, new, lengths)
            return keys, values, cached_attention(q, keys, values, positions_BT=lengths[:, None])

        return jax.lax.fori_loop(0, steps, step, (keys, values, q))

    cache = normal(B, K, S, H)
    text = compiled(generate, cache, cache, q, new, donate_argnums=(0, 1))
    assert not re.findall(r"= f32\[(?:1,)?(?:2,64,16|2,16,64)\]\S* copy\(", text)
    assert len(re.findall(r" dynamic-update-slice\(", text)) == 2


def test_a_row_alone_attends_as_it_does_beside_others():
    q, keys, values = normal(1, 1, 6, 16), normal(1, 2, 64, 16), normal(1, 2, 64, 16)

    def attended(rows):
        operands = (jnp.broadcast_to(x, (rows, *x.shape[1:])) for x in (q, keys, values))
        return cached_attention(*operands, positions_BT=jnp.full((rows, 1), 40), window=30)[0]

    np.testing.assert_allclose(attended(1), attended(2), rtol=1e-5, atol=1e-6)
