"""The best validation score of a run: which scores count, and the note if the last score is not the best."""

import json
import math

import pytest

from gptjax.evaluation.scores import Score
from gptjax.training.records.best import BestScore

LOSS = Score("validation/loss", "validation loss (nats per token)", "loss {:.4f}")


def rows(workdir, losses, windows="w"):
    lines = [{"step": step, "validation/loss": loss, "validation/set": windows} for step, loss in losses.items()]
    lines.insert(1, {"step": 15, "train/loss": 0.1})
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def risen(workdir, step, best_saved, windows="w"):
    return BestScore(workdir, LOSS, windows, step).risen(step, best_saved)


def test_the_best_score_is_that_of_the_same_windows_up_to_the_step(tmp_path):
    rows(tmp_path, {10: 3.0, 20: 2.31, 30: math.nan, 40: 1.0})
    best = BestScore(tmp_path, LOSS, "w", 30)
    assert (best.value, best.notes) == (2.31, [])
    assert [best.improved_by({LOSS.name: loss}) for loss in (2.4, 2.2, 2.3, math.nan)] == [False, True, False, False]
    assert best.value == 2.2
    other = BestScore(tmp_path, LOSS, "other", 30)
    assert other.value == LOSS.worst and other.notes[0].startswith("3 earlier validation scores")


def test_a_rising_loss_is_reported_with_the_checkpoint_to_sample_from(tmp_path):
    rows(tmp_path, {10: 3.0, 20: 2.31, 30: 2.4, 40: 2.52})
    assert risen(tmp_path, 40, (20, 2.31)) == [
        "validation loss is lowest at step 20 (2.3100); the last is 2.5200: sample with --checkpoint=best"
    ]
    (note,) = risen(tmp_path, 30, (20, 2.31))
    assert "the last is 2.4000" in note, "as it was at the step that a run goes on from"


def test_if_the_best_step_is_not_saved_the_note_names_fields_that_would_keep_it(tmp_path):
    rows(tmp_path, {10: 3.0, 20: 2.31, 30: 2.4, 40: 2.52})
    (note,) = risen(tmp_path, 40, (30, 2.4))
    assert "lowest at step 20 (2.3100), which is not saved" in note and "of step 30 (2.4000)" in note
    assert all(field in note for field in ("checkpoint.every", "evaluation.every", "checkpoint.keep_best"))
    (note,) = risen(tmp_path, 40, None)
    assert "no saved checkpoint has a score" in note


@pytest.mark.parametrize(
    "losses, windows",
    [
        ({10: 3.0, 20: 2.31}, "w"),  # falls
        ({10: 2.31001, 20: 2.31002}, "w"),  # equal when formatted
        ({10: 2.0, 20: 2.31}, "other"),  # measured on other windows
        ({10: 2.31, 20: math.nan}, "w"),  # nothing to compare
        ({10: 2.0, 20: 2.31}, None),  # not evaluated
    ],
)
def test_otherwise_there_is_no_note(tmp_path, losses, windows):
    rows(tmp_path, losses)
    assert risen(tmp_path, 20, (10, 2.0), windows) == []
    assert risen(tmp_path / "new", 20, None) == []
