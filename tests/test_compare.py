"""The compare command: invalid arguments are refused before any output, and repeated folders are left out."""

import json

import pytest
from commands import run_command

from gptjax.config import default, to_json


@pytest.fixture
def runs(tmp_path):
    for number, name in enumerate(("a", "b")):
        folder = tmp_path / "sweep" / name
        folder.mkdir(parents=True)
        config = default()
        config.update(seed=number)
        (folder / "config.json").write_text(to_json(config))
        rows = [{"step": step, "tokens": 8 * step, "train/loss": 3.0, "train/odd": "NaN"} for step in (1, 2)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "sweep"


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "the folder of a run is missing"),
        (["nowhere", "--metric=loss"], "RUN = nowhere: must be the folder of a run; there is no such folder"),
        (["configs"], "RUN = configs: must be the folder of a run; this folder has no config.json"),
        (["README.md"], "RUN = README.md: must be the folder of a run; it is a file, not a folder"),
        (["RUNS", "--plot=p.xyz"], "--plot=p.xyz: must end in .png, .svg or .pdf"),
        (["RUNS", "--plot=plot"], "--plot=plot: must end in .png, .svg or .pdf"),
        (["RUNS", "--metric=train/loss"], "--metric=train/loss: requires --plot=FILE"),
        (["RUNS", "--x=tokens"], "--x=tokens: requires --plot=FILE"),
        (
            ["RUNS", "--plot=p.png", "--metric=train/los"],
            "--metric=train/los: no run has this metric with --x=step; did you mean train/loss?; available: tokens, "
            "train/loss",
        ),
        (["RUNS", "--plot=p.png"], "--metric=validation/loss: no run has this metric with --x=step"),
        (["RUNS", "--plot=p.png", "--metric=train/odd"], "--metric=train/odd: no run has this metric with --x=step"),
    ],
)
def test_user_errors_are_reported_before_any_output(runs, arguments, sentence):
    result = run_command("compare", *(argument.replace("RUNS", str(runs)) for argument in arguments))
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert result.stderr.startswith(f"error: {sentence}") and result.stderr.count("\n") == 1


def test_a_run_that_is_named_twice_is_shown_once_with_a_note(runs):
    result = run_command("compare", str(runs), str(runs / "a"), f"{runs}/b/../a/")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["a", "b"]
    assert lines[3] == "2 folders named a run that is already shown"
    assert "named a run" not in run_command("compare", str(runs)).stdout


@pytest.mark.parametrize("suffix, begins", [("png", b"\x89PNG"), ("PDF", b"%PDF"), ("svg", b"<?xml")])
def test_a_plot_has_the_format_of_its_file_name(runs, tmp_path, suffix, begins):
    plot = tmp_path / f"plot.{suffix}"
    result = run_command("compare", str(runs), f"--plot={plot}", "--metric=train/loss")
    assert result.returncode == 0, result.stderr
    assert plot.read_bytes().startswith(begins)
