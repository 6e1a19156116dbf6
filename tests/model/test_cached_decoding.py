"""Decoding with a cache = the whole forward pass, for everything that depends on where a token stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.model.decoder import Decoder
from gptjax.model.parameters import unstack_layers

TOKENS = np.random.default_rng(2).integers(0, 29, (3, 11)).astype(np.int32)
SLOTS, PROMPT = 16, 6  # the prompt is longer than one block of query rows (4), and not a multiple of it

CASES = {
    "rope": {},
    "rope_scanned": dict(layers="scan"),
    "learned": dict(position="learned"),
    "sinusoidal": dict(position="sinusoidal"),
    "no_positions": dict(position="none"),
    "multi_head": dict(num_kv_heads=4),
    "multi_query": dict(num_kv_heads=1),
    "window": dict(window=3, window_pattern="SL"),
    "qk_norm": dict(qk_norm=True, logit_softcap=3.0, tied_embeddings=False),
}


def empty_cache(config, batch, start_B):
    shape = (batch, config.num_kv_heads, SLOTS, config.head_width)
    layers = range(config.num_layers)
    # slots that nothing was written to must not be heard
    fill = lambda: [jnp.full(shape, 1e4) for _ in layers]  # noqa: E731
    return dict(keys=fill(), values=fill(), length=jnp.int32(0), start_B=jnp.asarray(start_B, jnp.int32))


def forward(config, params, tokens, **kwargs):
    return jax.jit(lambda params: Decoder(config).apply({"params": params}, tokens, **kwargs))(params)


def decode(config, params, tokens, start_B):
    """Logits [B, T, V]: the prompt at once, then one token after the other from unstacked layers."""
    step = jax.jit(lambda params, tokens, cache: Decoder(config).apply({"params": params}, tokens, cache=cache))
    logits, cache = step(params, tokens[:, :PROMPT], empty_cache(config, len(tokens), start_B))
    parts = [logits]
    unstacked = dict(params, layers=unstack_layers(params["layers"], config.num_layers))
    for t in range(PROMPT, tokens.shape[1]):
        logits, cache = step(unstacked, tokens[:, t : t + 1], cache)
        parts.append(logits)
    assert int(cache["length"]) == tokens.shape[1]
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("case", CASES)
def test_prefill_and_steps_equal_the_whole_forward_pass(case, model_config, random_params):
    config = model_config(**CASES[case])
    params = random_params(config)
    expected = forward(config, params, TOKENS)
    np.testing.assert_allclose(decode(config, params, TOKENS, [0, 0, 0]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["rope", "learned", "window"])
def test_rows_padded_on_the_left_are_as_if_alone(case, model_config, random_params):
    config = model_config(**CASES[case])
    params = random_params(config)
    starts = [0, 2, 5]
    logits = decode(config, params, TOKENS, starts)
    assert np.isfinite(logits).all()
    for row, start in enumerate(starts):
        alone = forward(config, params, TOKENS[row : row + 1, start:])
        np.testing.assert_allclose(logits[row : row + 1, start:], alone, rtol=1e-4, atol=1e-4)


def test_last_only(model_config, random_params):
    config = model_config()
    params = random_params(config)
    last, _ = forward(config, params, TOKENS, cache=empty_cache(config, 3, [0, 0, 0]), last_only=True)
    assert last.shape == (3, 1, 29)
    np.testing.assert_allclose(last, forward(config, params, TOKENS)[:, -1:], rtol=1e-4, atol=1e-4)


def test_segments_with_a_cache_are_refused(model_config, random_params):
    config = model_config()
    with pytest.raises(ValueError, match="cache"):
        Decoder(config).apply(
            {"params": random_params(config)}, TOKENS, np.ones_like(TOKENS), cache=empty_cache(config, 3, [0, 0, 0])
        )
