"""Training runs that are killed and restarted, for test_resume.py, test_faults.py and soak.py."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prepared_folders import write_prepared
from waiting import PATIENCE

from gptjax.tokenizer import ByteTokenizer
from gptjax.training.checkpoints.format import TEMPORARY
from gptjax.training.records.writers import read_metrics

REPOSITORY = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join(map(str, (REPOSITORY, Path(__file__).parent)))  # the config imports injected_faults

CONFIG = '''
import injected_faults  # none, unless a test says so

from gptjax.config import default


def get_config():
    """A model of one layer that trains for a second, saves often, and uses all that could make a resume inexact."""
    config = default()
    config.model.update(num_layers=1, width=32, num_heads=2, dropout=0.1)
    config.data.update(path={data!r}, sequence_length=32)
    config.training.update(duration="{steps} steps", batch_size=8, ema_decay=0.9, outlier_zscore=8.0)
    config.schedule.warmup = "10 steps"
    config.evaluation.update(every="10 steps", tokens=512)
    config.checkpoint.update(every="4 steps", keep_best=1)
    config.logging.update(every="1 steps", tensorboard=False, plots=False)
    return config
'''

# These must not depend on when or how often a run was interrupted.
FIGURES = ("train/loss", "train/gradient_norm", "learning_rate", "validation/loss", "tokens")


class Runs:
    """A prepared corpus and a config in `folder`, and training runs with them, each in its own workdir."""

    def __init__(self, folder: Path, steps: int = 60, platforms: str = "cpu"):
        self.folder, self.steps = folder, steps
        (folder / "config.py").write_text(CONFIG.format(data=str(folder / "data"), steps=steps))
        self._environment = os.environ | {"PYTHONPATH": PYTHONPATH, "JAX_PLATFORMS": platforms}
        texts = [path.read_text() for path in sorted((REPOSITORY / "gptjax").glob("*.py"))]
        documents = [[*ByteTokenizer().encode(text), ByteTokenizer().eos_id] for text in texts]
        write_prepared(folder / "data", train=documents[4:], validation=documents[:4], shard_tokens=100_000)

    def start(
        self,
        workdir: Path,
        *overrides: str,
        devices: int = 1,
        console: int | None = None,
        member: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen:
        """Starts or resumes the run.

        console: where its output goes; None means a file in the workdir. member: the number of the process, if there
        are several. environment: variables added to those of this process.
        """
        command = [sys.executable, "-m", "gptjax.train", f"--config={self.folder / 'config.py'}"]
        workdir.mkdir(exist_ok=True)
        with open(workdir / f"output{'' if member is None else member}.txt", "ab") as output:
            return subprocess.Popen(
                [*command, f"--workdir={workdir}", *overrides],
                env=self._environment | {"JAX_NUM_CPU_DEVICES": str(devices)} | dict(environment or {}),
                stdout=output if console is None else console,
                stderr=output if console is None else console,
            )

    def start_several(
        self,
        workdir: Path,
        *overrides: Sequence[str],
        devices: int = 1,
        environments: Mapping[int, Mapping[str, str]] | None = None,
    ) -> list[subprocess.Popen]:
        """Starts the processes of a run, each with its overrides. environments: number of a process → its variables."""
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            meeting = [f"--coordinator=127.0.0.1:{s.getsockname()[1]}", f"--num_processes={len(overrides)}"]
        return [
            self.start(
                workdir,
                *meeting,
                f"--process_id={i}",
                *own,
                devices=devices,
                member=i,
                environment=(environments or {}).get(i),
            )
            for i, own in enumerate(overrides)
        ]

    def finish(self, workdir: Path, *overrides: str, devices: int = 1) -> None:
        """Starts or resumes the run in `workdir`, and waits for its end."""
        process = self.start(workdir, *overrides, devices=devices)
        try:
            status = process.wait(timeout=PATIENCE)
        finally:
            process.kill()
        assert status == 0, f"exit status {status}:\n{output(workdir)[-4000:]}"

    def finish_several(self, workdir: Path, *overrides: Sequence[str], **options: Any) -> None:
        """Starts or resumes a run of several processes, and waits for its end. options: those of `start_several`."""
        processes = self.start_several(workdir, *overrides, **options)
        try:
            assert [process.wait(PATIENCE) for process in processes] == [0] * len(processes), output(workdir)[-8000:]
        finally:
            end(processes)

    def kill(self, workdir: Path, moment: str, generator: random.Random) -> bool:
        """Starts or resumes the run in `workdir` and kills it at a moment of the given kind.

        Returns:
          False if the run finished first.
        """
        process = self.start(workdir)
        try:
            MOMENTS[moment](workdir, process, generator)
        finally:
            process.kill()
            status = process.wait()
        assert status in (0, -signal.SIGKILL), f"exit status {status}:\n{output(workdir)[-4000:]}"
        return status != 0


def end(processes: Sequence[subprocess.Popen]) -> None:
    """Kills the processes that still run."""
    for process in processes:
        process.kill()
        process.wait()


def losses(workdir: Path) -> dict[int, dict[str, float]]:
    """Step → the figures that must be equal; a step that was written twice is an error."""
    path = workdir / "metrics.jsonl"
    found: dict[int, dict[str, float]] = {}
    for row in read_metrics(path) if path.exists() else []:
        figures = {name: row[name] for name in FIGURES if name in row}
        known = found.setdefault(row["step"], {})
        assert not (known.keys() & figures.keys()) - {"tokens"}, f"step {row['step']} was written twice"
        known |= figures
    return found


def output(workdir: Path, member: int | str = "*") -> str:
    """The output of the run or of one of its processes."""
    return "".join(path.read_text(errors="replace") for path in sorted(workdir.glob(f"output{member}.txt")))


def remains(workdir: Path) -> list[str]:
    """The temporary folders of saves and deletions that a kill interrupted."""
    folder = workdir / "checkpoints"
    return sorted(path.name for path in folder.glob("*") if not path.name.isdigit())


# --- When to kill -----------------------------------------------------------------------------------------------------


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, pause: float = 0.05) -> None:
    """Returns once `condition` holds or the process has ended. pause: seconds between two checks."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(pause)


