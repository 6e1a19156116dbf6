"""The formula against steps compiled for processors (measured.jsonl): their products, and what attention moves."""

from pathlib import Path

import jax
import pytest

FOLDER = Path(__file__).parents[3] / "experiments" / "plan"


@pytest.mark.parametrize("name", ["depth 6, Muon", "depth 3, 16 rows of 1,024"])
def test_muons_products_and_attention_in_blocks_are_counted_on_processors(name, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from configs_measured import CONFIGS, facts
    from measure import rows

    from gptjax.forecast.formula import formula_needs
    from gptjax.planning import plan

    (row,) = [each for each in rows() if each["config"] == name]
    config = CONFIGS[name]()
    needs = formula_needs(plan(config, facts(config), jax.devices()[:1]))
    flops = sum(each.flops * each.times for each in needs.kernels)
    assert flops == pytest.approx(row["compiled_flops"], rel=0.03)
    moved = sum(moved * times for _, _, _, moved, times, *_ in row["needs"]["kernels"])
    assert sum(each.bytes * each.times for each in needs.kernels) == pytest.approx(moved, rel=0.25)
