"""Checkpoints are saved completely or not at all, restored exactly on any mesh, and damage is detected."""

import errno
import functools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import checkpoint_worker as toy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from waiting import PATIENCE, until

from gptjax.config import ConfigError, default, flatten, from_json, to_json
from gptjax.evaluation.scores import LOSS
from gptjax.settings import freeze
from gptjax.training.checkpoints import checksum
from gptjax.training.checkpoints import format as checkpoint_format
from gptjax.training.checkpoints.checksum import checksums
from gptjax.training.checkpoints.format import CheckpointError, hash_of_params
from gptjax.training.checkpoints.loading import load_for_inference, load_params, saved_steps
from gptjax.training.checkpoints.manager import Checkpoints
from gptjax.training.checkpoints.run_metadata import (
    check_compatible,
    check_source_tokenizer,
    check_tokenizer,
    check_warm_start,
    run_metadata,
)

REPOSITORY = Path(__file__).parents[3]
WORKER = [sys.executable, toy.__file__]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="module")
def mesh():
    return toy.mesh(1, 4, 2)


def open_checkpoints(workdir, **changes) -> Checkpoints:
    return Checkpoints(workdir, toy.config(**changes), toy.steps_of)


def save_steps(workdir, mesh, steps, losses=None, metadata=None, ema=True, **changes) -> None:
    with open_checkpoints(workdir, **changes) as checkpoints:
        for step in steps:
            metrics = {"validation/loss": losses[step]} if step in (losses or {}) else None
            checkpoints.save(step, toy.state(step, mesh, ema=ema), metadata or {}, metrics)


def test_losses_on_different_windows_are_not_compared(tmp_path, mesh, caplog):
    losses = {1: (0.5, "old"), 2: (0.6, "old"), 3: (3.0, "new"), 4: (2.0, "new"), 5: (2.5, "new"), 6: (9.0, "new")}
    with open_checkpoints(tmp_path, keep_latest=1, keep_best=1) as checkpoints:
        for step, (loss, windows) in losses.items():
            checkpoints.save(step, toy.state(step, mesh), {}, {"validation/loss": loss, "validation/set": windows})
    assert open_checkpoints(tmp_path).all_steps() == [1, 4, 6]  # the best of each set, and the latest
    assert load_params(tmp_path, "best")[1]["step"] == 4
    assert "steps 1 are not compared" in caplog.text


def data_file(checkpoint: Path, part: str) -> Path:
    """The file that holds most of a part's values."""
    return max(checkpoint.glob(f"{part}/ocdbt.process_*/d/*"), key=lambda path: path.stat().st_size)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


# --- Round trips ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [True, False])
def test_a_state_is_restored_bit_for_bit(tmp_path, mesh, ema):
    saved = toy.state(7, mesh, ema=ema)
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, saved, {"tokens": 123, "config": {"seed": 0}})
        checkpoints.wait()
        restored, metadata = checkpoints.restore(toy.abstract(mesh, ema=ema))
    toy.assert_equal(restored, saved)
    assert metadata["tokens"] == 123 and metadata["step"] == 7 and metadata["config"] == {"seed": 0}
    assert (restored.ema is None) != ema


def test_training_continues_while_a_checkpoint_is_written(tmp_path, mesh, monkeypatch):
    """`save` returns although nothing can be written yet; the next `save` waits until the first checkpoint is
    complete."""
    may_write, begun = threading.Event(), time.perf_counter()
    start_save = checkpoint_format.start_save

    def held_up(*arguments):
        assert may_write.wait(PATIENCE)
        return start_save(*arguments)

    monkeypatch.setattr(checkpoint_format, "start_save", held_up)
    with open_checkpoints(tmp_path, keep_latest=2) as checkpoints:
        stall = checkpoints.save(1, toy.state(1, mesh), {})
        assert 0 < stall <= time.perf_counter() - begun
        assert checkpoints.all_steps() == []
        may_write.set()
        checkpoints.save(2, toy.state(2, mesh), {})
        assert 1 in checkpoints.all_steps()
    assert saved_steps(tmp_path) == [1, 2]


@pytest.mark.parametrize(
    "shape", [(2, 2, 2), (1, 1, 1), *(pytest.param(s, marks=pytest.mark.exhaustive) for s in [(1, 4, 1), (1, 2, 4)])]
)
def test_a_state_is_restored_on_another_mesh(tmp_path, mesh, shape):
    save_steps(tmp_path, mesh, [3])
    other = toy.mesh(*shape)
    with open_checkpoints(tmp_path) as checkpoints:
        restored, _ = checkpoints.restore(toy.abstract(other))
    toy.assert_equal(restored, toy.state(3, other))


