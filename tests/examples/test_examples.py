"""The files of examples/ pass their linters; the Slurm script saves and requeues itself, or reports a failure."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
REPOSITORY = EXAMPLES.parent


@pytest.mark.parametrize("command", [["hadolint", "Containerfile"], ["shellcheck", "slurm.sbatch"]], ids=lambda c: c[0])
def test_linters_report_no_errors(command):
    linter = Path(sys.executable).parent / command[0]
    if not linter.exists():
        pytest.skip(f"{command[0]} is not installed beside this Python (extra dev)")
    done = subprocess.run([linter, EXAMPLES / command[1]], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_container_copies_existing_files():
    lines = (EXAMPLES / "Containerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert copied and all((REPOSITORY / name).exists() for name in copied)


# Fakes of the Slurm commands that the script needs: srun starts the tasks, scancel signals them, scontrol logs a call.
COMMANDS = {
    "srun": 'echo "$@" >"$NOTES/srun"; shift; exec "$@"',
    "scancel": 'echo "$@" >"$NOTES/scancel"; [ -z "$CANCELLED" ] || exit 1; kill -TERM "$(cat "$NOTES/task")"',
    "scontrol": """case "$*" in
      *show*) echo "JobId=17 PreemptTime=$PREEMPTED Partition=low";;
      *) echo "$@" >"$NOTES/scontrol";;
    esac""",
}
# A fake of Python with gptjax: training that saves on a signal to stop, and ends by itself if configured so.
TASK = """
echo $$ >"$NOTES/task"
case "$*" in *fail*) exit 3;; *quick*) exit 0;; esac
trap 'sleep 0.2; echo saved >"$NOTES/saved"; exit 0' TERM
: >"$NOTES/ready"
while :; do sleep 0.05; done
"""


@pytest.fixture
def slurm(tmp_path):
    """Starts the script with the given arguments: (process, folder with a log of the called commands)."""
    for name, body in (COMMANDS | {"task": TASK}).items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    notes = tmp_path / "notes"
    notes.mkdir()
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "NOTES": str(notes),
        "SLURM_JOB_ID": "17",
        "PREEMPTED": "None",
        "CANCELLED": "",
        "PYTHON": str(tmp_path / "bin" / "task"),
    }

    def start(*arguments, **more):
        return subprocess.Popen(["bash", EXAMPLES / "slurm.sbatch", *arguments], env=environment | more), notes

    return start


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, "the script ended early"
        signal.sigtimedwait([], 0.02)


def test_before_the_time_limit_the_script_saves_and_requeues_itself(slurm):
    script, notes = slurm("--workdir=runs/mine")
    wait_for(notes / "ready", script)
    script.send_signal(signal.SIGTERM)
    assert script.wait(60) == 0
    assert (notes / "saved").exists(), "the script waits for the tasks to save"
    assert (notes / "scancel").read_text().split() == ["--signal=TERM", "17"]
    assert (notes / "scontrol").read_text().split() == ["requeue", "17"]
    assert (notes / "srun").read_text().split()[-3:] == ["-m", "gptjax.train", "--workdir=runs/mine"]


def test_a_cancelled_job_is_not_requeued_although_its_tasks_have_saved(slurm):
    script, notes = slurm("--workdir=runs/mine", CANCELLED="yes")
    wait_for(notes / "ready", script)
    for process in (int((notes / "task").read_text()), script.pid):  # Slurm signals both
        os.kill(process, signal.SIGTERM)
    assert script.wait(60) != 0
    assert (notes / "scancel").exists() and not (notes / "scontrol").exists()


@pytest.mark.parametrize(("how", "status"), [("quick", 0), ("fail", 3)])
def test_a_run_that_ends_by_itself_is_not_requeued(slurm, how, status):
    script, notes = slurm(how)
    assert script.wait(60) == status
    assert not (notes / "scontrol").exists()


def test_a_preempted_run_is_requeued(slurm):
    script, notes = slurm("quick", PREEMPTED="2026-11-27T20:11:12")
    assert script.wait(60) == 0
    assert (notes / "scontrol").read_text().split() == ["requeue", "17"]
