"""The formula against steps compiled for H100s whose layers, sequences or experts are divided (axes.csv)."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[3] / "experiments" / "plan" / "axes.py"
SPEC = importlib.util.spec_from_file_location("axes", FILE)
axes = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(axes)


@pytest.mark.parametrize("name", axes.CASES)
def test_the_estimated_needs_are_near_those_of_the_compiled_step(name):
    formula, compiled = axes.estimated(name), axes.rows()[name]
    assert formula["memory"] == pytest.approx(compiled["memory"], rel=0.11)
    assert formula["tflops"] == pytest.approx(compiled["tflops"], rel=0.07)
    assert formula["sent"] == pytest.approx(compiled["sent"], rel=0.21)
    assert formula["moved"] == pytest.approx(compiled["moved"], rel=0.5)
