import io

import numpy as np
import pytest
import scipy.stats
from table_answerer import CHOICES, TableAnswerer, choice_rows, write_task

from gptjax.display.terminal import Console
from gptjax.errors import ConfigError
from gptjax.evaluation import compare, results
from gptjax.evaluation.tasks import Subject, find_tasks, run_tasks

OWN = compare.OwnTasks()
GENERATION = (
    'kind = "generation"\nprompt = "{question}"\nreferences = ["{question} {choices[0]}"]\nmetrics = ["bleu"]\n'
)


@pytest.fixture
def evaluate(tmp_path):
    """A function that writes the evaluation of a table for a run of the given name, and returns its folder."""

    def made(name, answerer, cards=None, rows=40, **options):
        folder = results.results_folder(tmp_path / name, 100)
        for task, card in (cards or {"quiz": CHOICES}).items():
            tasks, _ = find_tasks(str(write_task(tmp_path, card, choice_rows(rows), task)), **options)
            found = run_tasks(tasks, answerer, Subject({"run": name}), folder)
            results.write_results(folder, {"run": name}, {"tasks": found})
        return tmp_path / name

    return made


def shown(folders, plot=None):
    console = Console(file=io.StringIO(), width=200)
    compare.compare_runs(folders, console, plot)
    return console.file.getvalue()


def test_the_same_items_are_compared_in_pairs(evaluate, tmp_path):
    a, b = evaluate("a", TableAnswerer()), evaluate("b", TableAnswerer(shift=1))
    first, second = compare.read_runs([a, b])
    values = [
        np.array([record["accuracy"] for record in compare.records_of(run, "quiz").values()]) for run in (first, second)
    ]
    found = OWN.difference(first, second, "quiz", "accuracy")
    won, lost = ((values[1] > values[0]).sum(), (values[1] < values[0]).sum())
    assert found.value == pytest.approx(values[1].mean() - values[0].mean())
    assert found.standard_error == pytest.approx(np.std(values[1] - values[0], ddof=1) / np.sqrt(40))
    assert found.p == scipy.stats.binomtest(int(won), int(won + lost)).pvalue
    drawn = shown([a, b], tmp_path / "plot.png")
    assert f"{100 * found.value:+.3g}" in drawn and f"p {found.p:.2g}" in drawn
    bits = OWN.difference(first, second, "quiz", "bits_per_byte")
    assert f"{bits.value:+.3g} ± {bits.standard_error:.2g}, p {bits.p:.2g}" in drawn
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_members_of_unequal_size_have_equal_weight(tmp_path):
    """The difference equals that of the shown scores."""
    rows = [{**row, "subject": "a" if k < 4 else "b"} for k, row in enumerate(choice_rows(40))]
    tasks, _ = find_tasks(str(write_task(tmp_path, CHOICES + 'group = "subject"\naverage = "members"\n', rows)))
    for name, shift in (("a", 0), ("b", 1)):
        found = run_tasks(tasks, TableAnswerer(shift=shift), Subject({}), tmp_path / name)
        results.write_results(tmp_path / name, {}, {"tasks": found})
    first, second = compare.read_runs([tmp_path / "a", tmp_path / "b"])
    for metric in ("accuracy", "bits_per_byte"):
        a, b = (run.results["tasks"]["quiz"]["scores"][metric]["value"] for run in (first, second))
        found = OWN.difference(first, second, "quiz", metric)
        assert found.value == pytest.approx(b - a) and 0 < found.p < 1


def test_bleu_is_compared_with_the_paired_bootstrap_of_the_library(evaluate):
    good = {row["question"]: f"{row['question']} {row['choices'][0]}" for row in choice_rows(40)}
    a = evaluate("a", TableAnswerer(texts=good), {"written": GENERATION})
    b = evaluate("b", TableAnswerer(texts={k: v for k, v in list(good.items())[:20]}), {"written": GENERATION})
    found = OWN.difference(*compare.read_runs([a, b]), "written", "bleu")
    assert found.value < -5 and 0 < found.p < 0.05
    assert OWN.difference(*compare.read_runs([a, a]), "written", "bleu").value == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"limit": 20}, "40 and 20 items"),
        ({"few_shot": 2}, "0 and 2 few-shot examples"),
        ({"delimiter": "\n"}, "their prompts differ"),
        ({"rows": 41, "limit": 40}, "their data files differ"),
    ],
)
def test_results_for_different_questions_are_not_compared(options, told, evaluate):
    a, b = evaluate("a", TableAnswerer()), evaluate("b", TableAnswerer(shift=1), **options)
    drawn = shown([a, b])
    assert told in drawn and "≠ quiz: b cannot be compared with a" in drawn and ", p " not in drawn


def test_without_records_of_items_there_is_no_difference(evaluate):
    a, b = evaluate("a", TableAnswerer()), evaluate("b", TableAnswerer(shift=1))
    next(b.rglob("quiz.jsonl")).unlink()
    assert "records of items are missing" in shown([a, b])


def test_records_of_a_later_evaluation_that_was_stopped_are_not_compared(evaluate):
    a, b = evaluate("a", TableAnswerer()), evaluate("b", TableAnswerer(shift=1))
    before = shown([a, b])
    tasks, _ = find_tasks(str(a.parent / "quiz.toml"), few_shot=2)
    folder = results.results_folder(b, 100)
    run_tasks(tasks, TableAnswerer(), Subject({"run": "b"}), folder)
    assert shown([a, b]) == before  # the results of b are still those of zero examples, whose records are kept aside
    (aside,) = (folder / "items").glob("quiz.*.jsonl")
    aside.unlink()
    drawn = shown([a, b])
    assert "belong to another evaluation" in drawn and ", p " not in drawn


def test_tasks_that_some_runs_lack_are_named(evaluate):
    a = evaluate("a", TableAnswerer(), {"quiz": CHOICES, "other": CHOICES})
    b, c = evaluate("b", TableAnswerer(shift=1)), evaluate("c", TableAnswerer(), {"third": CHOICES})
    assert "not in all runs: other of a" in shown([a, b])
    with pytest.raises(ConfigError, match="no task was evaluated in all of"):
        shown([a, c])


def test_the_newest_checkpoint_of_a_run_is_used(evaluate, tmp_path):
    a, b = evaluate("a", TableAnswerer()), evaluate("b", TableAnswerer(shift=1))
    (a / "evaluation" / "step-00000100").rename(a / "evaluation" / "step-00000200")
    (b / "evaluation" / "step-00000100").rename(a / "evaluation" / "step-00000100")
    first, second = compare.read_runs([a, a / "evaluation" / "step-00000100"])
    assert first.folder.name == "step-00000200" and second.results["evaluated"] == {"run": "b"}


def test_a_folder_without_results_is_refused(evaluate, tmp_path):
    with pytest.raises(ConfigError, match="has no results"):
        shown([evaluate("a", TableAnswerer()), tmp_path])
    with pytest.raises(ConfigError, match="two or more"):
        shown([tmp_path])
