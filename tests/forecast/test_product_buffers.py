"""What the libraries of products take on processors, counted by hand for small programs."""

import jax
import jax.numpy as jnp
import pytest

from gptjax.forecast.product_buffers import product_buffers
from gptjax.forecast.program import parse_program
from gptjax.training.trainer import compiler_options

M, K, N = 64, 96, 1024


def taken(function, *shapes):
    """What is counted for a program as XLA compiles it here, with the options of training."""
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    options = compiler_options(jax.make_mesh((1,), ("data",), devices=jax.devices()[:1]), "float32")
    return product_buffers(parse_program(jax.jit(function).lower(*arrays).compile(options).as_text()))


def test_a_product_alone_packs_little_and_one_before_other_operations_packs_its_whole_second_operand():
    assert taken(lambda a, b: a @ b, (M, K), (K, N)) == 0
    assert taken(lambda a, b, c: a @ b + c, (M, K), (K, N), (M, N)) == 4 * K * N


def test_results_of_products_that_a_fusion_reads_again_are_held():
    assert taken(lambda a, b, c: (a @ b) @ c, (M, K), (K, N), (N, K)) == 4 * M * N + 4 * K * N


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
