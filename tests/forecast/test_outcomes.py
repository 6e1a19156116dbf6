"""Runs are recorded with their predictions, and the next prediction is calibrated on those of the same kind."""

import dataclasses
import json
import threading

import pytest

from gptjax.files.folders import state_folder
from gptjax.forecast import outcomes
from gptjax.forecast.outcomes import MOST_WAITING, RECENT, Figures, Outcome, calibrate, history_file, record

KIND, DTYPE = "NVIDIA H100", "bfloat16"
PREDICTED = Figures(step_seconds=2.0, memory=10, seconds=20.0)


def outcome(ratio, **fields):
    measured = dataclasses.replace(PREDICTED, step_seconds=2.0 * ratio)
    size = dict(devices=1, parameters=5, tokens_per_step=8, steps=10, source="compiled", factor=1.0, waiting=0.0)
    row = dict(time="2026-01-01T00:00:00+00:00", kind=KIND, dtype=DTYPE, predicted=PREDICTED, measured=measured, **size)
    return Outcome(**row | fields)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv(outcomes.VARIABLE, str(tmp_path / "made" / "runs.jsonl"))
    return tmp_path / "made" / "runs.jsonl"


def test_the_factor_is_the_median_of_the_same_kind_and_dtype(file):
    assert calibrate(KIND, DTYPE) == outcomes.Calibration(1.0, 0, 0)
    for ratio in (1.2, 9.0, 1.1):  # one run was disturbed
        assert record(outcome(ratio)) == file
    record(outcome(5.0, kind="TPU v5e"))
    record(outcome(5.0, dtype="float32"))
    record(outcome(5.0, waiting=MOST_WAITING + 0.01))  # for its data, not for the device
    found = calibrate(KIND, DTYPE)
    assert found.factor == pytest.approx(1.2) and found.runs == 3


def test_a_calibrated_prediction_is_compared_with_what_it_was_calculated_from(file):
    """Otherwise a second run as slow as the first would undo the factor that the first one gave."""
    record(outcome(1.5))
    again = Figures(step_seconds=3.0, memory=10, seconds=30.0)
    record(outcome(1.0, factor=1.5, predicted=again, measured=again))
    assert calibrate(KIND, DTYPE).factor == pytest.approx(1.5)


def test_only_the_newest_runs_count(file):
    for ratio in [1.0] * RECENT + [2.0] * RECENT:
        record(outcome(ratio))
    assert calibrate(KIND, DTYPE) == outcomes.Calibration(2.0, RECENT, 0)


@pytest.mark.parametrize(
    "line",
    [
        '{"time": "2026',
        "[1, 2]",
        "null",
        "\x00\x01",
        "[" * 100_000,
        json.dumps(dataclasses.asdict(outcome(1.0)) | {"new": 1}),
        json.dumps(dataclasses.asdict(outcome(-1.0))),
        json.dumps(dataclasses.asdict(outcome(float("nan")))),
        json.dumps(dataclasses.asdict(outcome(1.0)) | {"factor": "1"}),
        json.dumps(dataclasses.asdict(outcome(1.0)) | {"waiting": None}),
        json.dumps(dataclasses.asdict(outcome(1.0)) | {"predicted": 3}),
        json.dumps({**dataclasses.asdict(outcome(1.0)), "predicted": {"step_seconds": 0, "memory": 1, "seconds": 1}}),
    ],
)
def test_a_damaged_line_is_skipped_and_counted(file, line):
    record(outcome(1.5))
    with open(file, "a") as text:
        text.write(line)  # without an end, as a killed process leaves it
    record(outcome(1.5))
    assert calibrate(KIND, DTYPE) == outcomes.Calibration(1.5, 2, 1)


def test_lines_of_many_writers_stay_whole(file):
    writers = [threading.Thread(target=lambda: [record(outcome(1.5)) for _ in range(20)]) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert outcomes.read_outcomes() == ((outcome(1.5),) * 80, 0)


def test_the_file_is_the_users_unless_it_is_named_or_switched_off(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv(outcomes.VARIABLE)
    assert history_file() == tmp_path / "gptjax" / "runs.jsonl" == state_folder() / "runs.jsonl"
    monkeypatch.setenv(outcomes.VARIABLE, "")
    assert history_file() is None and record(outcome(1.0)) is None and calibrate(KIND, DTYPE).runs == 0
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_read_counts_as_none(file):
    file.mkdir(parents=True)
    assert calibrate(KIND, DTYPE) == outcomes.Calibration(1.0, 0, 0)
