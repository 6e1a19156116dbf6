"""All tests run on eight CPU devices in one process, with absl's flags marked as parsed for Grain's workers."""

import gc
import importlib.metadata
import os
import pathlib
import signal
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# NumPy's products in tests are small. With more threads, these would wait for each other on cores that other tests use.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Most programs of the tests and of the processes that they start run once, and many are compiled by several tests. XLA
# therefore spends little effort on machine code (its own passes, which tests inspect, all run, and GPUs get the same
# code as for users): little optimization, one emitter for all operations of a program, since the other one sets itself
# up again for every fusion, which is half of the time, and one LLVM module instead of 32, which threads that the other
# tests need would compile. All processes of a session share compiled programs.
# A JAX_COMPILATION_CACHE_DIR that you set is kept after the session; JAX_DISABLE_MOST_OPTIMIZATIONS=0 runs the code
# that users get.
if os.environ["JAX_PLATFORMS"] == "cpu" and os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1":
    if "xla_cpu_parallel_codegen_split_count" not in os.environ.get("XLA_FLAGS", ""):  # set here for pytest-xdist
        quick = "--xla_cpu_parallel_codegen_split_count=1"
        if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 12):  # later ones do not know it
            quick += " --xla_cpu_use_fusion_emitters=false"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}".strip()
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # set by this line in the processes that pytest-xdist starts
    COMPILED = tempfile.TemporaryDirectory(prefix="gptjax-tests-")  # deleted when this process ends
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
# Each process that a test starts imports gptjax, which Python then compiles once for all of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["GPTJAX_HISTORY"] = ""  # the runs of tests are not recorded among the user's
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")

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
# Tracing makes many long-lived objects, which the garbage collector would otherwise search for cycles a hundred times
# as often.
gc.set_threshold(100_000, 20, 20)
# Under `nohup` or in the background of a shell, these two are ignored, also in every process that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Puts files with slow tests first. Each process of pytest-xdist takes one file after another, and a long one at
    the end would leave the other process without work."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="module")
def few_mappings():
    """Forgets compiled programs when there are many: each is mapped into memory, and Linux allows 65,530 mappings in a
    process, beyond which XLA crashes."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def tiny_config():
    """A function from {section__field: value} to the resolved config of a two-layer model of width 16 for eight
    devices."""

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