def test_parameters_that_no_step_changes_are_written_once_and_checkpoints_share_them(tmp_path, mesh, caplog):
    folder, other = tmp_path / "checkpoints", toy.mesh(1, 1, 1)
    save_steps(tmp_path, mesh, [1])  # by a version that wrote all of them into each
    for steps in ([2, 3], [4, 5]):  # the run is resumed once
        with Checkpoints(tmp_path, toy.config(keep_latest=3), toy.steps_of, toy.FROZEN) as checkpoints:
            for step in steps:
                checkpoints.save(step, toy.state(step, mesh), {})
    (shared,) = folder.glob("frozen-*")
    assert sorted(path.name for path in folder.iterdir()) == ["3", "4", "5", shared.name]
    shutil.move(tmp_path, moved := tmp_path.with_name(f"{tmp_path.name}-moved"))
    with open_checkpoints(moved) as checkpoints:
        restored, metadata = checkpoints.restore(toy.abstract(other))
    toy.assert_equal(restored, toy.state(5, other))
    params, _ = load_params(moved, 4)
    jax.tree.map(np.testing.assert_array_equal, params, toy.state(4, mesh).params)
    save_steps(whole := moved / "whole", mesh, [5])
    assert hash_of_params(metadata) == hash_of_params(load_params(whole)[1])
    assert size_of(moved / "checkpoints/5/params") + 64 * 64 * 4 <= size_of(whole / "checkpoints/5/params")

    flip_a_bit(data_file(moved / "checkpoints" / shared.name, "params"))
    with pytest.raises(CheckpointError, match=rf"what was saved: embedding, in .*{shared.name}, which other"):
        load_params(moved, 4)
    shutil.rmtree(moved / "checkpoints" / shared.name)
    with pytest.raises(
        CheckpointError, match=rf"{shared.name}, which has the parameters that are not trained, is missi"
    ):
        load_params(moved)


def test_the_moving_average_of_parameters_that_no_step_changes_is_not_saved(tmp_path, mesh):
    def without_frozen(state):
        return state.replace(ema=state.ema | {"embedding": None})

    state = toy.state(3, mesh)
    state = state.replace(ema=state.ema | {"embedding": state.params["embedding"]})
    with open_checkpoints(tmp_path / "older version") as checkpoints:
        checkpoints.save(3, state, {})
    with Checkpoints(tmp_path / "now", toy.config(), toy.steps_of, toy.FROZEN) as checkpoints:
        checkpoints.save(3, without_frozen(state), {})
    hashes = set()
    for folder in ("older version", "now"):
        with open_checkpoints(tmp_path / folder) as checkpoints:
            restored, metadata = checkpoints.restore(without_frozen(toy.abstract(mesh)))
        toy.assert_equal(restored, without_frozen(state))
        average, _ = load_params(tmp_path / folder, ema=True)
        for found in (average, restored.best_params):
            jax.tree.map(np.testing.assert_array_equal, found, state.ema)
        hashes.add(hash_of_params(metadata, ema=True))
    assert len(hashes) == 1 and "ema/embedding" not in metadata["arrays"]


def test_frozen_parameters_that_no_checkpoint_shares_any_more_are_deleted(tmp_path, mesh):
    def go_on(steps, change):
        with Checkpoints(tmp_path, toy.config(), toy.steps_of, toy.FROZEN) as checkpoints:
            for step in steps:
                state = toy.state(step, mesh)
                params = state.params | {"embedding": state.params["embedding"] + change}
                checkpoints.save(step, state.replace(params=params), {})
        return {path.name for path in checkpoints.directory.glob("frozen-?*")}

    first = go_on([1, 2], 0)
    folder = tmp_path / "checkpoints"
    users = {"frozen-mine", "deleted-by-me", "0100"}  # like the names of our folders
    for name in users:
        (folder / name).mkdir()
    assert len(first) == 1 and first < go_on([3], 1)  # two checkpoints are kept
    left = go_on([4], 1) - {"frozen-mine"}
    assert len(left) == 1 and left != first
    assert {path.name for path in folder.iterdir()} == {"3", "4"} | left | users


def test_a_damaged_folder_of_frozen_parameters_is_written_again(tmp_path, mesh, caplog):
    save_steps(tmp_path, mesh, [1])  # has all of its parameters
    for damaged in (True, False):
        with Checkpoints(tmp_path, toy.config(), toy.steps_of, toy.FROZEN) as checkpoints:
            if not damaged:
                assert checkpoints.restore(toy.abstract(mesh))[1]["step"] == 1
            checkpoints.save(2, toy.state(2, mesh), {})
        (shared,) = checkpoints.directory.glob("frozen-*")
        if damaged:
            truncate(shared, "params")
    assert f"{shared}, which has the parameters that are not trained, is damaged: " in caplog.text
    params, metadata = load_params(tmp_path)
    assert metadata["step"] == 2
    np.testing.assert_array_equal(params["embedding"], toy.state(2, mesh).params["embedding"])
    assert {path.name for path in shared.parent.iterdir()} == {"1", "2", "unreadable-2", shared.name}


