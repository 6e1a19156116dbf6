"""These tests run on whatever device JAX finds; JAX_PLATFORMS=cuda,cpu makes it a GPU, and the CPU the reference."""

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
