"""Metrics are read one step later, and some of them end a run."""

import json

import jax.numpy as jnp
import pytest

from gptjax.config import RunError
from gptjax.training.hardware import Peak
from gptjax.training.metrics import Throughput
from gptjax.training.records.progress import SKIPS_IN_A_ROW, Progress


class Recorder:
    """Replaces view and writer, and records all calls."""

    def __init__(self):
        self.advanced, self.notes, self.rows = [], [], {}

    def advance(self, step):
        self.advanced.append(step)

    def note(self, text):
        self.notes.append(text)

    def log(self, step, row):
        pass

    def write(self, step, row):
        self.rows[step] = row


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def progress(recorder):
    sizes = dict(every=2, last_step=5, tokens_per_step=10, flops_per_token=1.0, peak=Peak(None, "n/a"))
    return Progress(recorder, recorder, Throughput(10), **sizes)


def metrics(loss=1.0, norm=1.0, tokens=10.0, **more):
    values = {"train/loss": loss, "train/gradient_norm": norm, "train/supervised_tokens": tokens, **more}
    return {name: jnp.float32(value) for name, value in values.items()}


def test_a_step_is_read_when_the_next_is_pushed_or_on_request(progress, recorder):
    for step in range(1, 6):
        progress.push(step, metrics(loss=float(step)))
        assert progress.train_loss == [None, 1.0, 1.5, 3.0, 3.5][step - 1]
    progress.flush()
    assert progress.train_loss == 5.0
    assert list(recorder.rows) == [2, 4, 5] and recorder.advanced == [1, 3]
    row = recorder.rows[4]
    assert (row["train/loss"], row["train/step_loss"], row["tokens"]) == (3.5, 4.0, 40)


def test_a_row_covers_all_steps_since_the_previous_row(progress, recorder):
    zscore, skipped = "train/loss_zscore", "train/skipped"
    progress.push(1, metrics(loss=5.0, norm=3.0, tokens=30.0, **{zscore: 7.0, skipped: 0.0}))
    progress.push(2, metrics(loss=1.0, norm=1.0, tokens=10.0, **{zscore: -1.0, skipped: 1.0}))
    progress.push(3, metrics(loss=float("nan"), **{zscore: float("inf"), skipped: 1.0}))
    assert recorder.rows[2] == recorder.rows[2] | {
        "train/loss": 4.0,
        "train/gradient_norm": 2.0,
        "train/step_gradient_norm": 1.0,
        "train/supervised_tokens": 40.0,
        zscore: 7.0,
        skipped: 1,
    }
    progress.read()
    assert json.loads(json.dumps(progress.interval)) == progress.interval
    progress.push(4, metrics(loss=2.0, **{zscore: 0.0, skipped: 0.0}))
    progress.read()
    assert 4 not in recorder.rows
    progress.add(4, {"validation/loss": 9.0})
    progress.flush()
    assert recorder.rows[4]["train/loss"] == 2.0 and recorder.rows[4]["validation/loss"] == 9.0
    assert recorder.rows[4][skipped] == 1


@pytest.mark.parametrize("bad", [dict(loss=float("nan")), dict(norm=float("inf"))])
def test_a_non_finite_step_ends_the_run_with_advice(progress, bad):
    progress.push(1, metrics(**bad))
    with pytest.raises(RunError, match=r"step 1: .*on_nonfinite=skip"):
        progress.push(2, metrics())


def test_a_batch_without_supervised_tokens_ends_the_run(progress):
    progress.push(1, metrics(loss=float("nan"), tokens=0.0))
    with pytest.raises(RunError, match="no token of the batch is supervised"):
        progress.flush()


def test_dropped_updates_are_reported_and_too_many_in_a_row_end_the_run(progress, recorder):
    dropped, sound = metrics(loss=float("nan"), **{"train/skipped": 1.0}), metrics(**{"train/skipped": 0.0})
    for step in range(1, SKIPS_IN_A_ROW):
        progress.push(step, dropped)
    progress.push(SKIPS_IN_A_ROW, sound)  # the series of dropped updates is interrupted
    for step in range(SKIPS_IN_A_ROW + 1, 2 * SKIPS_IN_A_ROW + 1):
        progress.push(step, dropped)
    assert len(recorder.notes) == 2 * SKIPS_IN_A_ROW - 2 and "update dropped" in recorder.notes[0]
    with pytest.raises(RunError, match="in a row were dropped"):
        progress.flush()
