"""An out-of-memory error names settings that need less device memory; a profile is written on request."""

import jax
import jax.numpy as jnp
import pytest

from gptjax.config import RunError, default
from gptjax.training.memory_check import explained_memory
from gptjax.training.profiler import TRACED_STEPS, Profiler
from gptjax.training.state import TrainState


def test_an_out_of_memory_error_names_settings_that_need_less():
    with pytest.raises(RunError, match=r"out of device memory.*gradient_accumulation_steps \(now 1.*model\.remat"):
        with explained_memory(default()):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")
    config = default()
    config.training.update(batch_size=12, batch_per_device="6")  # as chosen: the next smaller is named
    with pytest.raises(RunError, match=r"These need less memory: training\.batch_per_device=3 \(now 6\), "):
        with explained_memory(config):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        with explained_memory(default()):
            raise jax.errors.JaxRuntimeError("INTERNAL: something else")


@pytest.mark.parametrize("first, traced", [(3, True), (None, False)])
def test_a_profile_is_written_only_on_request(tmp_path, first, traced):
    state = TrainState(jnp.zeros(()), {"w": jnp.zeros(2)}, None, None, {})
    profiler = Profiler(tmp_path, first)
    for done in range(3 + TRACED_STEPS):
        profiler.before(done)
        profiler.after(done + 1, state)
    profiler.close()
    assert bool(list(tmp_path.rglob("*.pb")) + list(tmp_path.rglob("*.json.gz"))) == traced