def test_a_reader_whose_checkpoint_is_deleted_meanwhile_reads_the_next_one(tmp_path, mesh, monkeypatch):
    save_steps(tmp_path, mesh, [1])
    load = checkpoint_format._load

    def load_while_a_run_trains(path, parts):
        if path.name == "1":
            path.rename(path.with_name("2"))  # as if the run had saved and then deleted
        return load(path, parts)

    monkeypatch.setattr(checkpoint_format, "_load", load_while_a_run_trains)
    jax.tree.map(np.testing.assert_array_equal, load_params(tmp_path)[0], toy.state(1, mesh).params)
    assert saved_steps(tmp_path) == [2]


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*"))


def test_a_state_in_host_memory_is_restored_there(tmp_path, mesh):
    def on_host(state):
        placed = jax.tree.map(lambda x: x.sharding.with_memory_kind("pinned_host"), state.opt_state)
        return jax.device_put(state.opt_state, placed), placed

    saved, abstract = toy.state(7, mesh), toy.abstract(mesh)
    arrays, placed = on_host(saved)
    abstract_arrays = jax.tree.map(lambda x, sharding: x.update(sharding=sharding), abstract.opt_state, placed)
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, saved.replace(opt_state=arrays), {})
        checkpoints.wait()
        restored, _ = checkpoints.restore(abstract.replace(opt_state=abstract_arrays))
        on_device, _ = checkpoints.restore(abstract)
    assert {leaf.sharding.memory_kind for leaf in jax.tree.leaves(restored.opt_state)} == {"pinned_host"}
    toy.assert_equal(restored.replace(opt_state=on_device.opt_state), saved)
    for mine, other in zip(jax.tree.leaves(restored.opt_state), jax.tree.leaves(saved.opt_state)):
        np.testing.assert_array_equal(mine, other)


def test_the_saved_state_is_that_of_the_call_even_if_its_arrays_are_donated_at_once(tmp_path, mesh):
    width = 2048
    overwrite = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 0 - 1, state), donate_argnums=0)
    with open_checkpoints(tmp_path, keep_latest=3) as checkpoints:
        for step in (1, 2, 3):
            state = toy.state(step, mesh, width)
            checkpoints.save(step, state, {})
            jax.block_until_ready(overwrite(state))
        checkpoints.wait()
        for step in (1, 2, 3):
            restored, _ = checkpoints.restore(toy.abstract(mesh, width), step)
            toy.assert_equal(restored, toy.state(step, mesh, width))


def run_processes(workdir: Path, action: str, number: int) -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    commands = [[*WORKER, str(workdir), action, str(port), str(number), str(i)] for i in range(number)]
    processes = [
        subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in commands
    ]
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(outputs)
    return outputs


@pytest.mark.slow
def test_processes_save_together_and_any_number_restores(tmp_path, mesh):
    for number, output in enumerate(run_processes(tmp_path / "two", "save", 2)):
        failures = re.findall(r"^the checkpoint of step (\d) was not saved: (process \d)?", output, re.M)
        assert failures == [("8", "process 1" * (number == 0)), ("9", "process 0" * (number == 1))], output
    with open_checkpoints(tmp_path / "two") as checkpoints:  # two processes → one
        assert checkpoints.all_steps() == [1, 2]
        assert load_params(tmp_path / "two", "best")[1]["step"] == 1
        restored, _ = checkpoints.restore(toy.abstract(mesh))
        toy.assert_equal(restored, toy.state(2, mesh))

    # One process → two. One of them does not see the newest, finds the next one damaged, and cannot read a third.
    save_steps(tmp_path / "one", mesh, [4, 5, 6, 7], keep_latest=4)
    (shared,) = (tmp_path / "two" / "checkpoints").glob("frozen-*")
    left = shutil.copytree(shared, tmp_path / "one" / "checkpoints" / shared.name)
    flip_a_bit(data_file(left, "params"))  # nobody has read it, so it is written again
    for output in run_processes(tmp_path / "one", "restore", 2):
        assert "restored 4 of [4, 5, 6, 7], now [4, 5]" in output
    np.testing.assert_array_equal(load_params(tmp_path / "one")[0]["embedding"], toy.state(5, mesh).params["embedding"])


# --- Retention ------------------------------------------------------------------------------------------------------


