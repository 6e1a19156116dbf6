"""The report command: what it writes, what it refuses before it reads anything, samples by a stated rule."""

import json
import os
import re
import shutil

import pytest
from commands import run_command
from reported_runs import HOST, MARKUP, write_evaluation, write_metrics, write_run

from gptjax.reporting.pdf import can_write_pdf


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("machine")
    write_run(folder / "runs" / "a", folder / "inhouse7" / "books")
    shutil.copytree(folder / "runs" / "a", folder / "runs" / "b")
    config = json.loads((folder / "runs" / "b" / "config.json").read_text())
    config["optimizer"]["learning_rate"] = 0.125
    (folder / "runs" / "b" / "config.json").write_text(json.dumps(config))
    return folder / "runs"


def report(*arguments):
    done = run_command("report", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "--workdir is missing"),
        (["--workdir=nowhere"], "--workdir=nowhere: must be the folder of a run; there is no such folder"),
        (["--workdir=configs"], "--workdir=configs: must be the folder of a run; this folder has no config.json"),
        (["--workdir=A", "--output=nowhere/x.html"], "--output=nowhere/x.html: must be in a folder that exists"),
        (["--workdir=A", "--license=mit"], "--license=mit: requires --card=FILE"),
        (["--workdir=A", "--card=c.md", "--license=My Own"], "--license='My Own': must be an identifier"),
        (["--workdir=A", "--card=c.md", "--base_model=x"], "--base_model='x': must be the name of a model on the hub"),
        (["--workdir=A", "--price=free"], "--price='free': expected a price per device and hour"),
        (["--workdir=A", "--max_new_tokens=3"], "--max_new_tokens=3: requires --samples=N"),
        (["--workdir=A", "--samples=1", "--prompts_file=nowhere"], "--prompts_file=nowhere: must be a file"),
        (["--workdir=A", "--workdir=B"], "--output is missing: must name the file of a comparison"),
        (["--workdir=A", "--workdir=B", "--output=c.html", "--samples=2"], "--samples=2: is for a report on one run"),
    ],
)
def test_user_errors_are_reported_before_anything_is_written(runs, arguments, sentence):
    before = sorted(os.listdir(runs / "a"))
    given = [each.replace("=A", f"={runs}/a").replace("=B", f"={runs}/b") for each in arguments]
    result = run_command("report", *given)
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert result.stderr.startswith(f"error: {sentence}") and result.stderr.count("\n") == 1
    assert sorted(os.listdir(runs / "a")) == before and not os.path.exists("c.md")


