"""The address of process 0 comes from flags or from SLURM's variables; contradictory flags are refused."""

import pytest

from gptjax.config import ConfigError
from gptjax.parallel.meeting import Meeting, find_meeting


def test_flags_give_the_address():
    assert find_meeting("node1:1234", 2, 1) == Meeting("node1", 1234, 2, 1)
    assert find_meeting("[::1]:1234", 2, 0).host == "::1"
    assert find_meeting("node1:1234", 1, 0) is None
    assert find_meeting(None, None, None, {}) is None


@pytest.mark.parametrize(
    "flags, message",
    [
        (("node1:1234", 2, None), "missing: --process_id"),
        (("node1:1234", 2, 2), "--process_id=2: must be below --num_processes=2"),
        (("node1", 2, 1), "--coordinator='node1': expected HOST:PORT"),
        (("node1:70000", 2, 1), "--coordinator='node1:70000': expected HOST:PORT"),
    ],
)
def test_incomplete_or_contradictory_flags_are_refused(flags, message):
    with pytest.raises(ConfigError, match=message):
        find_meeting(*flags)


@pytest.mark.parametrize(
    "nodes, host",
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("n[001-012,20]", "n001"),
        ("a[7,9],b3", "a7"),
        ("rack-2-n[3-4]-ib", "rack-2-n3-ib"),
    ],
)
def test_slurm_gives_the_address(nodes, host):
    environment = dict(SLURM_STEP_NODELIST=nodes, SLURM_STEP_NUM_TASKS="4", SLURM_JOB_ID="77", SLURM_PROCID="3")
    first = find_meeting(None, None, None, environment)
    assert (first.host, first.num_processes, first.process) == (host, 4, 3)
    assert find_meeting(None, None, None, environment | {"SLURM_STEP_ID": "1"}).port != first.port
    assert find_meeting(None, None, None, environment | {"SLURM_STEP_NUM_TASKS": "1"}) is None


@pytest.mark.parametrize(
    "environment, devices",
    [
        (dict(SLURM_GTIDS="3"), None),
        (dict(SLURM_GTIDS="3", CUDA_VISIBLE_DEVICES="0,1,2,3"), None),
        (dict(SLURM_GTIDS="2,3"), (1,)),
        (dict(SLURM_GTIDS="2,3", CUDA_VISIBLE_DEVICES="0,1"), (1,)),
        (dict(SLURM_GTIDS="2,3", CUDA_VISIBLE_DEVICES="0"), (0,)),  # --gpus-per-task: the others' are hidden
    ],
)
def test_tasks_of_a_node_share_its_gpus_and_a_single_task_has_all(environment, devices):
    environment = (
        dict(SLURM_STEP_NODELIST="n1", SLURM_STEP_NUM_TASKS="4", SLURM_JOB_ID="1", SLURM_PROCID="3", SLURM_LOCALID="1")
        | environment
    )
    assert find_meeting(None, None, None, environment).devices == devices
