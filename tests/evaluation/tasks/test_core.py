import pytest

from gptjax.errors import ConfigError
from gptjax.evaluation.tasks import core, find_tasks


def result(value, metric, error=0.01, few_shot=0, items=9):
    scores = {metric: {"value": value, "standard_error": error}, "other": {"value": 9, "standard_error": 9}}
    return {"scores": scores, "few_shot": few_shot, "items": items, "of": 9}


def test_guessing_scores_zero_and_a_perfect_model_one():
    guessing = {name: result(of, metric) for name, (_, metric, of) in core.TASKS.items()}
    perfect = {name: result(1.0, metric) for name, (_, metric, _) in core.TASKS.items()}
    assert core.average(guessing)["value"] == pytest.approx(0)
    assert core.average(perfect)["value"] == 1 and core.average(perfect)["missing"] == []


def test_the_average_is_over_the_available_tasks():
    found = core.average(
        {"boolq": result(0.81, core.PER_TOKEN), "lambada": result(0.1, core.EXACT), "blimp": result(1, "x")}
    )
    assert found["tasks"] == {"lambada": pytest.approx(0.1), "boolq": pytest.approx(0.5)}
    assert found["value"] == pytest.approx(0.3)
    assert found["standard_error"] == pytest.approx((0.01**2 + (0.01 / 0.38) ** 2) ** 0.5 / 2)
    assert len(found["missing"]) == 20 and "squad" in found["missing"]


def test_tasks_asked_otherwise_than_core_asks_them_are_named():
    found = core.average(
        {
            "boolq": result(0.81, core.PER_TOKEN, few_shot=10),
            "piqa": result(0.5, core.PER_TOKEN, few_shot=3),
            "lambada": result(0.1, core.EXACT, items=8),
        }
    )
    assert found["unlike"] == ["piqa", "lambada"]


def test_core_finds_the_available_tasks(tmp_path):
    folder = tmp_path / "eval_data" / "commonsense_reasoning"
    folder.mkdir(parents=True)
    row = '{"query": "q", "choices": ["a", "b"], "gold": 0}\n'
    (folder / "copa.jsonl").write_text(row * 3)
    tasks, missing = find_tasks("core", [tmp_path])
    assert [task.name for task in tasks] == ["copa"] and len(missing) == 21
    with pytest.raises(ConfigError, match="the data of its tasks were not found"):
        find_tasks("core", [folder])
