"""The sweep command from end to end: failing, finished and interrupted runs, its output, and errors."""

import csv
import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run_command
from prepared_folders import write_prepared
from waiting import PATIENCE, until

from gptjax.files.folders import is_held
from gptjax.tokenizer import ByteTokenizer

REPOSITORY = Path(__file__).parents[1]

CONFIG = """
from gptjax.config import default

def get_config():
    config = default()
    config.model.update(num_layers=1, width=16, num_heads=2)
    config.data.update(path={data!r}, sequence_length=16)
    config.schedule.warmup = "2 steps"
    config.training.update(duration="20 steps", batch_size=4)
    config.checkpoint.every = "10 steps"
    config.evaluation.update(every="10 steps", tokens=128)
    config.logging.update(every="1 step", tensorboard=False, plots=False)
    return config
"""
SWEEP = """
from gptjax.sweeping import Sweep, chain, named, over, seeds

def get_sweep(arg="two"):
    diverges = named({{"diverges": {{"optimizer.learning_rate": 1e30, "optimizer.gradient_clip": 0.0}}}})
    points = {{"two": chain(seeds(1), diverges), "long": seeds(1), "typo": None}}[arg]
    points = over("model.wdith", [1]) if arg == "typo" else points
    settings = {{"training.duration": "200000 steps"}} if arg == "long" else {{}}
    return Sweep({config!r}, points, settings)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    tokenizer = ByteTokenizer()
    ids = [*tokenizer.encode("so much depends upon a red wheel barrow; " * 25), tokenizer.eos_id]
    write_prepared(folder / "data", train=[ids] * 2, validation=[ids], tokenizer=tokenizer)
    (folder / "config.py").write_text(CONFIG.format(data=str(folder / "data")))
    (folder / "sweep.py").write_text(SWEEP.format(config=str(folder / "config.py")))
    return folder


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "gptjax.sweep", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sweep(*arguments):
    process = start(*arguments)
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, output, errors


@pytest.mark.slow
def test_a_sweep_continues_after_a_failure_and_later_skips_finished_runs(folder):
    workdir = folder / "two"
    arguments = (f"{folder / 'sweep.py'}", f"--workdir={workdir}", "--jobs=2")
    code, output, errors = sweep(*arguments)
    assert code == 1, errors
    assert "finished  seed=0" in output
    assert "failed    diverges" in output and "Lower optimizer.learning_rate" in output  # the run's own last line
    assert "1 failed: diverges" in output
    rows = list(csv.DictReader((workdir / "results.csv").read_text().splitlines()))
    assert [row["state"] for row in rows] == ["finished", "failed"]
    assert (workdir / "plots/loss_by_step.png").exists()

    before = (workdir / "seed=0/metrics.jsonl").stat().st_mtime_ns
    code, output, _ = sweep(*arguments)
    assert code == 1 and "started   diverges" in output and "started   seed" not in output
    assert "times predicted from 1 finished run," in output
    assert (workdir / "seed=0/metrics.jsonl").stat().st_mtime_ns == before


def grown(path, size):
    return path.exists() and path.stat().st_size > size


@pytest.mark.slow
def test_a_signal_saves_the_run_and_the_same_command_continues(folder):
    """Tests SIGTERM and the SIGHUP of a terminal that closes after the first line. No run is left behind."""
    workdir = folder / "long"
    arguments = (f"{folder / 'sweep.py'}:long", f"--workdir={workdir}")
    saved = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        process = start(*arguments)
        metrics = workdir / "seed=0/metrics.jsonl"
        before = metrics.stat().st_size if metrics.exists() else 0
        try:
            until(functools.partial(grown, metrics, before + 1000), process)
            if number == signal.SIGHUP:
                process.stdout.readline()
                process.stdout.close()
                process.stdout = None
            process.send_signal(number)
            output, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        assert process.returncode == 130, errors
        assert number == signal.SIGHUP or ("1 run is saving" in output and "1 partly done: seed=0" in output)
        assert not is_held(workdir / "seed=0")
        saved.append(max(int(path.name) for path in (workdir / "seed=0/checkpoints").iterdir()))
    assert 0 < saved[0] < saved[1]
    assert f"resumed from step {saved[0]}" in (workdir / "seed=0/output.txt").read_text()


def test_a_dry_run_starts_nothing(folder):
    dry = (f"--workdir={folder / 'dry'}", "--dry_run", "--peak_tflops=1e-6")
    done = run_command("sweep", f"{folder / 'sweep.py'}", *dry)
    assert done.returncode == 0, done.stderr
    assert all(part in done.stdout for part in ("diverges", "2 left", "times assume 30% of --peak_tflops"))
    assert not (folder / "dry").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "a sweep file is missing"),
        (["{sweep}"], "--workdir is missing"),
        (["{sweep}", "again", "--workdir=w"], "unexpected argument 'again'"),
        (["missing.py", "--workdir=w"], "there is no file missing.py"),
        (["{sweep}:typo", "--workdir=w"], "unknown field model.wdith; did you mean model.width?"),
        (["{sweep}", "--workdir=w", "--set=model.widht=3"], "did you mean model.width?"),
        (["{sweep}", "--workdir=w", "--jobs=0"], "--jobs"),
        (["{sweep}", "--workdir=w", "--executor=lokal"], "--executor"),
        (["{sweep}", "--workdir=w", "--price=2 USD"], "--price='2 USD': needs --hardware"),
        (["{sweep}", "--workdir=w", "--hardware=A10", "--price=2"], "--price='2': expected a price"),
        (["{sweep}", "--workdir=w", "--hardware=H300"], "did you mean H"),
        (["{sweep}", "--workdir=w", "--hardware=A10", "--peak_tflops=1"], "only one of them"),
        (["{sweep}", "--workdir=w", "--executor=local", "--submitit=gpus"], "expected NAME=VALUE"),
    ],
)
def test_user_errors_end_in_one_line_and_start_nothing(folder, arguments, message):
    done = run_command("sweep", *(argument.format(sweep=folder / "sweep.py") for argument in arguments))
    code, errors = done.returncode, done.stderr
    assert code == 2, errors
    assert errors.startswith("error: ") and errors.count("\n") == 1 and message in errors
    assert not (REPOSITORY / "w").exists()


def test_help_shows_the_usage():
    result = run_command("sweep", "--help")
    assert result.returncode == 0
    assert all(word in result.stdout for word in ("--jobs", "--workdir", "--dry_run", "--executor", "results.csv"))
