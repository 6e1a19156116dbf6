"""Plans against steps compiled for processors (measured.jsonl): their FLOPs, products, and what attention moves."""

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


@pytest.mark.parametrize("name", ["decoder, 6 layers, D = 384", "LoRA, rank 8", "the last 2 of 6 layers"])
def test_flops_are_those_of_the_compiled_step(name, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from configs_measured import CONFIGS, facts
    from measure import rows

    from gptjax.planning import plan

    (row,) = [each for each in rows() if each["config"] == name]
    config = CONFIGS[name]()
    made = plan(config, facts(config), jax.devices()[:1])
    assert made.flops_per_token["full"] * made.tokens_per_step == pytest.approx(row["plain_flops"], rel=0.001)
