"""Executes the runs of a sweep, a few at a time, until all have ended or the user stops the sweep."""

from __future__ import annotations

import collections
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from gptjax.cluster.cores import available_cores
from gptjax.cluster.launch import Launched
from gptjax.config import ConfigError
from gptjax.sweeping.runs import Status, SweepRun, status_of
from gptjax.sweeping.view import SweepView

POLL_SECONDS = 0.5


class Handle(Protocol):
    """A run that has been started."""

    def ended(self) -> bool: ...

    def stop(self) -> None:
        """Asks for a checkpoint and a clean end."""

    def kill(self) -> None: ...


class RunExecutor(Protocol):
    """Starts runs.

    Attributes:
      slots: the maximum number of runs at a time.
      detaches: whether its jobs continue when the sweep ends.
    """

    slots: int
    detaches: bool

    def start(self, runs: Sequence[SweepRun]) -> Sequence[Handle]:
        """Starts at most `slots` runs. It does not raise an error that a single run causes."""


def execute(
    runs: Sequence[SweepRun], executor: RunExecutor, view: SweepView, stopped: Callable[[], bool]
) -> dict[str, Status]:
    """Executes the runs and returns name → status of each run that ended.

    When `stopped()` becomes true, the active runs save and the function returns early. An exception kills the active
    runs. If the executor detaches, active runs continue in both cases.
    """
    waiting = collections.deque(runs)
    active: dict[str, tuple[SweepRun, Handle]] = {}
    outcomes: dict[str, Status] = {}
    stopping = False
    try:
        while waiting or active:
            if stopped() and not stopping:
                stopping = True
                view.stopping(len(waiting), len(active), executor.detaches)
                waiting.clear()
                if executor.detaches:
                    break
                for _, handle in active.values():
                    handle.stop()
            next_runs = [waiting.popleft() for _ in range(min(executor.slots - len(active), len(waiting)))]
            for run, handle in zip(next_runs, executor.start(next_runs) if next_runs else []):
                active[run.name] = run, handle
                view.started(run)
            for run, handle in list(active.values()):
                if handle.ended():
                    del active[run.name]
                    outcomes[run.name] = status_of(run)
                    view.ended(run, outcomes[run.name])
            view.refresh([run for run, _ in active.values()], list(waiting))
            if active:
                time.sleep(POLL_SECONDS)
    except BaseException:
        for _, handle in () if executor.detaches else active.values():
            handle.kill()
        raise
    return outcomes


# --- On this machine -------------------------------------------------------------------------------------------------


class Processes:
    """Starts runs as subprocesses, `jobs` at a time, each with an equal share of this machine's cores and GPUs.

    Raises:
      ConfigError: there are fewer GPUs than jobs.
    """

    detaches = False

    def __init__(self, jobs: int):
        self.slots = jobs
        self._shares = shares(jobs, available_cores(), available_gpus())
        self._free = collections.deque(range(jobs))

    def start(self, runs: Sequence[SweepRun]) -> list[Handle]:
        return [self._start(run) for run in runs]

    def _start(self, run: SweepRun) -> Handle:
        slot = self._free.popleft()
        cores, environment = self._shares[slot]
        with on_cores(cores):  # the process inherits this, and XLA starts one thread per core that it may use
            launched = Launched(run.command, run.workdir, environment)
        return _ProcessHandle(launched, lambda: self._free.append(slot))


class _ProcessHandle:
    def __init__(self, launched: Launched, release: Callable[[], None]):
        self._launched, self._release = launched, release
        self.stop, self.kill = launched.stop, launched.kill

    def ended(self) -> bool:
        if self._launched.poll() is None:
            return False
        self._release()
        return True


def shares(jobs: int, cores: Sequence[int], gpus: Sequence[str]) -> list[tuple[list[int], dict[str, str]]]:
    """Returns (cores, environment variables) for each job, in equal parts; jobs share cores if there are too few.

    Raises:
      ConfigError: there are GPUs, but fewer than jobs.
    """
    if gpus and len(gpus) < jobs:
        raise ConfigError(f"--jobs={jobs}: must not exceed this machine's {len(gpus)} GPUs")

    def part(things: Sequence, job: int) -> list:
        each = len(things) // jobs
        return list(things[job * each : (job + 1) * each])

    return [
        (
            part(cores, job) or [cores[job % len(cores)]],
            {"CUDA_VISIBLE_DEVICES": ",".join(part(gpus, job))} if gpus and jobs > 1 else {},
        )
        for job in range(jobs)
    ]


def available_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Returns the GPUs that JAX would use, as in CUDA_VISIBLE_DEVICES; an empty list if JAX_PLATFORMS is cpu."""
    if environment.get("JAX_PLATFORMS") == "cpu":
        return []
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [name for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Processes that this thread starts in the block use only these cores, if the system supports that (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