def test_the_latest_the_best_and_multiples_of_keep_every_are_kept(tmp_path, mesh):
    losses = {1: 5.0, 2: 2.0, 3: float("nan"), 5: 4.0, 6: 1.0, 7: 3.0}
    save_steps(tmp_path, mesh, range(1, 10), losses, keep_latest=2, keep_best=2, keep_every="4 steps")
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.all_steps() == [2, 4, 6, 8, 9]
        assert checkpoints.latest_step() == 9
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "4", "6", "8", "9"]


def test_without_validation_only_the_latest_are_kept(tmp_path, mesh):
    save_steps(tmp_path, mesh, [1, 2, 3], keep_latest=1, keep_best=3)
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.all_steps() == [3]


@pytest.mark.parametrize("moments", [1, 9])
def test_a_checkpoint_whose_score_cannot_be_read_at_the_moment_is_not_deleted(tmp_path, mesh, monkeypatch, moments):
    losses, read, failures = {1: 1.0, 2: 3.0, 3: 2.0, 4: 4.0, 5: 5.0}, checkpoint_format.read_metadata, []

    def unreliable(path):
        if path.name == "1" and len(failures) < moments:
            failures.append(path)
            raise CheckpointError("the file server does not answer")
        return read(path)

    monkeypatch.setattr(checkpoint_format, "read_metadata", unreliable)
    save_steps(tmp_path, mesh, losses, losses, keep_latest=1, keep_best=1)
    kept = [1, 3, 5] if moments == 9 else [1, 5]  # while the best is not known, the best of the others stays, too
    assert saved_steps(tmp_path) == kept and len(failures) == min(moments, 5)
    assert open_checkpoints(tmp_path).best(LOSS, None) == ((3, 2.0) if moments == 9 else (1, 1.0))
    save_steps(tmp_path, mesh, [6], keep_latest=1, keep_best=0)
    assert saved_steps(tmp_path) == [6]


def test_a_saved_step_is_not_saved_again(tmp_path, mesh):
    save_steps(tmp_path, mesh, [1])
    before = (tmp_path / "checkpoints/1").stat().st_ino
    save_steps(tmp_path, mesh, [1])
    assert (tmp_path / "checkpoints/1").stat().st_ino == before


def test_a_folder_that_orbax_would_read_as_a_pattern_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--workdir=.*\[a\]: must not contain"):
        open_checkpoints(tmp_path / "[a]")
    assert not (tmp_path / "[a]").exists()


def test_keeping_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"checkpoint.keep_latest = 0"):
        open_checkpoints(tmp_path, keep_latest=0)


# --- Kills, damage, full disks --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_after_a_kill_at_any_moment_the_newest_checkpoint_is_complete(tmp_path):
    """Kills three times: at a random moment, during a save, and while old checkpoints are deleted or a save begins."""
    generator, one = random.Random(0), toy.mesh(1, 1, 1)
    folder, last, caught_inside = tmp_path / "checkpoints", 0, 0
    for kill in range(3):
        worker = subprocess.Popen([*WORKER, str(tmp_path), "hammer"], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        try:
            until(lambda last=last: newest(folder) > last + 1, worker, pause=0)
            if kill == 0:
                time.sleep(generator.random() * 0.3)
            else:
                pattern = f"*{checkpoint_format.TEMPORARY}" if kill == 1 else "deleted-*"
                until(lambda pattern=pattern: any(folder.glob(pattern)), worker, pause=0)
        finally:
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
        caught_inside += any(folder.glob(f"*{checkpoint_format.TEMPORARY}"))
        with open_checkpoints(tmp_path) as checkpoints:
            assert all(path.name.isdigit() for path in folder.iterdir()), "opening removes the remains of the kill"
            step = checkpoints.latest_step()
            assert step > last
            for each in checkpoints.all_steps():
                restored, _ = checkpoints.restore(toy.abstract(one, toy.HAMMER_WIDTH), each)
                toy.assert_equal(restored, toy.state(each, one, toy.HAMMER_WIDTH))
        last = step
    assert caught_inside, "no kill happened during a save"


def newest(folder: Path) -> int:
    return max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=0)


