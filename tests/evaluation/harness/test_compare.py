"""Scores of lm_eval's tasks are compared item by item where they follow from the items."""

import io
import json
import math

import numpy as np
import pytest
import scipy.stats
from table_answerer import TableAnswerer, choice_rows

from gptjax.display.terminal import Console
from gptjax.errors import ConfigError
from gptjax.evaluation import compare, harness, results
from gptjax.evaluation.harness.compare import HarnessTasks
from gptjax.evaluation.harness.run import samples_path

SECTION = HarnessTasks()
DRAW = np.random.default_rng(0)
ITEMS = 50


def write_run(folder, tasks, **changes):
    """tasks: name → (scores, the value of each item by metric), or (scores, members) for a group."""
    written = {}
    for name, (scores, items) in tasks.items():
        written[name] = {
            "scores": {metric: {"value": value, "standard_error": 0.1} for metric, value in scores.items()},
            "few_shot": 0,
            "items": ITEMS,
            **({"members": items} if isinstance(items, list) else {"hash": "of the items"}),
            **changes,
        }
        if not isinstance(items, list):
            path = samples_path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [dict(zip(items, values)) for values in zip(*items.values(), strict=True)]
            lines = [json.dumps({"doc_id": number, "filter": "none", **row}) for number, row in enumerate(rows)]
            path.write_text("\n".join(lines) + "\n")
    results.write_results(folder, {"run": folder.name}, {"harness": written})
    return folder


def made(kind, shift):
    """name → (scores, values of items) of one run, as lm_eval makes them, and the values whose mean counts."""
    right = (DRAW.random(ITEMS) < 0.5 + shift).astype(float)
    if kind == "mean":
        return {"quiz": ({"acc": right.mean()}, {"acc": right.tolist()})}, right
    if kind == "perplexity":
        nats = DRAW.normal(-3 + shift, 0.5, ITEMS)
        return {"quiz": ({"acc": math.exp(-nats.mean())}, {"acc": nats.tolist()})}, -nats
    sizes = np.arange(ITEMS)  # the first document is empty
    nats = -sizes * DRAW.uniform(1 - shift, 2, ITEMS)
    bits = -nats.sum() / sizes.sum() / math.log(2)
    return {"quiz": ({"acc": bits}, {"acc": list(zip(nats.tolist(), sizes.tolist()))})}, None


@pytest.mark.parametrize("kind", ["mean", "perplexity", "bits"])
def test_scores_of_items_are_compared_in_pairs(kind, tmp_path):
    (a, ours), (b, theirs) = made(kind, 0), made(kind, 0.2)
    runs = compare.read_runs([write_run(tmp_path / "a", a), write_run(tmp_path / "b", b)])
    found = SECTION.difference(*runs, "quiz", "acc")
    assert 0 < found.p < 1 and found.standard_error > 0 and not found.unlike
    if kind == "bits":
        assert found.value == pytest.approx(b["quiz"][0]["acc"] - a["quiz"][0]["acc"])
    else:
        assert found.value == pytest.approx((theirs - ours).mean())
        assert found.unit == (" nats" if kind == "perplexity" else "")
        won, lost = int((theirs > ours).sum()), int((theirs < ours).sum())
        test = scipy.stats.binomtest(won, won + lost) if kind == "mean" else scipy.stats.ttest_rel(theirs, ours)
        assert found.p == pytest.approx(test.pvalue)


@pytest.mark.parametrize("weighted", [True, False])
def test_a_group_is_compared_over_the_items_of_its_members(weighted, tmp_path):
    runs = []
    for name, share in (("a", 0.4), ("b", 0.6)):
        values = [(DRAW.random(count) < share).astype(float) for count in (10, 90)]
        score = np.concatenate(values).mean() if weighted else np.mean([each.mean() for each in values])
        members = {f"m{k}": ({"acc": each.mean()}, {"acc": each.tolist()}) for k, each in enumerate(values)}
        runs.append(write_run(tmp_path / name, members | {"all": ({"acc": score}, list(members))}))
    first, second = compare.read_runs(runs)
    found = SECTION.difference(first, second, "all", "acc")
    scores = [SECTION.tasks(run)["all"]["scores"]["acc"]["value"] for run in (first, second)]
    assert found.value == pytest.approx(scores[1] - scores[0]) and 0 < found.p < 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hash": "of others"}, "their items or prompts differ"),
        ({"items": 7}, "50 and 7 items"),
        ({"few_shot": 5}, "0 and 5 few-shot examples"),
    ],
)
def test_other_questions_are_not_compared(change, told, tmp_path):
    of_a, of_b = made("mean", 0)[0], made("mean", 0)[0]
    runs = compare.read_runs([write_run(tmp_path / "a", of_a), write_run(tmp_path / "b", of_b, **change)])
    assert SECTION.difference(*runs, "quiz", "acc").unlike == told


def test_a_score_that_does_not_follow_from_its_items_has_a_difference_and_no_p_value(tmp_path):
    of_a, of_b = ({"quiz": ({"f1": f1}, {"f1": [[0, 1]] * ITEMS})} for f1 in (0.25, 0.5))
    runs = compare.read_runs([write_run(tmp_path / "a", of_a), write_run(tmp_path / "b", of_b)])
    found = SECTION.difference(*runs, "quiz", "f1")
    assert found.value == 0.25 and math.isnan(found.p) and not found.unlike
    samples_path(tmp_path / "b", "quiz").unlink()
    assert "records of items are missing" in SECTION.difference(*runs, "quiz", "f1").unlike


def test_what_lm_eval_writes_is_compared(tmp_path, monkeypatch):
    pytest.importorskip("lm_eval", reason="needs pip install 'gptjax[eval]'")
    from gptjax.evaluation.harness.library import lm_eval

    lm_eval()
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "trivia.jsonl").write_text("".join(json.dumps(row) + "\n" for row in choice_rows(20)))
    (tmp_path / "trivia.yaml").write_text(
        "task: trivia\ndataset_path: json\ndataset_kwargs: {data_files: {test: trivia.jsonl}}\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_text: 'Question: {{question}}'\ndoc_to_choice: choices\n"
        "doc_to_target: gold\n"
    )
    for name, shift in (("a", 0), ("b", 1)):
        loaded = harness.load_tasks(str(tmp_path / "trivia.yaml"))
        found = harness.run_harness(loaded, TableAnswerer(shift=shift), {"run": name}, tmp_path / name)
        results.write_results(tmp_path / name, {"run": name}, {"harness": found})
    console = Console(file=io.StringIO(), width=200)
    compare.compare_runs([tmp_path / "a", tmp_path / "b"], console, tmp_path / "plot.png")
    one = SECTION.difference(*compare.read_runs([tmp_path / "a", tmp_path / "b"]), "trivia", "acc")
    drawn = console.file.getvalue()
    assert "lm_eval: trivia" in drawn and "acc_norm" in drawn
    assert f"{one.value:+.3g} ± {one.standard_error:.2g}, p {one.p:.2g}" in drawn
    assert (tmp_path / "plot.png").exists()
    results.write_results(tmp_path / "c", {"run": "c"}, {"tasks": {}})
    with pytest.raises(ConfigError, match="no task was evaluated in all of"):
        compare.compare_runs([tmp_path / "a", tmp_path / "c"], console)
