"""What the libraries of products take on processors, counted by hand for small programs."""

import jax
import jax.numpy as jnp
import pytest

from gptjax.forecast.product_buffers import SIDE, product_buffers
from gptjax.forecast.program import parse_program
from gptjax.parallel.compilation import training_options

M, K, N = 64, 96, 1024


def taken(function, *shapes):
    """What is counted for a program as XLA compiles it here, with the options of training."""
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    options = training_options(jax.make_mesh((1,), ("data",), devices=jax.devices()[:1]), "float32")
    return product_buffers(parse_program(jax.jit(function).lower(*arrays).compile(options).as_text()))


def test_a_product_alone_packs_little_and_one_before_other_operations_packs_its_whole_second_operand():
    assert taken(lambda a, b: a @ b, (M, K), (K, N)) == 0
    assert taken(lambda a, b, c: a @ b + c, (M, K), (K, N), (M, N)) == 4 * K * N


def test_products_in_the_loops_of_one_operation_pack_their_second_operands_at_once():
    assert taken(lambda a, b, c: a @ b + a @ c, (M, K), (K, N), (K, N)) == 2 * 4 * K * N


def test_the_first_operand_of_a_product_with_several_tiles_of_columns_is_held():
    assert taken(lambda a, b, c: (a @ b) @ c, (M, K), (K, N), (N, 2 * SIDE)) == 4 * M * N
    assert taken(lambda a, b: jnp.exp(a) @ b, (M, N), (N, 2 * SIDE)) == 4 * M * N


def test_the_first_operand_of_a_product_with_one_tile_of_columns_is_made_tile_by_tile():
    assert taken(lambda a, b, c: (a @ b) @ c, (M, K), (K, N), (N, SIDE)) == 4 * K * N  # b is packed before all tiles
    assert taken(lambda a, b: jnp.exp(a) @ b, (M, N), (N, SIDE)) == 0


def test_the_first_operand_of_a_product_in_the_loops_of_a_later_operation_is_made_tile_by_tile():
    assert taken(lambda a, b, c: jnp.exp(a) @ b * c, (M, N), (N, K), (M, K)) == 4 * N * K


def test_the_second_operand_of_a_product_is_held():
    assert taken(lambda a, b: a @ jnp.exp(b), (M, K), (K, N)) == 4 * K * N


def test_values_whose_axes_change_are_held():
    """The logits' gradient [B, T, V] is multiplied as [B · T, V], and its product is read as [B, T, D]."""
    held = taken(lambda a, b, c: jnp.einsum("btv,vd->btd", jnp.exp(a), b) * c, (2, M, N), (N, K), (2, M, K))
    assert held == 4 * 2 * M * (N + K)


@pytest.mark.parametrize(
    ("summed", "held"),
    [(96, 96), (640, 640), (1024, 2 * 256), (2048, 2 * 296)],  # 2,048 are seven slices of at most 320
)
def test_a_product_outside_of_fusions_packs_two_slices_of_both_operands(summed, held):
    line = "lhs_batch_dims={0}, lhs_contracting_dims={1}, rhs_batch_dims={0}, rhs_contracting_dims={1}"
    program = (
        f"HloModule one\n\nENTRY %main (a: f32[5,{summed},{M}], b: bf16[5,{summed},{N}]) -> f32[5,{M},{N}] {{\n"
        f"  %a = f32[5,{summed},{M}]{{2,1,0}} parameter(0)\n  %b = bf16[5,{summed},{N}]{{2,1,0}} parameter(1)\n"
        f"  ROOT %c = f32[5,{M},{N}]{{2,1,0}} dot(%a, %b), {line}\n}}\n"
    )
    assert product_buffers(parse_program(program)) == held * (4 * M + 2 * N)
    assert product_buffers(parse_program(program.replace(f",{N}]", ",1]"))) == 0  # vectors are not packed