def truncate(checkpoint: Path, part: str = "optimizer") -> None:
    path = data_file(checkpoint, part)
    os.truncate(path, path.stat().st_size // 2)


def remove_metadata(checkpoint: Path) -> None:
    (checkpoint / "_CHECKPOINT_METADATA").unlink()


def garble_metadata(checkpoint: Path) -> None:
    (checkpoint / "_CHECKPOINT_METADATA").write_text('{"item_handlers": {')


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        lambda checkpoint: flip_a_bit(data_file(checkpoint, "params")),
        lambda checkpoint: (checkpoint / "params/manifest.ocdbt").unlink(),
        lambda checkpoint: shutil.rmtree(checkpoint / "ema"),
        remove_metadata,
        garble_metadata,
    ],
    ids=["truncated", "bit flipped", "no index", "part missing", "no metadata", "garbled metadata"],
)
def test_if_the_newest_checkpoint_is_damaged_the_previous_one_is_restored(tmp_path, mesh, damage, caplog):
    save_steps(tmp_path, mesh, [1, 2])
    damage(tmp_path / "checkpoints/2")
    with open_checkpoints(tmp_path, keep_best=1) as checkpoints:
        restored, metadata = checkpoints.restore(toy.abstract(mesh))
        toy.assert_equal(restored, toy.state(1, mesh))
        assert metadata["step"] == 1
        assert f"CANNOT READ A CHECKPOINT: checkpoint {tmp_path}/checkpoints/2" in caplog.text
        assert (tmp_path / "checkpoints/unreadable-2").is_dir()  # kept, so that it can be inspected
        checkpoints.save(2, toy.state(2, mesh), {})  # the run reaches that step again
        checkpoints.wait()
        assert checkpoints.all_steps() == [1, 2]
        restored, _ = checkpoints.restore(toy.abstract(mesh))
    toy.assert_equal(restored, toy.state(2, mesh))


def test_if_no_checkpoint_is_readable_nothing_is_renamed(tmp_path, mesh):
    save_steps(tmp_path, mesh, [1, 2])
    for step in "12":
        flip_a_bit(data_file(tmp_path / "checkpoints" / step, "params"))
    with open_checkpoints(tmp_path) as checkpoints:
        with pytest.raises(
            CheckpointError, match=r"no readable checkpoint.*damaged: these arrays differ from what was saved: params"
        ):
            checkpoints.restore(toy.abstract(mesh))
        assert checkpoints.all_steps() == [1, 2]


def test_an_incomplete_checkpoint_is_ignored_and_removed_on_opening(tmp_path, mesh):
    save_steps(tmp_path, mesh, [1, 2])
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "2", folder / f"3{checkpoint_format.TEMPORARY}")
    shutil.copytree(folder / "2", folder / "deleted-0")
    shutil.copytree(folder / "2", folder / "4")
    (folder / "4" / checkpoint_format.COMMITTED).unlink()
    assert load_params(tmp_path)[1]["step"] == 2  # a reader sees only complete checkpoints and changes nothing
    assert (folder / "deleted-0").exists()
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.all_steps() == [1, 2]
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "unreadable-4"]


def test_a_failed_save_is_reported_and_the_earlier_checkpoint_stays(tmp_path, mesh, monkeypatch, caplog):
    class Failing:
        def result(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, toy.state(1, mesh), {})
        checkpoints.wait()
        with monkeypatch.context() as patch:
            patch.setattr(ocp, "save_checkpointables_async", lambda *args, **kwargs: Failing())
            checkpoints.save(2, toy.state(2, mesh), {})
            checkpoints.save(3, toy.state(3, mesh), {})  # training continues
            assert "step 2 was not saved: OSError: [Errno 28] No space left on device" in caplog.text
            with pytest.raises(CheckpointError, match=r"step 3 was not saved.*No space left.*newest is that of step 1"):
                checkpoints.wait()
        assert checkpoints.all_steps() == [1]
        checkpoints.save(4, toy.state(4, mesh), {})  # there is room again
        checkpoints.wait()
        assert checkpoints.all_steps() == [1, 4]


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's abandoned tasks
def test_on_a_full_disk_the_earlier_checkpoint_stays_readable(small_disk, mesh, caplog):
    with open_checkpoints(small_disk) as checkpoints:
        checkpoints.save(1, toy.state(1, mesh), {})
        checkpoints.wait()
        filler = small_disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 50_000))
        checkpoints.save(2, toy.state(2, mesh), {})
        with pytest.raises(CheckpointError, match=r"step 2 was not saved.*[Nn]o space left"):
            checkpoints.wait()
        assert [path.name for path in checkpoints.directory.iterdir()] == ["1"], "remains would keep the disk full"
        toy.assert_equal(checkpoints.restore(toy.abstract(mesh))[0], toy.state(1, mesh))
        filler.unlink()
        checkpoints.save(2, toy.state(2, mesh), {})
        checkpoints.wait()
        assert checkpoints.latest_step() == 2


# --- Only parameters ------------------------------------------------------------------------------------------------


