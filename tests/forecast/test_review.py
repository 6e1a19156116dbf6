"""At its end, a run prints what was predicted beside what came, and records both."""

import json

import jax
import pytest

from gptjax.config import default
from gptjax.data.facts import DataFacts
from gptjax.forecast import outcomes, review
from gptjax.forecast.devices import find_place, kind_of
from gptjax.forecast.formula import formula_needs
from gptjax.forecast.run import forecast_run
from gptjax.parallel.compiled import UncountedLoop
from gptjax.planning import plan
from gptjax.training.hardware import Memory
from gptjax.training.metrics import Throughput


@pytest.fixture
def made(monkeypatch):
    config = default()
    config.model.update(num_layers=2, width=64, num_heads=2, vocab_size=256)
    config.training.update(duration="100 steps", batch_size=8)
    found = plan(config, DataFacts(256), jax.devices())

    def without_counts(plan, compiled):
        raise UncountedLoop("a loop")

    monkeypatch.setattr(review, "read_needs", without_counts)
    monkeypatch.setattr(review, "compiled_bytes", lambda made: 3 * 2**30)
    object.__setattr__(found, "compiled_step", type("Step", (), {"run": None}))
    return found


@pytest.fixture
def clock():
    return iter([0.0, 0.0, 5.0, 25.0, 25.0, 25.0]).__next__


def trained(clock, made, steps):
    """Five seconds of compiling, then twenty of training."""
    throughput = Throughput(made.tokens_per_step, clock)
    with throughput.pause("compile"):
        pass
    throughput.count(steps)
    throughput.lap()
    return throughput


def test_both_are_printed_and_recorded(made, clock, tmp_path, monkeypatch):
    file = tmp_path / "runs.jsonl"
    monkeypatch.setenv(outcomes.VARIABLE, str(file))
    place, throughput = find_place("this", None), trained(clock, made, 20)
    expected = forecast_run(made, place, formula_needs(made), None)
    shown, notes = review.review(made, throughput, 20, Memory(1, 4 * 2**30, None, "host"), loss=None)
    assert f"predicted {1e3 * expected.step.step.likely:.4g} ms, measured 1000 ms" in shown["step"]
    assert shown["memory"] == "predicted 3.0 GiB, measured 4.0 GiB for the whole process"
    assert shown["whole run"].endswith("measured 0:20") and "loss" not in shown
    row = json.loads(file.read_text())
    assert row["measured"]["step_seconds"] == 1.0 and row["kind"] == kind_of(place.hardware) and str(file) in notes[0]
    factor = 1.0 / row["predicted"]["step_seconds"]
    assert row["predicted"]["seconds"] == pytest.approx(expected.time.total.likely / 5)
    calibrated = forecast_run(made, place, formula_needs(made), None)
    assert calibrated.calibration.runs == 1 and calibrated.calibration.factor == pytest.approx(factor)
    assert calibrated.step.step.likely == pytest.approx(1.0)


@pytest.mark.parametrize(("steps", "name"), [(9, "runs.jsonl"), (20, "")])
def test_a_short_run_says_nothing_and_neither_does_one_without_a_file(made, clock, tmp_path, monkeypatch, steps, name):
    monkeypatch.setenv(outcomes.VARIABLE, str(tmp_path / name) if name else "")
    assert review.review(made, trained(clock, made, steps), steps, Memory(1, 1, None, "host"), None) == ({}, [])
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_a_note(made, clock, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(outcomes.VARIABLE, str(tmp_path / "file" / "runs.jsonl"))
    shown, (note,) = review.review(made, trained(clock, made, 20), 20, Memory(1, 1, None, "device"), None)
    assert shown and "not recorded" in note
