"""The best validation score of a run over all of its starts, and advice if the last score is not the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from gptjax.evaluation.scores import SET, Score
from gptjax.training.records.writers import FILE_NAME as METRICS
from gptjax.training.records.writers import read_metrics


class BestScore:
    """The best value of a score on one set of validation windows, according to metrics.jsonl.

    Args:
      score: the score that decides which of two checkpoints is better.
      windows: the `Dataset.identity` of the windows; None if the run is not evaluated.
      step: the step from which the run continues; rows of later steps do not count.

    Attributes:
      value: the best value so far; the score's `worst` before the first evaluation.
      notes: sentences to print if earlier scores were measured on other windows.
    """

    def __init__(self, workdir: Path, score: Score, windows: str | None, step: int):
        self._path, self._score, self._windows = workdir / METRICS, score, windows
        scored = [row for row in self._rows() if row.get(score.name) is not None and row["step"] <= step]
        alike = [row[score.name] for row in scored if row.get(SET) == windows]
        self.value = score.best(alike)
        self.notes = []
        if len(alike) < len(scored):
            self.notes.append(
                f"{len(scored) - len(alike)} earlier validation scores were measured on other windows "
                "(evaluation.tokens, the window or the data has changed): they are not compared with new ones, and the "
                "best score is reset"
            )

    def improved_by(self, scores: Mapping[str, float]) -> bool:
        """Whether these scores of an evaluation are better than the best so far. If so, they become the best."""
        value = scores[self._score.name]
        improved = self._score.better(value, self.value)
        self.value = value if improved else self.value
        return improved

    def risen(self, step: int, best_saved: tuple[int, float] | None) -> list[str]:
        """A note if the last score up to `step` is not the best: it says which checkpoint to sample from.

        best_saved: (step, value) of the checkpoint that `--checkpoint=best` stands for.
        """
        score = self._score
        scored = [
            (row[score.name], row["step"])
            for row in self._rows()
            if row.get(SET) == self._windows and math.isfinite(row.get(score.name, math.nan)) and row["step"] <= step
        ]
        if not scored:
            return []
        (best, at), last = (max if score.higher_is_better else min)(scored), scored[-1][0]
        if f"{best:.4f}" == f"{last:.4f}":
            return []
        what, best_is = f"validation {score.title}", "highest" if score.higher_is_better else "lowest"
        if best_saved is not None and best_saved[0] == at:
            return [
                f"{what} is {best_is} at step {at} ({best:.4f}); the last is {last:.4f}: sample with --checkpoint=best"
            ]
        saved = "no saved checkpoint has a score"
        if best_saved is not None:
            saved = f"the best saved checkpoint is that of step {best_saved[0]} ({best_saved[1]:.4f})"
        return [
            f"{what} was {best_is} at step {at} ({best:.4f}), which is not saved; the last is {last:.4f}, and {saved}: "
            "to keep the best, set checkpoint.every to evaluation.every, and checkpoint.keep_best to 1 or more"
        ]

    def _rows(self) -> list[dict]:
        return read_metrics(self._path) if self._windows is not None and self._path.exists() else []
