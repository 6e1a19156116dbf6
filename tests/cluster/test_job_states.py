"""Job states of Slurm without accounting, read from a squeue that prints a file."""

import os
import stat
import types

import pytest
import submitit

from gptjax.cluster import job_states
from gptjax.cluster.job_states import GONE, JobStates, use_job_states
from gptjax.cluster.job_tasks import JobTasks
from gptjax.cluster.submission import JOBS_FILE
from gptjax.cluster.training_jobs import JobHandle, TrainingJobs
from gptjax.config import ConfigError


@pytest.fixture
def queue(tmp_path, monkeypatch):
    for name, script in (("sacct", "exit 1"), ("squeue", f"cat {tmp_path}/queue")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "queue"


def test_a_job_submitted_after_the_queue_was_read_does_not_count_as_ended(queue):
    states = JobStates()
    queue.write_text("1 RUNNING\n")
    assert states.get_state("1") == "RUNNING"
    queue.write_text("1 RUNNING\n2_0 PENDING\n2_1 SUSPENDED\n")
    assert [states.get_state(job) for job in ("2_0", "2_1")] == ["PENDING", "RUNNING"]
    assert states.get_state("3") == GONE and states.is_done("3") and not states.is_done("2_1")


def test_no_job_counts_as_ended_if_the_queue_cannot_be_read(queue):
    states = JobStates()  # squeue fails, since there is no file to print
    assert states.get_state("1", mode="force") == "UNKNOWN" and not states.is_done("1")


@pytest.fixture
def failing_scancel(tmp_path, monkeypatch):
    """Fake Slurm commands on the path; scancel records its arguments and fails."""
    for name, script in (("srun", ""), ("scancel", f"echo $1 >> {tmp_path}/cancelled; exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "cancelled"


def test_work_continues_if_a_lost_drivers_jobs_cannot_be_cancelled(failing_scancel, tmp_path, caplog):
    (tmp_path / JOBS_FILE).write_text('["17_0", "17_1"]')
    JobTasks("slurm", tmp_path, 0, {})
    assert failing_scancel.read_text().split() == ["17_0", "17_1"]
    assert "job 17_1 cannot be cancelled" in caplog.text and "it has already ended, or it continues" in caplog.text


def test_a_sweep_stops_if_its_jobs_cannot_be_cancelled(failing_scancel, tmp_path, caplog, monkeypatch):
    handle = JobHandle(submitit.SlurmJob(tmp_path, "18"), tmp_path)
    handle.stop()
    assert failing_scancel.read_text() == "18\n" and "job 18 cannot be cancelled" in caplog.text
    monkeypatch.setenv("PATH", str(tmp_path / "nothing here"))
    handle.kill()
    assert "No such file or directory: 'scancel'" in caplog.text


def test_a_truncated_jobs_json_is_refused(failing_scancel, tmp_path):
    (tmp_path / JOBS_FILE).write_text('["17_0", ')
    with pytest.raises(ConfigError, match=r"jobs\.json is cut off in line 1.*; cancel this command's jobs"):
        JobTasks("slurm", tmp_path, 0, {})
    with pytest.raises(ConfigError, match=r"jobs\.json is cut off in line 1.*; cancel the sweep's jobs"):
        TrainingJobs("slurm", tmp_path, 0, {}).start([])


def test_the_queue_is_read_again_when_outdated_or_forced(queue, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(job_states, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    states = JobStates()
    queue.write_text("1 PENDING\n")
    assert states.get_info("1", mode="cache") == {}  # a cached state, without a call of squeue
    assert states.get_state("1") == "PENDING"
    queue.write_text("1 RUNNING\n")
    now[0] += 5
    assert states.get_state("1") == "PENDING" and states.get_state("1", mode="force") == "RUNNING"
    queue.write_text("1 COMPLETED\n")
    now[0] += 11
    assert states.get_state("1") == "COMPLETED"
    queue.write_text("1 FAILED\n")
    states.clear()
    assert states.get_state("1") == "FAILED"


def test_without_slurm_no_job_counts_as_ended(queue, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert JobStates().get_state("1", mode="force") == "UNKNOWN"


def test_jobs_share_one_watcher(monkeypatch):
    monkeypatch.setattr(submitit.SlurmJob, "watcher", submitit.SlurmJob.watcher)
    use_job_states()
    watcher = submitit.SlurmJob.watcher
    use_job_states()
    assert isinstance(watcher, JobStates) and submitit.SlurmJob.watcher is watcher
