"""The evaluate command, tested on a tiny run whose checkpoint is made here."""

import functools
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import run_command, typed_command
from random_models import MAX_POSITIONS, TOKENIZER, make_model
from table_answerer import CHOICES, TableAnswerer, choice_rows, write_task

from gptjax import config as configs
from gptjax.cluster.cores import available_cores
from gptjax.display.formatting import counted
from gptjax.display.terminal import Console
from gptjax.evaluate import ask
from gptjax.evaluation.tasks import Subject, find_tasks
from gptjax.inference.devices import MOST_CORES
from gptjax.settings import freeze
from gptjax.training.checkpoints.averaged import load_average
from gptjax.training.checkpoints.loading import load_for_inference
from gptjax.training.checkpoints.manager import Checkpoints
from gptjax.training.checkpoints.run_metadata import run_metadata
from gptjax.training.state import TrainState

LETTERED = [{**row, "letters": ["A", "B", "C"]} for row in choice_rows(5)]


def save_run(workdir, seed):
    params, small = make_model()
    config = configs.default()
    config.model.update(dict(small.model.items()))
    config.data.update(path=str(workdir), sequence_length=MAX_POSITIONS)
    config = freeze(config)
    params = jax.tree.map(lambda x: jnp.asarray(x) * (1 + seed), params)
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(configs.to_json(config))
    TOKENIZER.save(workdir)
    with Checkpoints(workdir, configs.default().checkpoint, int) as checkpoints:
        state = TrainState(step=jnp.int32(7), params=params, opt_state=(), ema=None, monitor={})
        metadata = run_metadata(config, {"tokenizer_hash": TOKENIZER.hash, "begin_id": TOKENIZER.eos_id}, tokens=7)
        checkpoints.save(7, state, metadata, {"validation/loss": 1.0})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate("ab"):
        save_run(folder / name, seed)
    return folder


def test_tasks_are_evaluated_and_runs_compared(runs):
    card = write_task(
        runs, CHOICES.replace("{choices}", "{letters}") + 'few_shot = 1\nmetrics = ["accuracy", "macro_f1"]\n', LETTERED
    )
    for name in "ab":
        done = run_command("evaluate", f"--workdir={runs}/{name}", f"--tasks={card}")
        assert done.returncode == 0, done.stderr
        assert "→ B" in done.stdout, "the confusion matrix"
        assert f", {counted(min(len(available_cores()), MOST_CORES), 'device')}\n" in done.stdout
        assert "quiz" in done.stdout and "step-00000007/results.json" in done.stdout
    folder = runs / "a" / "evaluation" / "step-00000007"
    result = json.loads((folder / "results.json").read_text())
    assert result["tasks"]["quiz"]["items"] == 5 and result["evaluated"]["tokenizer"] == TOKENIZER.hash
    assert len((folder / "items" / "quiz.jsonl").read_text().splitlines()) == 6
    done = run_command("evaluate", "compare", f"{runs}/a", f"{runs}/b", f"--plot={runs}/plot.png")
    assert done.returncode == 0, done.stderr
    assert "p " in done.stdout and (runs / "plot.png").exists()


def test_the_result_of_a_task_is_written_before_the_next_one_begins(tmp_path):
    paths = [write_task(tmp_path, CHOICES, choice_rows(5), name) for name in ("first", "second")]
    tasks, _ = find_tasks(",".join(map(str, paths)))
    with pytest.raises(KeyboardInterrupt):
        ask(tasks, TableAnswerer(stop_after=3 * 5 + 1), Subject({"step": 1}), tmp_path, Console(file=io.StringIO()))
    assert list(json.loads((tmp_path / "results.json").read_text())["tasks"]) == ["first"]


def test_text_is_scored_once(runs):
    (runs / "books").mkdir()
    (runs / "books" / "one.txt").write_text("a text of its own")
    for _ in range(2):
        done = run_command("evaluate", f"--workdir={runs}/b", f"--text={runs}/books")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("books: 18 tokens, ") == 1 and "%" in done.stdout
    (found,) = json.loads((runs / "b/evaluation/step-00000007/results.json").read_text())["text"].values()
    assert found["all"]["documents"] == 1 and found["all"]["tokens"] == 18


