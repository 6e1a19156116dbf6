import io
import json
import math
import threading

import pytest
import yaml
from table_answerer import CHOICES, TableAnswerer, choice_rows, write_task

from gptjax.display.terminal import Console
from gptjax.errors import ConfigError
from gptjax.evaluation import results
from gptjax.evaluation.tasks import Subject, find_tasks, run_tasks
from gptjax.evaluation.tasks.contamination import TrainingText
from gptjax.evaluation.tasks.metrics import METRICS

HUB = 'baseline = 0.33\nhub = {dataset = "me/quiz", task_id = "main"}\n'


def evaluated(tmp_path, card=CHOICES, rows=None, text=None, **options):
    tasks, _ = find_tasks(str(write_task(tmp_path, card, rows or choice_rows(6))), **options)
    return run_tasks(tasks, TableAnswerer(), Subject({}, text or TrainingText()), None)


def shown(table):
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()


def test_results_of_one_checkpoint_are_kept_together(tmp_path):
    one = evaluated(tmp_path)
    results.write_results(tmp_path, {"step": 1}, {"tasks": one})
    results.write_results(tmp_path, {"step": 1}, {"tasks": {"other": one["quiz"]}, "text": {"wiki": {"bits": 1.5}}})
    found = results.read_results(tmp_path / "results.json")
    assert list(found["tasks"]) == ["quiz", "other"] and found["text"] == {"wiki": {"bits": 1.5}}
    assert found["evaluated"] == {"step": 1} and found["versions"]["sacrebleu"]
    results.write_results(tmp_path, {"step": 2}, {"tasks": {"other": one["quiz"]}})
    assert list(results.read_results(tmp_path / "results.json")["tasks"]) == ["other"]


def test_an_average_follows_from_all_results_in_the_file(tmp_path):
    """Also if a later evaluation asks one of its tasks again."""

    def scored(value, few_shot):
        score = {"value": value, "standard_error": 0.1}
        scores = {"accuracy_per_token": score, "accuracy": score}
        return {"scores": scores, "metric": "accuracy", "few_shot": few_shot, "items": 5, "of": 5}

    tasks = {"copa": scored(0.75, 0), "piqa": scored(0.75, 10)}
    averages = results.averages_of(["core"], tasks)
    assert averages["core"]["value"] == pytest.approx(0.5) and averages["core"]["unlike"] == []
    results.write_results(tmp_path, {}, {"tasks": tasks, "averages": averages})
    results.write_results(tmp_path, {}, {"tasks": {"piqa": scored(0.5, 0)}})
    found = results.read_results(tmp_path / "results.json")["averages"]["core"]
    assert found["value"] == pytest.approx(0.25) and found["unlike"] == ["piqa"]


def test_evaluations_that_end_at_the_same_time_keep_each_others_results(tmp_path, monkeypatch):
    """As when the tasks of a checkpoint are divided over processes."""
    other = threading.Thread(target=results.write_results, args=(tmp_path, {"step": 1}, {"text": {"wiki": {}}}))

    def versions(names):  # called after the earlier results have been read
        if threading.current_thread() is not other:
            other.start()
            other.join(0.3)  # it waits for its turn
        return {}

    monkeypatch.setattr(results, "versions_of", versions)
    results.write_results(tmp_path, {"step": 1}, {"text": {"books": {}}})
    other.join()
    assert results.read_results(tmp_path / "results.json")["text"].keys() == {"wiki", "books"}


def test_a_result_says_what_was_evaluated(tmp_path):
    quiz = evaluated(tmp_path, rows=[*choice_rows(6), {"question": "?", "choices": ["a"], "gold": 0}])["quiz"]
    assert quiz["items"] == quiz["of"] == 6 and quiz["skipped"] == {"a single choice": 1}
    assert all(len(quiz["hashes"][name]) == 16 for name in ("card", "file", "prompts"))
    assert set(quiz["scores"]) == {"accuracy", "accuracy_per_token", "accuracy_per_byte", "bits_per_byte"}


def test_numbers_that_json_lacks_are_left_out(tmp_path):
    results.write_results(tmp_path, {}, {"text": {"a": {"loss": math.inf, "all": [math.nan, 1.0]}}})
    assert json.loads((tmp_path / "results.json").read_text())["text"]["a"] == {"loss": None, "all": [None, 1.0]}


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "results.json").write_text('{"tasks": ')
    with pytest.raises(ConfigError, match="cut off"):
        results.write_results(tmp_path, {}, {"tasks": {}})


def test_the_files_for_the_hub(tmp_path):
    """They follow the hub's specification: a list with dataset.id, dataset.task_id, value, date and notes."""
    quiz = evaluated(tmp_path, CHOICES + HUB)
    results.write_results(tmp_path, {}, {"tasks": quiz})
    (entry,) = yaml.safe_load((tmp_path / ".eval_results" / "quiz.yaml").read_text())
    assert entry["dataset"] == {"id": "me/quiz", "task_id": "main"}
    assert entry["value"] == pytest.approx(100 * quiz["quiz"]["scores"]["accuracy"]["value"], abs=1e-4)
    assert isinstance(entry["date"], str) and "0-shot" in entry["notes"]


@pytest.mark.parametrize(("card", "limit"), [(CHOICES, 0), (CHOICES + HUB, 3)])
def test_there_is_no_file_for_the_hub_without_its_id_or_for_part_of_the_items(card, limit, tmp_path):
    results.write_results(tmp_path, {}, {"tasks": evaluated(tmp_path, card, limit=limit)})
    assert not (tmp_path / ".eval_results").exists()


def test_the_table(tmp_path):
    text = TrainingText(frozenset({"quiz"}), {"quiz": {"quiz.jsonl:1": 3}}, 13)
    quiz = evaluated(tmp_path, CHOICES + HUB, text=text, limit=5)
    score = quiz["quiz"]["scores"]["accuracy"]
    drawn = shown(results.task_table(quiz, {"core": {"value": 0.1, "standard_error": 0.02, "tasks": {}, "of": 22}}))
    assert f"{100 * score['value']:.4g} % ± {100 * score['standard_error']:.2g}" in drawn
    assert "5 of 6" in drawn and "33 %" in drawn and "score of the clean" in drawn and "(20.0 %)" in drawn
    assert "0.1000 ± 0.0200" in drawn
    assert "contaminated" not in shown(results.task_table(evaluated(tmp_path)))


def test_notes_report_what_the_table_does_not_show(tmp_path):
    rows = [*choice_rows(3), {"question": "?", "choices": ["a"], "gold": 0}]
    quiz = evaluated(tmp_path, rows=rows)
    quiz["quiz"] |= {"truncated": 2, "empty": 1}
    notes = results.notes(quiz, {"core": {"missing": ["squad", "coqa"], "unlike": ["piqa"]}})
    assert [note.partition(":")[0] for note in notes] == ["quiz"] * 3 + [
        "CORE without squad, coqa",
        "CORE with another number of examples or only a part of the items of piqa",
    ]
    assert "1 row left out: a single choice" in notes[0] and "nothing was written for 1 of 3 items" in notes[1]
    assert "2 items longer than the context" in notes[2]


@pytest.mark.parametrize(
    ("score", "metric", "text"),
    [
        ({"value": 0.12345, "standard_error": 0.0123}, "accuracy", "12.35 % ± 1.2"),
        ({"value": 31.4159, "standard_error": None}, "bleu", "31.42"),
        ({"value": math.inf, "standard_error": math.inf}, "perplexity", "–"),
        (None, "accuracy", "–"),
    ],
)
def test_scores_as_text(score, metric, text):
    assert results.score_text(score, METRICS[metric]) == text