def test_parameters_load_without_the_optimizer(tmp_path, mesh):
    save_steps(tmp_path, mesh, [1, 2, 3], {1: 1.0, 2: 3.0, 3: 2.0}, keep_latest=3)
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        shutil.rmtree(checkpoint / "optimizer")  # not needed, so not read
    for which, step in {"latest": 3, "best": 1, 2: 2, "2": 2}.items():
        params, metadata = load_params(tmp_path, which)
        expected = toy.state(step, mesh).params
        assert metadata["step"] == step
        jax.tree.map(np.testing.assert_array_equal, params, expected)
        assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(params))
    jax.tree.map(np.testing.assert_array_equal, load_params(tmp_path, ema=True)[0], toy.state(3, mesh).ema)


def test_inference_uses_the_moving_average_if_there_is_one(tmp_path, mesh):
    config = changed(model__width=64)
    for name, kept in (("with", True), ("without", False)):
        save_steps(tmp_path / name, mesh, [3], metadata=run_metadata(config, FINGERPRINT, tokens=1), ema=kept)
        (tmp_path / name / "config.json").write_text(to_json(config))
    state = toy.state(3, mesh)
    for name, ema, expected in [
        ("with", None, state.ema),
        ("with", False, state.params),
        ("without", None, state.params),
    ]:
        params, found, metadata = load_for_inference(tmp_path / name, ema=ema)
        jax.tree.map(np.testing.assert_array_equal, params, expected)
        assert metadata["step"] == 3 and metadata["fingerprint"] == FINGERPRINT and found.model.width == 64
        hash(found)
    assert not np.array_equal(state.params["embedding"], state.ema["embedding"])


@pytest.mark.parametrize(
    "content, message",
    [
        (
            lambda: to_json(changed(model__num_layers=12)),
            r"config\.json: model\.num_layers = 12: must be 6.*step 1 was",
        ),
        (lambda: to_json(changed(model__qk_norm=True)), r"config\.json: model\.qk_norm = true: must be false"),
        (lambda: b"\xff\xfe{", r"config\.json is not UTF-8 text \(byte 1 is 0xff\); delete it and"),
        (lambda: "{", r"config\.json is cut off in line 1"),
    ],
    ids=["layers", "qk_norm", "not UTF-8", "not JSON"],
)
def test_a_config_that_describes_another_model_than_the_checkpoint_is_refused(tmp_path, mesh, content, message):
    save_steps(tmp_path, mesh, [1], metadata=run_metadata(default(), FINGERPRINT, tokens=1))
    text = content()
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message):
        load_for_inference(tmp_path)


def test_settings_that_keep_the_function_may_differ_at_inference(tmp_path, mesh):
    save_steps(tmp_path, mesh, [1], metadata=run_metadata(default(), FINGERPRINT, tokens=1))
    execution = dict(dtype="float32", layers="unroll", remat="full", attention="reference", attention_block=8)
    config = changed(**{f"model__{name}": value for name, value in execution.items()}, training__batch_size=7)
    (tmp_path / "config.json").write_text(to_json(config))
    assert load_for_inference(tmp_path)[1].model.remat == "full"


def test_a_folder_in_place_of_config_json_is_named(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ConfigError, match=r"config\.json: cannot be read \(Is a directory"):
        load_for_inference(tmp_path)


def test_a_checkpoint_that_the_check_refuses_is_not_read(tmp_path, mesh):
    save_steps(tmp_path, mesh, [1, 2])
    shutil.rmtree(tmp_path / "checkpoints/2/params")

    def check(metadata):
        raise ConfigError(f"refused: {metadata['step']}")

    with pytest.raises(ConfigError, match="refused: 2"):
        load_params(tmp_path, check=check)


def test_parameters_load_onto_a_mesh_and_must_fit_it(tmp_path, mesh):
    save_steps(tmp_path, mesh, [1])
    other = toy.mesh(2, 2, 1)
    params, _ = load_params(tmp_path, like=toy.abstract(other).params)
    assert params["embedding"].sharding == toy.abstract(other).params["embedding"].sharding
    np.testing.assert_array_equal(params["embedding"], toy.state(1, mesh).params["embedding"])
    with pytest.raises(
        ConfigError,
        match=r"embedding is float32\[64, 64\] in the checkpoint and float32\[64, 32\] in this run; layers/query",
    ):
        load_params(tmp_path, like=toy.abstract(other, width=32).params)


