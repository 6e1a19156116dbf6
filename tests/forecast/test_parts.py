"""The parts into which kernels are divided on processors, for sizes whose parts can be counted by hand."""

import pytest

from gptjax.forecast.kernels import kernels_of
from gptjax.forecast.parts import threads, tiles
from gptjax.forecast.product_buffers import Product
from gptjax.forecast.program import Array, parse_program


def product(m, summed, n, stacked=1):
    left, right = Array("f32", (stacked, m, summed)), Array("f32", (stacked, summed, n))
    return Product(stacked, m, summed, n, left, right)


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ((64, 64, 64), 1),
        ((64, 1024, 64), 1),  # the smallest tile
        ((128, 1024, 64), 2),
        ((256, 128, 192), 1),  # rows and columns of 128: not yet 65,536 elements
        ((128, 256, 192), 2),
        ((64, 1024, 64, 5), 5),  # the matrices of a stack are parts of their own
    ],
)
def test_ynnpack_divides_a_product_only_if_tiles_read_enough(sizes, parts):
    assert tiles(product(*sizes)) == parts


def test_eigen_needs_two_hundred_thousand_cycles_for_a_second_thread():
    assert threads(product(128, 102, 128)) == 1
    assert threads(product(128, 103, 128)) == 2


PROGRAM = """\
HloModule one, is_scheduled=true

%part (p: f32[512,512]) -> f32[512,512] {
  %p = f32[512,512]{1,0} parameter(0)
  ROOT %e = f32[512,512]{1,0} exponential(%p), backend_config={"outer_dimension_partitions":["2","3"]}
}

ENTRY %main (x: f32[512,512]) -> f32[512,512] {
  %x = f32[512,512]{1,0} parameter(0)
  %divided = f32[512,512]{1,0} call(%x), to_apply=%part
  ROOT %whole = f32[512,512]{1,0} negate(%divided)
}
"""


def test_the_parts_of_other_kernels_are_those_that_the_program_names_and_else_one():
    program = parse_program(PROGRAM)
    assert sorted(each.parts for each in kernels_of(program, on_processors=True)) == [1, 6]
    assert [each.parts for each in kernels_of(program)] == [0]
