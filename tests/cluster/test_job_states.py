"""Slurm's jobs without accounting, told by a squeue that shows a file."""

import os
import stat

import pytest

from gptjax.cluster.job_states import GONE, JobStates


@pytest.fixture
def queue(tmp_path, monkeypatch):
    for name, script in (("sacct", "exit 1"), ("squeue", f"cat {tmp_path}/queue")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "queue"


def test_a_job_submitted_after_the_queue_was_read_is_not_taken_for_one_that_ended(queue):
    states = JobStates()
    queue.write_text("1 RUNNING\n")
    assert states.get_state("1") == "RUNNING"
    queue.write_text("1 RUNNING\n2_0 PENDING\n2_1 SUSPENDED\n")
    assert [states.get_state(job) for job in ("2_0", "2_1")] == ["PENDING", "RUNNING"]
    assert states.get_state("3") == GONE and states.is_done("3") and not states.is_done("2_1")


def test_a_queue_that_cannot_be_read_ends_no_job(queue):
    states = JobStates()  # there is no file to show
    assert states.get_state("1", mode="force") == "UNKNOWN" and not states.is_done("1")
