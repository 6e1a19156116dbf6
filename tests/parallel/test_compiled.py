"""The instructions of compiled programs, and the matrix products among them."""

import jax
import jax.numpy as jnp
import pytest

from gptjax.parallel.compiled import products_of

FLOAT8 = """
ENTRY %main (x: f8e4m3fn[16,32]) -> bf16[16,48] {
  %x = f8e4m3fn[16,32]{1,0} parameter(0)
  %w = f8e4m3fn[48,32]{1,0} parameter(1)
  %y = (bf16[16,48]{1,0}, s8[64]{0}) custom-call(%x, %w), custom_call_target="__cublas$lt$matmul$f8",
    backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}
  %z = bf16[7]{0} custom-call(%x), custom_call_target="something else"
}
""".replace(",\n    backend", ", backend")


def test_a_product_in_a_loop_counts_once_per_iteration():
    def program(x, weights):
        x, _ = jax.lax.scan(lambda x, w: (jnp.sin(x @ w), None), x, weights)
        return x @ x.T

    compiled = jax.jit(program).lower(jnp.zeros((8, 16)), jnp.zeros((5, 16, 16))).compile()
    assert products_of(compiled.as_text()) == (5 * 2 * 8 * 16 * 16 + 2 * 8 * 16 * 8, 0)


def test_cublas_products_count_and_8_bit_products_are_also_counted_separately():
    assert products_of(FLOAT8) == (2 * 16 * 32 * 48, 2 * 16 * 32 * 48)


def test_a_product_in_a_loop_of_unknown_length_is_refused():
    def program(x):
        return jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ x, x)

    with pytest.raises(ValueError, match="does not say how often"):
        products_of(jax.jit(program).lower(jnp.zeros((8, 8))).compile().as_text())
