import jax
import numpy as np
import pytest

from gptjax.config import default
from gptjax.model.families import family_of
from gptjax.model.resolve import resolve_model
from gptjax.settings import ModelSettings

TINY = dict(num_layers=2, width=16, num_heads=4, num_kv_heads=2, feedforward_width=24, attention_block=4)


@pytest.fixture
def model_config():
    """model_config(**changes): a resolved config of a tiny model, T = 12, V = 29."""

    def make(**changes) -> ModelSettings:
        model = default().model
        model.update({**TINY, "attention": "reference", **changes})
        return resolve_model(model, platform="cpu", vocab_size=29, sequence_length=12)

    return make


@pytest.fixture
def random_params():
    """random_params(config): every leaf random, so that biases and scales have an effect; float32 NumPy arrays."""

    def make(config) -> dict:
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(lambda: family_of(config).init_params(jax.random.key(0)))

        def draw(path, shape):
            centre = 1.0 if path[-1].key == "scale" else 0.0
            return (centre + 0.3 * rng.standard_normal(shape.shape)).astype(np.float32)

        return jax.tree_util.tree_map_with_path(draw, shapes)

    return make