def test_a_report_is_written_into_the_run(runs):
    output = report(f"--workdir={runs}/a")
    assert f"report: {runs}/a/report.html" in output
    assert (runs / "a" / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert (runs / "a" / "report.pdf").exists() == can_write_pdf()
    assert can_write_pdf() or "gptjax[report]" in output


def test_samples_follow_their_rule_and_prompts_do_not_name_their_file(runs, tmp_path):
    secret = tmp_path / "inhouse8"
    secret.mkdir()
    (secret / "prompts.txt").write_text("first prompt\nzebra prompt\nthird prompt\n")
    page, card = tmp_path / "page.html", tmp_path / "card.md"
    arguments = [f"--workdir={runs}/a", f"--output={page}", f"--card={card}", "--redact=zebra", "--max_new_tokens=4"]
    report(*arguments, "--samples=2", f"--prompts_file={secret}/prompts.txt")
    for text in (page.read_text(), card.read_text()):
        assert "The first 2 prompts of a list that was given, each with seed 0" in text and "None was left out" in text
        assert "first prompt" in text and "… prompt" in text and "zebra" not in text and "third prompt" not in text
        for name in (str(tmp_path), "inhouse", HOST, str(runs)):
            assert name not in text
    report(*arguments, "--samples=3")
    assert "with the seeds 0 to 2, by the best checkpoint" in page.read_text()


def test_a_comparison_has_both_losses_the_differing_settings_and_paired_differences(runs, tmp_path):
    write_evaluation(runs / "b", value=0.75)
    page = tmp_path / "compared.html"
    shutil.copytree(runs / "b", tmp_path / "new", ignore=shutil.ignore_patterns("evaluation"))
    three = (f"--workdir={runs}/a", f"--workdir={runs}/b", f"--workdir={tmp_path}/new")
    report(*three, f"--output={page}", "--price=1 EUR")
    text = page.read_text()
    assert "optimizer.learning_rate</td><td" in text and "0.125" in text
    assert text.count("<polyline") >= 4 and "62.5 % ± 3.1" in text and "75 % ± 3.1" in text
    assert "the records of items are missing" in text, "a paired difference needs the items"
    assert re.search(r"Not evaluated on tasks: [^<]*new\.", text)
    assert "0.083 EUR (estimate)" in text


def test_a_run_whose_config_cannot_be_read_is_refused(runs, tmp_path):
    shutil.copytree(runs / "a", tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text('{"model": {')
    result = run_command("report", f"--workdir={tmp_path}/a")
    assert result.returncode == 2 and "config.json: is cut off" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("objective", ["classification", "preference", "masked"])
def test_runs_of_other_objectives_have_a_report_that_says_what_they_do(runs, tmp_path, objective):
    folder = tmp_path / "run"
    config = write_run(folder, tmp_path / "data", objective=objective, checkpoint=False, init_from="/mnt/x/base")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()[:-1]]
    for row in rows:
        row |= {
            "train/margin": 0.1,
            "train/chosen_reward": 0.2,
            "train/rejected_reward": -0.1,
            "validation/accuracy": 0.5,
        }
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report(f"--workdir={folder}", f"--output={tmp_path}/page.html")
    text = (tmp_path / "page.html").read_text()
    words = {
        "classification": "labels texts",
        "preference": "Rewards of the answers",
        "masked": "fills in hidden tokens",
    }
    assert words[config.training.objective] in text and "<code>base</code>" in text and "/mnt/x" not in text
    assert ("Samples</a></h2>" in text) == (objective == "preference")


def test_the_scores_of_a_classifier_are_shown_or_said_to_be_damaged(tmp_path):
    folder, page = tmp_path / "run", tmp_path / "page.html"
    write_run(folder, tmp_path / "data", objective="classification", checkpoint=False)
    (folder / "classification").mkdir()
    scores = {
        "accuracy": 0.9123,
        "macro_f1": 0.8123,
        "loss": 0.25,
        "texts": 80.0,
        "accuracy_95": [0.8, 0.95],
        "step": 60,
    }
    scores |= {"split": "test", "data": "/mnt/secret/spam", "labels": ["ham", MARKUP], "confusion": [[40, 5], [3, 32]]}
    (folder / "classification" / "confusion.json").write_text(json.dumps(scores))
    report(f"--workdir={folder}", f"--output={page}")
    text = page.read_text()
    assert "80 texts of the split test, at step 60: accuracy 0.9123 (95 % interval 0.800 to 0.950)" in text
    assert ">32</td>" in text and "/mnt/secret" not in text and MARKUP not in text
    (folder / "classification" / "confusion.json").write_text(json.dumps({**scores, "confusion": [[1]]}))
    assert "confusion.json are damaged" in report(f"--workdir={folder}", f"--output={page}")


def test_a_run_that_has_only_started_has_a_report(runs, tmp_path):
    folder = tmp_path / "run"
    write_run(folder, tmp_path / "data", checkpoint=False)
    write_metrics(folder)
    (folder / "metrics.jsonl").write_text("")
    output = report(f"--workdir={folder}", f"--output={tmp_path}/page.html")
    assert "no checkpoint yet" in output and "nothing to draw yet" in (tmp_path / "page.html").read_text()


def test_an_export_is_shown_with_how_it_is_loaded_and_whether_it_is_of_this_checkpoint(runs, tmp_path):
    done = run_command("export", f"--workdir={runs}/a", f"--output={tmp_path}/mine", "--check=own", "--license=mit")
    assert done.returncode == 0, done.stderr
    (tmp_path / "model.gguf").write_bytes(b"GGUF\x03")
    arguments = (f"--export={tmp_path}/mine", f"--export={tmp_path}/model.gguf", f"--output={tmp_path}/page.html")
    report(f"--workdir={runs}/a", *arguments)
    text = (tmp_path / "page.html").read_text()
    assert "AutoModelForCausalLM.from_pretrained(&quot;mine&quot;)" in text and "llama-cli -m model.gguf" in text
    assert "of another checkpoint" not in text and str(tmp_path) not in text
    other = tmp_path / "other"
    write_run(other, tmp_path / "data", seed=1)
    report(f"--workdir={other}", *arguments)
    assert "of another checkpoint" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("content, sentence", [(None, "must be a folder that"), (b"GG", "is not a GGUF file")])
def test_what_is_no_export_is_refused(runs, tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "x.gguf").write_bytes(content)
    result = run_command("report", f"--workdir={runs}/a", f"--export={tmp_path}/x.gguf", f"--output={tmp_path}/p.html")
    assert result.returncode == 2 and sentence in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "p.html").exists()
