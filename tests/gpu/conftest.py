"""These tests run on the device that JAX finds: with JAX_PLATFORMS=cuda,cpu a GPU, and the CPU is the reference."""

import jax
import pytest


@pytest.fixture
def gpu():
    if jax.default_backend() != "gpu":
        pytest.skip("needs an NVIDIA GPU (JAX_PLATFORMS=cuda,cpu)")
    return jax.devices()[0]


@pytest.fixture
def cpu():
    return jax.devices("cpu")[-1]
