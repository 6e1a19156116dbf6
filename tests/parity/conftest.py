"""Comparisons with PyTorch and transformers, which gptjax itself does not need: `make test-parity` installs them."""

import jax
import numpy as np
import pytest

from gptjax.model.families import family_of


@pytest.fixture
def random_params():
    """A function of a config: float32 NumPy parameters, every leaf random, so that biases and scales have an effect."""

    def make(config):
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(lambda: family_of(config).init_params(jax.random.key(0)))

        def draw(path, leaf):
            return (float(path[-1].key == "scale") + 0.2 * rng.standard_normal(leaf.shape)).astype(np.float32)

        return jax.tree_util.tree_map_with_path(draw, shapes)

    return make
