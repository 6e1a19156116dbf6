"""Errors name settings that need less device memory; a profile is written on request."""

import jax
import jax.numpy as jnp
import pytest

from gptjax.config import ConfigError, RunError, default
from gptjax.training.hardware import bytes_per_device
from gptjax.training.memory_check import check_fits, explained_memory
from gptjax.training.profiler import TRACED_STEPS, Profiler
from gptjax.training.state import TrainState


def test_an_out_of_memory_error_names_settings_that_need_less():
    with pytest.raises(RunError, match=r"out of device memory.*gradient_accumulation_steps \(now 1\).*model\.remat"):
        with explained_memory(default()):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        with explained_memory(default()):
            raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_a_state_larger_than_a_device_is_refused_before_allocation():
    mesh = jax.make_mesh((4,), ("fsdp",), devices=jax.devices()[:4])
    split = jax.sharding.NamedSharding(mesh, jax.P("fsdp"))
    state = {"w": jax.ShapeDtypeStruct((2**30, 4), jnp.float32, sharding=split)}  # 4 GiB on each of four devices
    check_fits(state, {}, limit=2**32)
    with pytest.raises(ConfigError, match=r"state takes 4\.0 GiB per device and a batch 4\.0 GiB, but a device has 7"):
        check_fits(state, state, limit=7 * 2**30)
    assert 2**26 < bytes_per_device() < 2**45


@pytest.mark.parametrize("first, traced", [(3, True), (None, False)])
def test_a_profile_is_written_only_on_request(tmp_path, first, traced):
    state = TrainState(jnp.zeros(()), {"w": jnp.zeros(2)}, None, None, {})
    profiler = Profiler(tmp_path, first)
    for done in range(3 + TRACED_STEPS):
        profiler.before(done)
        profiler.after(done + 1, state)
    profiler.close()
    assert bool(list(tmp_path.rglob("*.pb")) + list(tmp_path.rglob("*.json.gz"))) == traced
