"""Runs of a sweep at work: some at a time, whatever becomes of each, until all have ended or somebody says stop."""

from __future__ import annotations

import collections
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from gptjax.cluster.launch import Launched
from gptjax.config import ConfigError
from gptjax.sweeping.runs import Status, SweepRun, status_of
from gptjax.sweeping.view import SweepView

POLL_SECONDS = 0.5


class Handle(Protocol):
    """A run that was started."""

    def ended(self) -> bool: ...

    def stop(self) -> None:
        """Asks for a checkpoint and a clean end."""

    def kill(self) -> None: ...


class RunExecutor(Protocol):
    """Where runs are started. slots: how many at a time. detaches: its jobs go on without the sweep."""

    slots: int
    detaches: bool

    def start(self, runs: Sequence[SweepRun]) -> Sequence[Handle]:
        """Starts at most `slots` runs; raises nothing that a single run is to blame for."""


def execute(
    runs: Sequence[SweepRun], executor: RunExecutor, view: SweepView, stopped: Callable[[], bool]
) -> dict[str, Status]:
    """Name → how each run ended. When `stopped()`, returns early with the runs saved; an exception kills them.

    Of an executor that detaches, runs at work are left alone in both cases.
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
    """Runs as subprocesses, `jobs` at a time, each with an equal share of this machine's cores and GPUs.

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
        with on_cores(cores):  # inherited by the process: XLA makes as many threads as it may use cores
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
    """(cores, environment) of each of the jobs: equal parts, cores in turn when there are fewer than jobs.

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


def available_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def available_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Names of the GPUs that JAX would see, as CUDA_VISIBLE_DEVICES takes them; none where JAX is told to use CPUs."""
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
    """What this thread starts meanwhile keeps to these cores, where the system can do that (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
