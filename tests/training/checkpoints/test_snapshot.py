"""A snapshot keeps the state, whatever the next step does with the state's arrays."""

import checkpoint_worker as toy
import jax
import pytest

from gptjax.training.checkpoints import snapshot
from gptjax.training.checkpoints.snapshot import Snapshots


@pytest.fixture(scope="module", params=[(1, 1, 1), (2, 2, 2)], ids=["one device", "data x fsdp x tensor"])
def mesh(request):
    return toy.mesh(*request.param)


def addresses(tree) -> list[int]:
    return [shard.data.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards]


@jax.jit(donate_argnums=0)
def step(state):
    return jax.tree.map(lambda leaf: leaf * 0 - 1, state)


def test_a_snapshot_outlives_the_state(mesh):
    taken = Snapshots().take(state := toy.state(3, mesh))
    jax.block_until_ready(step(state))
    toy.assert_equal(taken, toy.state(3, mesh))


def test_the_next_step_reuses_the_memory_of_the_state(mesh):
    """If anything still referred to the state's arrays, the step would copy them first."""
    state = jax.block_until_ready(step(toy.state(3, mesh)))
    before = addresses(state)
    taken = Snapshots().take(state)
    assert addresses(jax.block_until_ready(step(state))) == before
    toy.assert_equal(taken, step(toy.state(3, mesh)))


def test_the_next_snapshot_reuses_the_memory_of_the_previous_one(mesh):
    snapshots = Snapshots()
    first = snapshots.take(toy.state(1, mesh))
    taken = snapshots.take(toy.state(2, mesh))
    assert addresses(taken) == addresses(first)
    toy.assert_equal(taken, toy.state(2, mesh))


@pytest.mark.parametrize("free, taken", [(250, True), (150, False)])
def test_a_copy_is_made_on_a_device_only_if_it_has_ample_memory(monkeypatch, mesh, free, taken):
    state = toy.state(3, mesh)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    stats = {"bytes_limit": 10 * held, "peak_bytes_in_use": 10 * held - free * held // 100}
    monkeypatch.setattr(snapshot.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(snapshot, "_memory_stats", lambda device: stats)
    copy = Snapshots().take(state)
    assert (copy is not None) == taken
    if taken:
        jax.block_until_ready(step(state))
        toy.assert_equal(copy, toy.state(3, mesh))
