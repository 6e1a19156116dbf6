"""Sends a run's metrics, config and samples to Weights & Biases: `logging.wandb` names the project.

wandb's own environment variables give the destination (its server, or a local folder with WANDB_MODE=offline) and the
account (WANDB_API_KEY, `wandb login`). Training continues whatever wandb does: its first failure is logged, and nothing
more is sent.
"""

from __future__ import annotations

import html
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from gptjax.config import ConfigError
from gptjax.files import write_aside
from gptjax.training.records.tensorboard import grouped

RUN_ID = "wandb_run_id.txt"  # in the run's folder: a resumed run keeps its id


class WandbWriter:
    """Rows of metrics by step. A step that was sent before the run was killed is sent again, with the same values."""

    def __init__(self, workdir: Path, project: str, fields: Mapping[str, Any]):
        """fields: dotted name → value, for each field of the config.

        Raises:
          ConfigError: the package is not installed.
        """
        try:
            import wandb
        except ModuleNotFoundError:
            raise ConfigError(
                f"logging.wandb = {project!r}: needs the package wandb (pip install 'gptjax[wandb]')"
            ) from None
        self._wandb, self._run = wandb, None
        self._try("start", self._start, workdir, project, fields)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """metrics: plain Python values; values that are not numbers are left out."""
        numbers = {grouped(name): value for name, value in metrics.items() if isinstance(value, int | float)}
        if self._run is not None:
            self._try("log", self._run.log, numbers, step=step)

    def text(self, step: int, name: str, text: str) -> None:
        if self._run is not None:
            self._try("log", self._run.log, {name: self._wandb.Html(f"<pre>{html.escape(text)}</pre>")}, step=step)

    def close(self) -> None:
        if self._run is not None:
            self._try("finish", self._run.finish)

    def _start(self, workdir: Path, project: str, fields: Mapping[str, Any]) -> None:
        path = workdir / RUN_ID
        if not path.exists():
            with write_aside(path) as file:
                file.write(secrets.token_hex(4).encode())
        self._run = self._wandb.init(
            project=project,
            id=path.read_text().strip(),
            name=workdir.absolute().name,
            resume="allow",
            dir=workdir,
            config=dict(fields),
            settings=self._wandb.Settings(console="off"),
        )

    def _try(self, what: str, act: Callable, *arguments: Any, **named: Any) -> None:
        try:
            act(*arguments, **named)
        except Exception as error:  # any error: a failed upload must not end the run
            self._run = None
            logging.error("Weights & Biases gets no more data, and the run continues: cannot %s (%s)", what, error)
