"""Records a profile of ten steps when the config asks for one (`training.profile`), for TensorBoard or Perfetto."""

from __future__ import annotations

from pathlib import Path

import jax

from gptjax.training.state import TrainState

TRACED_STEPS = 10


class Profiler:
    """Traces ten steps from `training.profile` on into the run's profile/ folder, for TensorBoard or Perfetto."""

    def __init__(self, workdir: Path, first_step: int | None):
        """first_step: the number of steps after which tracing begins; None: never."""
        self._folder = workdir / "profile"
        self._first = first_step
        self._running = False

    def before(self, done: int) -> None:
        if done == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, done: int, state: TrainState) -> None:
        if self._running and self._first is not None and done == self._first + TRACED_STEPS:
            jax.block_until_ready(state.params)
            self.close()

    def close(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
