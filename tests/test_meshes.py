"""A run on any mesh of any number of processes equals the run on one device, and can move between meshes.

Real runs of `gptjax train` with a mixture of experts, for `make test-faults`. parallel/test_same_model.py tests that
each step is the same on any mesh, and training/checkpoints/test_manager.py that a state can be restored on any mesh.
"""

import shutil

import pytest
from killed_runs import Runs, losses, output

pytestmark = pytest.mark.exhaustive

STEPS = 20
MODEL = [
    "--config.model.num_layers=5",
    "--config.model.first_dense_layers=1",
    "--config.model.num_heads=4",
    "--config.model.num_experts=4",
    "--config.model.layers=scan",
    "--config.training.outlier_zscore=0.0",  # no decision may depend on the loss of a step
    "--config.schedule.warmup=2 steps",
    "--config.schedule.name=constant",  # so that a run can stop early and continue
]
# Float32 sums over devices have a different order than on one device, which may change a router's choice between nearly
# equal experts. In 20 steps at a rate of 1e-3, the difference grows to about 1e-5 of the loss.
TOLERANCE = 1e-4
MESHES = {  # of eight devices; the first axis that is not 1 spans the processes
    "data": dict(data=8),
    "fsdp": dict(data=1, fsdp=8),
    "tensor": dict(data=2, tensor=4),
    "context": dict(data=1, fsdp=2, context=4),
    "context over processes": dict(data=1, context=8, context_attention="ring"),
    "expert": dict(data=1, expert=4, tensor=2),
    "pipeline": dict(data=2, pipeline=2, tensor=2),
    "pipeline and experts": dict(data=1, pipeline=2, pipeline_repeats=2, expert=2, fsdp=2),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def of_one_device(runs):
    """A run of one process with one device. Its first four steps are in a separate folder."""
    for name, steps in (("start", 4), ("one device", STEPS)):
        go_to(runs, runs.folder / name, steps, processes=1, mesh=dict(data=1))
    expected = losses(runs.folder / "one device")
    assert list(expected) == list(range(1, STEPS + 1))
    return expected


def go_to(runs, workdir, step, processes, mesh, devices=1):
    """Trains up to a step, on `devices` of each process."""
    axes = [f"--config.mesh.{field}={value}" for field, value in mesh.items()]
    overrides = [*MODEL, f"--config.training.duration={step} steps", *axes]
    if processes == 1:
        runs.finish(workdir, *overrides, devices=devices)
    else:
        runs.finish_several(workdir, *[overrides] * processes, devices=devices)


def assert_same(found, expected):
    for step, row in found.items():
        assert row["train/loss"] == pytest.approx(expected[step]["train/loss"], rel=TOLERANCE), f"step {step}"
        if "validation/loss" in row and "validation/loss" in expected[step]:
            assert row["validation/loss"] == pytest.approx(expected[step]["validation/loss"], rel=TOLERANCE)


@pytest.mark.parametrize("name", MESHES)
def test_a_run_moves_to_two_processes_of_four_devices_and_back(runs, of_one_device, name):
    """It begins and ends on one device."""
    workdir = shutil.copytree(runs.folder / "start", runs.folder / f"over {name}")
    go_to(runs, workdir, STEPS - 4, processes=2, mesh=MESHES[name], devices=4)
    go_to(runs, workdir, STEPS, processes=1, mesh=dict(data=1))
    assert "resumed from step 4" in output(workdir, 0) and f"resumed from step {STEPS - 4}" in output(workdir, "")
    assert list(losses(workdir)) == list(of_one_device)
    assert_same(losses(workdir), of_one_device)


def test_twenty_steps_of_two_processes_with_four_devices_equal_those_of_one_device(runs, of_one_device):
    workdir = runs.folder / "from the start"
    go_to(runs, workdir, STEPS, processes=2, mesh=MESHES["pipeline and experts"], devices=4)
    assert list(losses(workdir)) == list(of_one_device)
    assert_same(losses(workdir), of_one_device)
