"""Every test runs on eight CPU devices in one process, with absl's flags counted as parsed (Grain's workers ask)."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from absl import flags

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_default_matmul_precision", "highest")
flags.FLAGS.mark_as_parsed()
