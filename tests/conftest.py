"""Every test runs on eight CPU devices in one process, with absl's flags marked as parsed for Grain's workers."""

import os
import signal

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from absl import flags

from gptjax.config import default, validate
from gptjax.data.facts import DataFacts
from gptjax.model.families import validate_model
from gptjax.planning import resolve

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_default_matmul_precision", "highest")
flags.FLAGS.mark_as_parsed()
# Under `nohup` or in a shell's background these two are ignored, in every process that a test starts, too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def quick_compilation():
    """Machine code of the least effort: these programs run once. XLA's own passes, which tests look at, all stay."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def tiny_config():
    """A function of {section__field: value} → resolved config of a two-layer model, 16 wide, for eight devices."""

    def make(**fields):
        config = default()
        config.model.update(num_layers=2, width=16, num_heads=4, num_kv_heads=2, vocab_size=32)
        config.data.update(sequence_length=8)
        config.training.update(batch_size=16, duration="20 steps")
        config.schedule.update(warmup="2 steps")
        for field, value in fields.items():
            section, name = field.split("__")
            config[section][name] = value
        validate(config)
        validate_model(config)
        return resolve(config, DataFacts(vocab_size=32), platform="cpu", batch_devices=1)

    return make
