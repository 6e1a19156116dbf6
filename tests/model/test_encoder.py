"""With every backend, the encoder sees both sides of a token, but neither padding nor other documents."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from gptjax.config import default
from gptjax.model.families import family_of
from gptjax.model.resolve import resolve_model


def encoder(**fields):
    config = ConfigDict(default().model)
    config.update(family="encoder", num_layers=2, width=16, num_heads=2, initialization_std=0.3)
    config.update(fields)
    return family_of(resolve_model(config, platform="cpu", vocab_size=20, sequence_length=8))


TOKENS = np.array([[3, 4, 5, 6, 7, 8, 0, 0]], np.int32)
SEGMENTS = np.array([[1, 1, 1, 2, 2, 2, 0, 0]], np.int32)


@pytest.fixture
def seen(random_params):
    return lambda family, **inputs: seen_by(family, random_params(family.config), **inputs)


def seen_by(family, params, **inputs):
    """bool [T, T]: whether the output at t depends on the embedding at s."""

    @jax.jit
    @jax.jacobian
    def jacobian(embedding_TD):
        moved = jax.tree.map(jnp.asarray, params)
        moved["embedding"] = moved["embedding"].at[:8].set(embedding_TD)
        return family.module().apply({"params": moved}, np.arange(8)[None], method="hidden", **inputs)[0][0]

    jacobian_TDSD = jacobian(params["embedding"][:8])
    return np.abs(jacobian_TDSD).max((1, 3)) > 1e-7


@pytest.mark.parametrize("position", ["rope", "learned", "sinusoidal", "alibi"])
def test_every_token_sees_both_sides(position, seen):
    assert seen(encoder(position=position)).all()


def test_documents_do_not_see_each_other_or_padding(seen):
    expected = np.asarray(SEGMENTS[0][:, None] == SEGMENTS[0][None])
    np.testing.assert_array_equal(seen(encoder(), segments_BT=SEGMENTS), expected)


def test_a_window_extends_to_both_sides(seen):
    distance = np.abs(np.arange(8)[:, None] - np.arange(8)[None])
    np.testing.assert_array_equal(seen(encoder(window=3, window_pattern="S", num_layers=1)), distance < 3)


def test_alibi_is_symmetric(random_params):
    family = encoder(position="alibi")
    apply, params = jax.jit(family.module().apply), {"params": random_params(family.config)}
    there, back = apply(params, TOKENS[:, :6]), apply(params, TOKENS[:, 5::-1])
    np.testing.assert_allclose(there, back[:, ::-1], atol=1e-5)


@functools.cache
def loss_and_gradients(family):
    return jax.jit(
        jax.value_and_grad(
            lambda params: jnp.square(family.module().apply({"params": params}, TOKENS, SEGMENTS)).mean()
        )
    )


@pytest.mark.parametrize("fields", [dict(attention="xla", attention_block=3), dict(layers="scan"), dict(remat="full")])
def test_all_ways_of_running_give_the_same_result(fields, random_params):
    base, other = encoder(attention="reference", layers="unroll"), encoder(**fields)
    params = random_params(base.config)
    expected, found = (loss_and_gradients(family)(params) for family in (base, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, expected)


def test_flops_count_every_key():
    causal, both = encoder().flops_per_token(8), encoder(family="decoder").flops_per_token(8)
    assert causal["causal"] == causal["full"] == both["full"] > both["causal"]
