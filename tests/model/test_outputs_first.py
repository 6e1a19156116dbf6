"""Matrices for a single row: the same products as those of several rows, in loops that read each weight once."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.model.int8 import quantize
from gptjax.model.outputs_first import OutputsFirst
from gptjax.model.precision import project, project_float32

RNG = np.random.default_rng(0)
WEIGHTS = ("float32", "bfloat16", "int8")


def stored(weight_IO, weights):
    return quantize(weight_IO, (0,)) if weights == "int8" else weight_IO.astype(weights)


@pytest.mark.parametrize("weights, dtype", [*((weights, "float32") for weights in WEIGHTS), ("float32", "bfloat16")])
def test_one_row_and_several_rows_have_the_products_of_the_matrix(weights, dtype):
    x_BTI = jnp.asarray(RNG.standard_normal((2, 3, 64)), dtype)
    matrix = stored(jnp.asarray(RNG.standard_normal((64, 48)), "float32"), weights)
    bias = jnp.asarray(RNG.standard_normal((6, 8)), "float32")
    expected = project(x_BTI, matrix, bias)
    several = project(x_BTI, OutputsFirst(matrix.T), bias)
    row = project(x_BTI[1:, 2:], OutputsFirst(matrix.T), bias)
    assert several.dtype == row.dtype == dtype and row.shape == (1, 1, 48)
    tolerance = dict(rtol=1e-5, atol=1e-5) if dtype == "float32" else dict(rtol=0.02, atol=0.05)
    wide = [x.astype(jnp.float32) for x in (expected, several, row)]
    np.testing.assert_allclose(wide[1], wide[0], **tolerance)
    np.testing.assert_allclose(wide[2], wide[0][1:, 2:], **tolerance)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_one_row_is_multiplied_in_a_loop_that_all_cores_share(weights):
    """The program must have neither a product of the library, which would be on one core, nor a widened or transposed
    copy of the matrix."""
    rows = stored(jnp.ones((1024, 512)).T, weights).T
    program = jax.jit(project_float32).lower(jnp.ones((1, 1, 512)), OutputsFirst(rows)).compile().as_text()
    entry = program[program.index("\nENTRY") :]
    made = set(re.findall(r"= (\w+\[[\d,]*\])\S* (?!parameter)[\w-]+\(", entry))
    assert "f32[1024]" in made or "f32[1,1,1024]" in made
    assert not [shape for shape in made if "1024,512" in shape or "512,1024" in shape]
    assert not re.search(r" (dot|custom-call)\(|ynn", entry)
    assert 'outer_dimension_partitions":["' in entry