def test_missing_checkpoints_are_reported(tmp_path, mesh):
    with pytest.raises(ConfigError, match=r"--workdir=.*nowhere: must be .*; it does not exist"):
        load_params(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"--workdir=.*: must be the folder of a run with a checkpoint; it has none"):
        load_params(tmp_path)
    with pytest.raises(
        ConfigError, match=r"--workdir=.*: must be the folder of a run; this folder has no config\.json"
    ):
        load_for_inference(tmp_path)
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.metadata() is None and checkpoints.latest_step() is None
        with pytest.raises(ConfigError, match="with a checkpoint; it has none"):
            checkpoints.restore(toy.abstract(mesh))
        checkpoints.save(5, toy.state(5, mesh, ema=False), {})
    for which in (7, "newest", "²", "-5"):
        with pytest.raises(
            ConfigError, match=rf"checkpoint={which}: must be latest, best or a step; available steps: 5 in"
        ):
            load_params(tmp_path, which)
    with pytest.raises(ConfigError, match="validation score; available steps: 5"):
        load_params(tmp_path, "best")
    with pytest.raises(ConfigError, match=r"has no ema: training\.ema_decay was 0"):
        load_params(tmp_path, ema=True)


def test_a_state_of_another_structure_is_refused_and_nothing_is_renamed(tmp_path, mesh):
    save_steps(tmp_path, mesh, [1])
    with open_checkpoints(tmp_path) as checkpoints:
        with pytest.raises(
            ConfigError, match=r"ema/embedding is float32\[64, 64\] in the checkpoint and missing in this run"
        ):
            checkpoints.restore(toy.abstract(mesh, ema=False))
        with pytest.raises(ConfigError, match=r"float32\[64, 64\] in the checkpoint and float32\[64, 8\] in this run"):
            checkpoints.restore(toy.abstract(mesh, width=8))
        assert checkpoints.all_steps() == [1]


def test_another_format_is_refused(tmp_path, mesh, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_format, "FORMAT_VERSION", 99)
        patch.setattr(checkpoint_format, "READ", (99,))
        save_steps(tmp_path, mesh, [1])
    with pytest.raises(ConfigError, match="has format 99; this gptjax reads formats 1 to 3"):
        load_params(tmp_path)


# --- Changes between two starts of a run ----------------------------------------------------------------------------


def fingerprint(tokenizer_hash="aa", file_hash="f00"):
    """Has the structure of `Dataset.fingerprint`."""
    files = [{"name": name, "size": 10, "hash": "f99"} for name in ("train-00000.bin", "train.documents.npy")]
    files[0]["hash"] = file_hash
    return {"seed": 0, "tokenizer_hash": tokenizer_hash, "sources": [{"weight": 1.0, "tokens": 5, "files": files}]}


FINGERPRINT = fingerprint()


def changed(**fields):
    config = default()
    with config.unlocked():
        config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


@pytest.fixture(scope="module")
def saved():
    metadata = json.loads(json.dumps(run_metadata(default(), FINGERPRINT, tokens=10))) | {"step": 3}
    assert metadata["versions"]["jax"] == jax.__version__ and metadata["tokens"] == 10
    return metadata


def test_an_unchanged_run_resumes_without_a_note(saved):
    assert check_compatible(saved, default(), FINGERPRINT) == []


def test_changes_that_do_not_affect_training_need_no_note(saved):
    config = changed(
        logging__every="1 steps", evaluation__batches=3, checkpoint__keep_latest=9, mesh__fsdp=8, data__workers=4
    )
    assert check_compatible(saved, config, FINGERPRINT) == []


def test_changes_that_affect_later_steps_are_noted(saved):
    config = changed(training__duration="9000 steps", optimizer__learning_rate=1e-4, model__attention="cudnn")
    assert check_compatible(saved, config, FINGERPRINT) == [
        "model.attention: auto → cudnn",
        "optimizer.learning_rate: 0.001 → 0.0001",
        "training.duration: 2000 steps → 9000 steps",
    ]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model__width": 512}, "model.width: was 384, is now 512"),
        ({"model__dropout": 0.1}, "model.dropout: was 0.0, is now 0.1"),
        ({"optimizer__name": "lion"}, "optimizer.name: was adamw, is now lion"),
        ({"optimizer__rules": (("head", "freeze", True),)}, r'optimizer.rules: was \[\], is now \[\["head"'),
        ({"seed": 1}, "seed: was 0, is now 1"),
    ],
)
def test_another_model_or_optimizer_is_refused(saved, change, message):
    with pytest.raises(ConfigError, match=rf"step 3 belongs to another run: (?s:.*)\. What differs:\n  {message}"):
        check_compatible(saved, changed(**change), FINGERPRINT)


def test_a_field_newer_than_the_checkpoint_counts_as_its_default(saved):
    """The version that wrote the checkpoint may lack any field."""
    for field in flatten(default()):
        older = json.loads(json.dumps(saved))
        *sections, name = field.split(".")
        del functools.reduce(dict.__getitem__, sections, older["config"])[name]
        assert check_compatible(older, default(), FINGERPRINT) == [], field
        assert from_json(json.dumps(older["config"])) == freeze(default()), field
        if field == "model.window":
            with pytest.raises(ConfigError, match=r"model\.window: was 0, is now 64"):
                check_compatible(older, changed(model__window=64), FINGERPRINT)


