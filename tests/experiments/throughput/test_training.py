"""experiments/throughput/training.py: both sides get the same model, and ours trains it."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

FOLDER = Path(__file__).parents[3] / "experiments" / "throughput"


@pytest.fixture
def sides(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    mesh = jax.sharding.get_mesh()
    import training_sides

    yield training_sides
    jax.set_mesh(mesh)  # a side has its own process, and never resets the mesh
    for name in ("training_sides", "training_shapes"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("style", ["gpt2", "llama"])
def test_our_side_trains_the_model_of_its_shape(sides, style):
    shape = sides.Shape(1, 2, 64, 16, 8, 50, steps=1)
    steps, facts = sides.gptjax_side(shape, style, "float32")
    # the counts of transformers' models: per layer 4 D² of attention, then 8 D² with biases or 3 D F
    norms_and_matrices = {"gpt2": 12 * 64**2 + 13 * 64 + 2 * 64 + 16 * 64, "llama": 4 * 64**2 + 3 * 64 * 192 + 3 * 64}
    assert facts["parameters"] == 50 * 64 + norms_and_matrices[style]
    first = steps(1)
    np.testing.assert_allclose(first, np.log(50), rtol=0.02)
    assert steps(24) < first  # the same eight batches repeatedly