def starting(workdir: Path, process: subprocess.Popen, generator: random.Random) -> None:
    """Any time during start-up: importing, restoring, dropping rows of metrics, compiling."""
    deadline = time.monotonic() + generator.uniform(0.0, 8.0)
    wait_for(lambda: time.monotonic() > deadline, process)


def training(workdir: Path, process: subprocess.Popen, generator: random.Random) -> None:
    """A few milliseconds after one of the next rows of metrics: in a step, an evaluation, a save, or between them."""
    path = workdir / "metrics.jsonl"
    before = path.stat() if path.exists() else None

    def written() -> bool:  # this start's first row, after importing and compiling
        if not path.exists():
            return False
        now = path.stat()
        return now.st_size > (before.st_size if before and before.st_ino == now.st_ino else 0)

    wait_for(written, process, pause=0.005)
    enough = path.stat().st_size + generator.randrange(20) * 300  # bytes per row
    wait_for(lambda: path.stat().st_size >= enough, process, pause=0.002)
    time.sleep(generator.uniform(0.0, 0.03))


def saving(workdir: Path, process: subprocess.Popen, generator: random.Random) -> None:
    """While a checkpoint is written, which its temporary folder shows."""
    training(workdir, process, generator)
    wait_for(lambda: any(workdir.glob(f"checkpoints/*{TEMPORARY}")), process, pause=0.0005)
    time.sleep(generator.uniform(0.0, 0.01))


def deleting(workdir: Path, process: subprocess.Popen, generator: random.Random) -> None:
    """While an old checkpoint is deleted."""
    training(workdir, process, generator)
    wait_for(lambda: any(workdir.glob("checkpoints/deleted-*")), process, pause=0.0)


MOMENTS = {moment.__name__: moment for moment in (starting, training, saving, deleting)}