def test_another_dataset_or_tokenizer_is_refused_with_both_values(saved):
    with pytest.raises(ConfigError) as refused:
        check_compatible(saved, default(), fingerprint("bb", "f01"))
    assert str(refused.value).splitlines()[1:] == [
        "  data: tokenizer_hash: was aa, is now bb",
        "  data: sources.0.files.train-00000.bin.hash: was f00, is now f01",
    ]
    another = FINGERPRINT | {"sources": FINGERPRINT["sources"] * 2}
    with pytest.raises(ConfigError, match=r"data: sources\.1: was not set"):
        check_compatible(saved, default(), another)


@pytest.mark.parametrize(
    "change, notes",
    [
        ({"model__rope_theta": 5.0}, ["model.rope_theta: 10000.0 in the checkpoint, 5.0 in this run"]),
        ({"model__window": 64, "model__window_pattern": "SL"}, ["model.window: 0", "model.window_pattern: L"]),
        ({"model__attention": "cudnn", "model__dtype": "bfloat16", "model__remat": "full"}, []),
        ({"optimizer__name": "lion", "seed": 3, "training__batch_size": 9}, []),
    ],
)
def test_a_warm_start_notes_other_differences_of_the_model(saved, change, notes):
    found = check_warm_start(saved, changed(**change), "aa")
    assert len(found) == len(notes)
    assert all(note.startswith(start) for note, start in zip(found, notes))


def test_a_warm_start_needs_the_same_tokenizer(saved):
    config = changed(training__init_from="runs/first")
    with pytest.raises(
        ConfigError,
        match=r"training\.init_from = runs/first: .*hash bb, but must have hash aa, as the checkpoint of step 3",
    ):
        check_warm_start(saved, config, "bb")
    with pytest.raises(ConfigError, match=r"--workdir=here: .*hash bb, but must have hash aa"):
        check_tokenizer(saved, "bb", "--workdir=here")


def test_the_tokenizer_of_sources_must_be_that_of_the_checkpoint(saved):
    check_source_tokenizer(saved, "any", "--workdir=here")  # not recorded by older versions
    with_sources = {**saved, "fingerprint": saved["fingerprint"] | {"source_tokenizer_hash": "cc"}}
    check_source_tokenizer(with_sources, "cc", "--workdir=here")
    for found, told in (("dd", "has hash dd"), (None, "is missing")):
        with pytest.raises(ConfigError, match=f"here: the tokenizer of sources {told}, but must have hash cc, as the"):
            check_source_tokenizer(with_sources, found, "--workdir=here")
    config = changed()
    check_compatible(saved, config, with_sources["fingerprint"])
    with pytest.raises(ConfigError, match="source_tokenizer_hash"):
        check_compatible(with_sources, config, saved["fingerprint"] | {"source_tokenizer_hash": "dd"})


# --- Checksums ------------------------------------------------------------------------------------------------------


def test_arrays_that_have_their_turns_have_the_checksums_that_they_have_together(monkeypatch):
    arrays = {name: jnp.arange(8.0) + number for number, name in enumerate("abc")}
    together = checksums(arrays)
    turns: list[list[str]] = []
    on_device = checksum.checksums_on_device
    monkeypatch.setattr(checksum, "_TOGETHER", 64)
    monkeypatch.setattr(checksum, "checksums_on_device", lambda group: turns.append([*group]) or on_device(group))
    assert checksums(arrays) == together and turns == [["a", "b"], ["c"]]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8, jnp.bool_])
def test_a_checksum_depends_on_every_bit_and_position_but_not_on_the_mesh(dtype, mesh):
    def sum_of(array) -> int:
        return checksums({"a": array})["a"]

    array = np.random.default_rng(0).integers(0, 2, (16, 8)).astype(dtype)
    array[0, 0], array[15, 7] = 0, 1
    value = sum_of(array)
    placed = jax.device_put(array, jax.NamedSharding(mesh, jax.P("fsdp", "tensor")))
    assert sum_of(placed) == value
    exchanged = array.copy()
    exchanged[0, 0], exchanged[15, 7] = 1, 0
    assert sum_of(exchanged) != value
    assert sum_of(array.reshape(8, 16).T.copy()) != value
    raw = array.view(np.uint8).reshape(-1)
    for position in range(0, raw.size, 7):
        flipped = raw.copy()
        flipped[position] ^= 1
        assert sum_of(flipped.view(array.dtype).reshape(array.shape)) != value
