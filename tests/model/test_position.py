"""Properties of position schemes. test_decoder.py compares their values with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import ConfigError
from gptjax.model.position import rope_frequencies, rope_rotation, rotate, sinusoidal


def product(config, query_position, key_position):
    q, k = np.random.default_rng(0).standard_normal((2, 1, 1, 1, config.head_width)).astype(np.float32)
    frequencies = rope_frequencies(config)
    turn = lambda x, position: rotate(x, rope_rotation(jnp.array([[position]]), frequencies))  # noqa: E731
    return float((turn(q, query_position) * turn(k, key_position)).sum())


@pytest.mark.parametrize("scaling", ["none", "linear", "llama3", "yarn"])
def test_rotary_products_depend_only_on_the_distance(scaling, model_config):
    config = model_config(head_width=16, rope_scaling=scaling, rope_factor=4.0, rope_original_positions=64)
    assert product(config, 9, 5) == pytest.approx(product(config, 104, 100), abs=1e-4)
    assert abs(product(config, 9, 5) - product(config, 9, 6)) > 1e-3


def test_rotation_keeps_lengths_dtype_and_position_zero(model_config):
    config = model_config(head_width=16)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 5, 2, 16)), jnp.float32)
    turned = rotate(x, rope_rotation(jnp.arange(5)[None], rope_frequencies(config)))
    np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(turned[:, 0], x[:, 0])
    rotation = rope_rotation(jnp.arange(5)[None], rope_frequencies(config))
    assert rotate(x.astype(jnp.bfloat16), rotation).dtype == jnp.bfloat16


def test_the_cosines_of_positions_are_computed_once(model_config):
    """Not for each head and each use, which took an eighth of the time of scoring texts on a CPU."""
    frequencies = rope_frequencies(model_config(head_width=16))

    def two_layers(x_BTNH, positions_BT):
        rotation = rope_rotation(positions_BT, frequencies)
        for _ in range(2):
            keys = jnp.swapaxes(rotate(x_BTNH, rotation), 1, 2)
            x_BTNH = jnp.swapaxes(keys @ jnp.swapaxes(keys, 2, 3) @ keys, 1, 2)
        return x_BTNH

    x = jnp.ones((1, 64, 2, 16))
    program = jax.jit(two_layers).lower(x, jnp.arange(64)[None]).compile().as_text()
    assert program.count(" cosine(") == program.count(" sine(") == 1


def test_llama3_scaling_keeps_high_frequencies_and_lowers_low_ones(model_config):
    """The published values of Llama 3.1: factor 8, original context 8192, theta 500,000, head width 128."""
    settings = dict(head_width=128, rope_theta=500_000.0)
    plain = rope_frequencies(model_config(**settings))
    scaled = rope_frequencies(
        model_config(
            **settings,
            rope_scaling="llama3",
            rope_factor=8.0,
            rope_low_frequency_factor=1.0,
            rope_high_frequency_factor=4.0,
            rope_original_positions=8192,
        )
    )
    wavelengths = 2 * np.pi / plain
    fast, slow = wavelengths < 8192 / 4, wavelengths > 8192
    np.testing.assert_array_equal(scaled[fast], plain[fast])
    np.testing.assert_allclose(scaled[slow], plain[slow] / 8, rtol=1e-6)
    between = ~fast & ~slow
    assert between.any() and ((scaled < plain) & (scaled > plain / 8))[between].all()


def test_sinusoids_of_shifted_positions_are_a_rotation():
    """A shift of position is a linear map of the encoding, so products depend only on the distance."""
    encoded = np.asarray(sinusoidal(jnp.array([[3, 7, 50, 54]]), 32)[0])
    assert encoded[0] @ encoded[1] == pytest.approx(encoded[2] @ encoded[3], abs=1e-3)


def test_odd_widths_and_unknown_scalings_are_refused(model_config):
    with pytest.raises(ConfigError, match="head_width = 7"):
        rope_frequencies(model_config(head_width=7))
    with pytest.raises(ConfigError, match="width = 15"):
        sinusoidal(jnp.zeros((1, 1), int), 15)
    with pytest.raises(ConfigError, match="rope_scaling = 'ntk'"):
        rope_frequencies(model_config(rope_scaling="ntk"))
