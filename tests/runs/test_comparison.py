"""Comparison of runs: metrics, differences, and a mark on losses that were measured on different text."""

from pathlib import Path

import pytest
from rich.console import Console

from gptjax.config import ConfigError, default, to_json
from gptjax.files.folders import alone_in
from gptjax.runs import comparison
from gptjax.settings import allowed_values
from gptjax.tokenizer import ByteTokenizer
from gptjax.training.records.writers import MetricsWriter


@pytest.fixture
def make_run(tmp_path):
    def make(name, steps=20, losses=(3.0, 2.5, 2.75), **fields):
        config = default().unlock()
        config.model.update(num_layers=1, width=16, num_heads=2, vocab_size=32)
        config.update_from_flattened_dict({field.replace("__", "."): value for field, value in fields.items()})
        folder = tmp_path / name
        with MetricsWriter(folder, tensorboard=False) as writer:
            for step, loss in zip(range(steps // 2, steps + 1, max(steps // 4, 1)), losses):
                scores = {"validation/loss": loss, "validation/bits_per_byte": loss / 2, "validation/tokens": 640}
                writer.write(step, {"tokens": step * 1000, "tokens_per_second": 5e3, "train/loss": loss} | scores)
        (folder / "config.json").write_text(to_json(config))
        return folder

    return make


def shown(made, width=120):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(made)
    return [line.split() for line in capture.get().splitlines()]


def test_a_row_shows_the_progress_and_the_losses_of_a_run(make_run):
    durations = {"a": "20 steps", "b": "1 epoch"}
    runs = comparison.read_runs([make_run(name, training__duration=text) for name, text in durations.items()])
    _, a, b = shown(comparison.table(runs))
    parameters = 32 * 16 + 4 * 16 * 16 + 3 * 16 * 64 + 3 * 16
    assert a == ["a", "20", "20k", f"{parameters / 1000:.3g}k", "2.7500", "2.5000", "1.3750", "5k"]
    assert b[1] == "20"  # the length of an epoch is unknown without data


def test_runs_may_be_unfinished_running_or_without_metrics(make_run):
    begun = make_run("begun", losses=(), training__duration="40 steps")
    half = make_run("half", training__duration="40 steps")
    with alone_in(half, "--workdir"):
        lines = shown(comparison.table(comparison.read_runs([begun, half])))
    assert lines[1][:5] == ["begun", "0", "of", "40", "n/a"] and lines[2][:5] == ["half", "20", "of", "40,", "running"]


def test_differing_fields_are_shown_except_those_of_display(make_run):
    runs = comparison.read_runs([make_run("a"), make_run("b", optimizer__learning_rate=0.5, logging__every="1 step")])
    assert comparison.differences(runs) == {"optimizer.learning_rate": [1e-3, 0.5]}
    assert shown(comparison.differences_table(runs, comparison.differences(runs)))[1:] == [["a", "0.001"], ["b", "0.5"]]
    assert comparison.unlike_evaluations(runs) == []
    runs = comparison.read_runs([make_run("c", seed=1), make_run("d", seed=2, model__dropout=0.5, model__bias="all")])
    lines = shown(comparison.differences_table(runs, comparison.differences(runs)))
    assert lines[0] == ["field", "c", "d"] and len(lines) == 4  # more fields than runs


@pytest.mark.parametrize("field, value", [("sequence_length", 8), ("windows", "packed"), ("path", "x")])
def test_losses_measured_on_different_text_are_marked(make_run, field, value):
    runs = comparison.read_runs([make_run("a"), make_run("b", **{f"data__{field}": value}), make_run("c")])
    rows = shown(comparison.table(runs))
    assert [row[-4].endswith(comparison.UNLIKE) for row in rows[1:]] == [False, True, False]
    (note,) = comparison.unlike_evaluations(runs)
    assert note.startswith("≠ b: ") and f"data.{field}" in note


def test_the_best_loss_is_finite_and_of_the_windows_scored_last():
    losses = [("old", 0.5), ("new", 3.0), ("new", 2.0), ("new", float("inf")), ("new", 2.5)]
    rows = [{"step": 1, comparison.LOSS.name: loss, comparison.SET: windows} for windows, loss in losses]
    run = comparison.RecordedRun(Path("a"), "a", default(), rows)
    assert (run.best(comparison.LOSS), run.last(comparison.LOSS.name)) == (2.0, 2.5)
    assert comparison.RecordedRun(Path("a"), "a", default(), rows[3:4]).best(comparison.LOSS) is None


def test_losses_with_another_tokenizer_are_marked_but_a_run_without_a_loss_is_not(make_run):
    folders = [make_run("a"), make_run("b"), make_run("c", losses=(), data__windows="packed")]
    ByteTokenizer().save(folders[1])
    (note,) = comparison.unlike_evaluations(comparison.read_runs(folders))
    assert note.startswith("≠ b: ") and note.endswith("these differ: the tokenizer")


def test_the_folder_of_a_sweep_includes_its_runs(make_run, tmp_path):
    make_run("sweep/lr=1")
    make_run("sweep/lr=2")
    runs = comparison.read_runs([tmp_path / "sweep", make_run("alone")])
    assert [run.name for run in runs] == ["sweep/lr=1", "sweep/lr=2", "alone"]


def test_the_plot_has_every_run_that_has_the_metric(make_run, tmp_path):
    runs = comparison.read_runs([make_run("a"), make_run("b", losses=())])
    for x in ("step", "tokens"):
        path = comparison.plot(runs, tmp_path / f"{x}.png", "train/loss", x)
        assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(
        ConfigError, match=r"--metric=accuracy: no run has this metric with --x=step; available: .*validation/loss"
    ):
        comparison.plot(runs, tmp_path / "no.png", "accuracy", "step")


def test_a_folder_that_is_not_a_run_is_refused(make_run, tmp_path):
    broken = make_run("broken")
    (broken / "config.json").write_bytes(b"\xff{")
    (tmp_path / "empty").mkdir()
    make_run("impossible", model__num_heads=0)
    for folder, words in (
        ("nowhere", "no such folder"),
        ("empty", "no config.json"),
        ("broken", "is not UTF-8 text"),
        ("impossible", "model.num_heads = 0: must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=rf"/{folder}.*{words}"):
            comparison.read_runs([tmp_path / folder])


def test_functions_that_a_run_names_are_not_imported(make_run, tmp_path, monkeypatch):
    (tmp_path / "brought_along.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    own = [field for field, allowed in allowed_values().items() if allowed.own]
    (run,) = comparison.read_runs([make_run("a", **dict.fromkeys(own, "brought_along:f"))])
    assert run.num_parameters is None and "n/a" in shown(comparison.table([run]))[1]