def test_tasks_of_lm_eval_are_evaluated(runs, monkeypatch):
    pytest.importorskip("lm_eval", reason="needs pip install 'gptjax[eval]'")
    (runs / "trivia.jsonl").write_text("".join(json.dumps(row) + "\n" for row in choice_rows(5)))
    (runs / "trivia.yaml").write_text(
        "task: trivia\ndataset_path: json\ndataset_kwargs: {data_files: {test: trivia.jsonl}}\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_text: 'Question: {{question}}'\ndoc_to_choice: choices\n"
        "doc_to_target: gold\nmetadata: {version: 1.5}\n"
    )
    monkeypatch.setenv("HF_DATASETS_CACHE", str(runs / "cache"))
    done = typed_command("evaluate", f"--workdir={runs}/a", "--harness", f"--tasks={runs}/trivia.yaml")
    assert done.returncode == 0, done.stderr
    assert "trivia" in done.stdout and "1.5" in done.stdout and "log-likelihoods: 15 answers" in done.stdout
    folder = runs / "a" / "evaluation" / "step-00000007"
    result = json.loads((folder / "results.json").read_text())
    assert result["harness"]["trivia"]["items"] == 5 and result["versions"]["lm_eval"]
    assert 0 <= result["harness"]["trivia"]["scores"]["acc"]["value"] <= 1
    assert len((folder / "harness" / "items" / "trivia.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--workdir is missing"),
        (["--workdir={a}"], "--tasks or --text is missing"),
        (["--workdir={a}", "--harness", "--text=x"], "--harness: needs --tasks"),
        (["--workdir={a}", "--text=nowhere"], "--text=nowhere: must be a file or a folder"),
        (["--workdir={a}", "--tasks=helaswag"], "did you mean hellaswag"),
        (["--workdir={a}", "--tasks=copa"], "there is no commonsense_reasoning/copa.jsonl"),
        (["--workdir={a}", "--tasks=copa", "--task_data=nowhere"], "--task_data=nowhere: must be a folder"),
        (["--workdir={a}", "--tasks=copa", "--plot=x.png"], "--plot=x.png: is an option of compare"),
        (["--workdir={a}", "--tasks=copa", "--mesh=data=2"], "--mesh=data=2: expected tensor=N"),
        (["comparison", "{a}"], "unexpected argument 'comparison'"),
        (["compare", "{a}"], "two or more runs"),
        (["compare", "{a}", "{a}/.."], "has no results"),
        (["compare", "{a}", "{a}", "--plot=x.txt"], "must end in .png"),
    ],
)
def test_user_errors_are_reported_in_one_sentence(arguments, told, runs):
    folder = runs / "none" if "compare" in arguments else runs / "a"
    done = run_command("evaluate", *[each.format(a=folder) for each in arguments])
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1


def test_the_mean_of_the_last_checkpoints_is_a_model(tmp_path):
    """Checkpoints have parameters times 1, 2, 4 and 6. The mean of the last three is 4, which is the third
    checkpoint."""
    run = tmp_path / "run"
    save_run(run, 0)
    config = freeze(configs.from_json((run / "config.json").read_bytes(), "config.json"))
    keep = configs.default().checkpoint
    keep.keep_latest = 4
    with Checkpoints(run, keep, int) as checkpoints:
        for step, factor in ((8, 2.0), (9, 4.0), (10, 6.0)):
            params = jax.tree.map(functools.partial(jnp.multiply, factor), make_model()[0])
            state = TrainState(step=jnp.int32(step), params=params, opt_state=(), ema=None, monitor={})
            metadata = run_metadata(config, {"tokenizer_hash": TOKENIZER.hash, "begin_id": TOKENIZER.eos_id}, step)
            checkpoints.save(step, state, metadata, {"validation/loss": 1.0})
    expected, _, _ = load_for_inference(run, 9)
    params, _, all_metadata = load_average(run, 3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, expected)
    assert [metadata["step"] for metadata in all_metadata] == [8, 9, 10]

    card = write_task(tmp_path, CHOICES + "few_shot = 1\n", choice_rows(5))
    for choice in (["--average=3", "--mesh=tensor=2"], ["--checkpoint=9"]):  # split over devices, and on one
        done = run_command("evaluate", f"--workdir={run}", f"--tasks={card}", *choice)
        assert done.returncode == 0, done.stderr
    mean, third = (
        json.loads((run / "evaluation" / folder / "results.json").read_text())
        for folder in ("step-00000010-average-3", "step-00000009")
    )
    assert list(mean["evaluated"]["averaged"]) == ["8", "9", "10"]
    for name, score in third["tasks"]["quiz"]["scores"].items():
        assert mean["tasks"]["quiz"]["scores"][name]["value"] == pytest.approx(score["value"], rel=1e-5)
    for wrong, told in (("--average=5", "at most the number of checkpoints"), ("--checkpoint=9", "must not be given")):
        done = run_command("evaluate", f"--workdir={run}", f"--tasks={card}", "--average=3", wrong)
        assert done.returncode == 2 and told in done.stderr, done.stderr
