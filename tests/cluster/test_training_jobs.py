"""Runs as jobs: submitit's local and debug executors, requeuing after preemption, and the array submitted to Slurm."""

import os
import signal
import stat

import pytest
import submitit
from waiting import until

from gptjax.cluster.launch import exit_status, last_lines
from gptjax.cluster.training_jobs import TrainingJobs
from gptjax.config import ConfigError, RunError

COUNTS = """
import pathlib, signal, sys, time
starts = pathlib.Path(sys.argv[1]) / 'starts'
before = starts.read_text() if starts.exists() else ''
starts.write_text(before + 'x')
def save(*_):
    starts.with_name('saved').touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
starts.with_name('ready').touch()
if not before:
    time.sleep(1200)
"""

SBATCH = """#!/bin/sh
cp "$1" "$(dirname "$0")/script_$(ls "$(dirname "$0")" | wc -l)"
echo "Submitted batch job 4711"
"""
SACCT = """#!/bin/sh
printf 'JobID|State|NodeList\\n4711_[0-2]|PENDING|None\\n'
"""


@pytest.mark.parametrize("kind", ["debug", "local"])
def test_a_job_runs_the_command_and_stores_its_output_and_status_in_the_run(scripted, tmp_path, kind):
    good, bad = scripted("print('fine')", 2)
    bad.script = "raise SystemExit('it broke')"
    cluster = TrainingJobs(kind, tmp_path / "jobs", 2, {})
    handles = cluster.start([good, bad])
    until(lambda: all(handle.ended() for handle in handles))
    assert last_lines(good.workdir) == ["fine"] and exit_status(good.workdir) == 0
    assert last_lines(bad.workdir) == ["it broke"] and exit_status(bad.workdir) == 1
    assert not cluster.detaches and cluster.slots == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "sent, preempted, starts",
    [
        (signal.SIGUSR2, "None", "xx"),  # the signal that submitit requests from Slurm
        (signal.SIGTERM, "2026-11-27T20:11:12", "xx"),  # Slurm's own signal before preemption
        (signal.SIGTERM, "None", "x"),  # the job is cancelled
    ],
)
def test_a_job_that_is_told_to_end_saves_and_a_preempted_one_is_requeued(
    scripted, tmp_path, monkeypatch, sent, preempted, starts
):
    (run,) = scripted(COUNTS)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/scontrol").write_text(f"#!/bin/sh\necho JobId=$4 PreemptTime={preempted}\n")
    (tmp_path / "bin/scontrol").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    (handle,) = TrainingJobs("local", tmp_path / "jobs", 1, {}).start([run])
    until((run.workdir / "ready").exists)
    task = int(children(handle._job._process.pid)[0])
    os.kill(task, sent)
    until(handle.ended)
    assert (run.workdir / "saved").exists()
    assert (run.workdir / "starts").read_text() == starts and exit_status(run.workdir) == 0


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A cluster whose jobs stay in the queue; returns the folder of the submitted scripts."""
    commands = tmp_path / "bin"
    commands.mkdir()
    put(commands, sbatch=SBATCH, sacct=SACCT, srun="#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    return commands


def test_slurm_gets_one_array_with_its_limits_and_a_signal_before_the_end(scripted, tmp_path, slurm):
    runs = scripted("pass", 3)
    cluster = TrainingJobs(
        "slurm", tmp_path / "jobs", 2, {"timeout_min": 30, "gpus_per_node": 1, "slurm_partition": "big"}
    )
    handles = cluster.start(runs)
    (script,) = slurm.glob("script_*")
    text = script.read_text()
    for line in ("--array=0-2%2", "--time=30", "--gpus-per-node=1", "--partition=big", "--signal=USR2@"):
        assert f"#SBATCH {line}" in text
    assert "submitit.core._submit" in text
    assert cluster.detaches and cluster.slots > 1000 and not any(handle.ended() for handle in handles)

    again = TrainingJobs("slurm", tmp_path / "jobs", 2, {}).start(
        runs
    )  # the sweep was stopped while its jobs were in the queue
    assert [handle._job.job_id for handle in again] == ["4711_0", "4711_1", "4711_2"]
    assert len(list(slurm.glob("script_*"))) == 1


def test_a_job_that_has_left_the_queue_is_submitted_again(scripted, tmp_path, slurm):
    runs = scripted("pass", 3)
    TrainingJobs("slurm", tmp_path / "jobs", 0, {}).start(runs)
    (slurm / "sacct").write_text(SACCT.replace("PENDING", "TIMEOUT"))
    submitit.SlurmJob.watcher.clear()
    TrainingJobs("slurm", tmp_path / "jobs", 0, {}).start(runs[:2])
    assert len(list(slurm.glob("script_*"))) == 2


NO_SACCT = "#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2; exit 1\n"


@pytest.mark.parametrize(
    "queue, expected",
    [
        ("4711_0 PENDING\n4711_1 RUNNING\n4711_2 CONFIGURING", ["4711_0", "4711_1", "4711_2"]),
        ("4711_0 RUNNING\n4711_1 NODE_FAIL\n9 PENDING", ["4711_0", "4712_0", "4712_1"]),  # no longer in the queue
        ("", ["4712_0", "4712_1", "4712_2"]),
    ],
)
def test_without_accounting_the_queue_tells_which_jobs_are_active(scripted, tmp_path, slurm, queue, expected):
    runs = scripted("pass", 3)
    submitit.SlurmJob.watcher.clear()
    put(slurm, sacct=NO_SACCT, squeue="#!/bin/sh\nprintf '4711_0 PENDING\\n4711_1 PENDING\\n4711_2 PENDING\\n'\n")
    first = TrainingJobs("slurm", tmp_path / "jobs", 0, {}).start(runs)
    assert not any(handle.ended() for handle in first)
    submitit.SlurmJob.watcher.clear()
    put(slurm, sbatch=SBATCH.replace("4711", "4712"), squeue=f"#!/bin/sh\ncat <<'END'\n{queue}\nEND\n")
    handles = TrainingJobs("slurm", tmp_path / "jobs", 0, {}).start(runs)
    assert [handle._job.job_id for handle in handles] == expected
    assert len(list(slurm.glob("script_*"))) == 1 + ("4712_0" in expected)
    kept = [job in queue for job in ("4711_0", "4711_1", "4711_2")]
    lost = [handle.ended() for handle, there in zip(first, kept) if not there]
    assert all(lost), "a job that is no longer in the queue has ended"


@pytest.mark.parametrize("squeue", ["#!/bin/sh\nexit 1\n", None])
def test_no_job_is_submitted_again_if_job_states_are_unknown(scripted, tmp_path, slurm, squeue):
    runs = scripted("pass", 2)
    TrainingJobs("slurm", tmp_path / "jobs", 0, {}).start(runs)
    submitit.SlurmJob.watcher.clear()
    put(slurm, sacct=NO_SACCT, squeue=squeue or "not a program")
    with pytest.raises(RunError, match=r"neither sacct nor squeue reports whether job 4711_0"):
        TrainingJobs("slurm", tmp_path / "jobs", 0, {}).start(runs)
    assert len(list(slurm.glob("script_*"))) == 1


def put(folder, **commands):
    """Puts commands on the path, or replaces them."""
    for name, script in commands.items():
        (folder / name).write_text(script)
        (folder / name).chmod(stat.S_IRWXU)


def test_invalid_options_are_reported_in_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"--executor=local: .*partitoin"):
        TrainingJobs("local", tmp_path, 1, {"slurm_partitoin": "big"})
    if not any(os.access(os.path.join(folder, "srun"), os.X_OK) for folder in os.environ["PATH"].split(":")):
        with pytest.raises(ConfigError, match=r"--executor=slurm: .*srun"):
            TrainingJobs("slurm", tmp_path, 1, {})
