"""Sampling against independent NumPy references and against the distributions to draw from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import ConfigError
from gptjax.inference import sampling as S

V = 50
process_logits, sample = jax.jit(S.process_logits), jax.jit(S.sample)


@pytest.fixture(scope="module")
def logits_BV():
    return np.random.default_rng(0).normal(0, 3, (4, V)).astype(np.float32)


def softmax(logits):
    exp = np.exp(logits - logits.max())
    return exp / exp.sum()


def reference_kept(logits_V, top_k, top_p, min_p):
    """The kept token ids, one token after another in order of probability."""
    order = np.argsort(-logits_V, kind="stable")
    kept = list(order[: top_k or len(order)])
    probability = softmax(logits_V[kept].astype(np.float64))
    nucleus, mass = [], 0.0
    for token, p in zip(kept, probability):
        if nucleus and mass >= top_p:
            break
        nucleus.append(token)
        mass += p
    most = logits_V[nucleus].max()
    return {int(token) for token in nucleus if np.exp(logits_V[token] - most) >= min_p}


def kept(processed_V):
    return set(np.flatnonzero(np.isfinite(processed_V)).tolist())


@pytest.mark.parametrize("top_k", [0, 1, 7, V, 1000])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5, 1e-6])
@pytest.mark.parametrize("min_p", [0.0, 0.05, 1.0])
def test_truncations_keep_the_same_tokens_as_the_reference(logits_BV, top_k, top_p, min_p):
    settings = S.make_sampling([0] * 4, num_tokens=V, top_k=top_k, top_p=top_p, min_p=min_p)
    processed_BV = process_logits(logits_BV, jnp.zeros((4, V), bool), settings)
    for logits_V, processed_V in zip(logits_BV, np.asarray(processed_BV)):
        expected = reference_kept(logits_V, top_k, top_p, min_p)
        assert kept(processed_V) == expected
        np.testing.assert_array_equal(processed_V[list(expected)], logits_V[list(expected)])


def test_each_row_has_its_own_settings(logits_BV):
    options = dict(top_k=[0, 3, 0, 5], top_p=[0.8, 1.0, 1.0, 0.5], min_p=[0.0, 0.0, 0.2, 0.0])
    settings = S.make_sampling([0] * 4, num_tokens=V, **options)
    processed_BV = np.asarray(process_logits(logits_BV, jnp.zeros((4, V), bool), settings))
    for row in range(4):
        expected = reference_kept(logits_BV[row], *(options[name][row] for name in ("top_k", "top_p", "min_p")))
        assert kept(processed_BV[row]) == expected


def test_ties_with_the_last_token_kept_are_kept():
    logits_BV = jnp.asarray([[2.0, 1.0, 1.0, 0.0]])
    settings = S.make_sampling([0], num_tokens=4, top_k=2)
    assert kept(np.asarray(process_logits(logits_BV, jnp.zeros((1, 4), bool), settings))[0]) == {0, 1, 2}


def test_repetition_penalty_lowers_seen_tokens_of_either_sign(logits_BV):
    seen_BV = np.random.default_rng(1).random((4, V)) < 0.3
    settings = S.make_sampling([0] * 4, num_tokens=V, repetition_penalty=1.7)
    processed_BV = np.asarray(process_logits(logits_BV, jnp.asarray(seen_BV), settings))
    for row, token in np.ndindex(4, V):
        x = logits_BV[row, token]
        expected = (x / 1.7 if x > 0 else x * 1.7) if seen_BV[row, token] else x
        assert processed_BV[row, token] == pytest.approx(expected, rel=1e-6)
        assert not seen_BV[row, token] or processed_BV[row, token] <= x


def test_processors_compose_in_the_documented_order():
    # The penalty makes token 0 less probable; at temperature 2, the nucleus of 0.6 needs both of the top-2 tokens.
    logits_BV = jnp.asarray([[4.0, 3.0, 2.5, 1.0]])
    settings = S.make_sampling([0], num_tokens=4, repetition_penalty=4.0, temperature=2.0, top_k=2, top_p=0.6)
    processed_V = np.asarray(process_logits(logits_BV, jnp.asarray([[True, False, False, False]]), settings))[0]
    np.testing.assert_allclose(processed_V, [-np.inf, 1.5, 1.25, -np.inf])
    one = settings.replace(top_p_B=np.float32([0.5]))  # token 1 alone has 0.562 of the top-2 mass
    processed_V = np.asarray(process_logits(logits_BV, jnp.asarray([[True, False, False, False]]), one))[0]
    assert kept(processed_V) == {1}


def draws(logits_V, count, **options):
    """`count` independent draws from one distribution: rows with seeds 0, 1, 2, …"""
    settings = S.make_sampling(range(count), num_tokens=len(logits_V), **options)
    logits_BV = jnp.tile(jnp.asarray(logits_V, jnp.float32), (count, 1))
    return sample(logits_BV, jnp.zeros(logits_BV.shape, bool), jnp.zeros(len(logits_BV), jnp.int32), settings)


@pytest.mark.parametrize(
    "options, expected",
    [
        (dict(), [0.5, 0.25, 0.15, 0.1]),
        (dict(temperature=0.5), np.array([0.5, 0.25, 0.15, 0.1]) ** 2 / (np.array([0.5, 0.25, 0.15, 0.1]) ** 2).sum()),
        (dict(top_k=2), [2 / 3, 1 / 3, 0, 0]),
        (dict(top_p=0.8), [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0]),
        (dict(min_p=0.4), [2 / 3, 1 / 3, 0, 0]),
    ],
)
def test_draws_follow_the_distribution(options, expected):
    count = 4000
    token_B, logprob_B = draws(np.log([0.5, 0.25, 0.15, 0.1]), count, **options)
    observed = np.bincount(np.asarray(token_B), minlength=4)
    expected = np.asarray(expected)
    assert observed[expected == 0].sum() == 0
    possible = expected > 0
    chi_square = ((observed - count * expected)[possible] ** 2 / (count * expected[possible])).sum()
    assert chi_square < 16.3, (observed / count, expected)  # 0.1 % for three degrees of freedom
    # The log-probability is always that of the unmodified distribution.
    np.testing.assert_allclose(logprob_B, np.log([0.5, 0.25, 0.15, 0.1])[np.asarray(token_B)], rtol=1e-5)


def test_steps_of_a_row_draw_independently():
    logits_BV = jnp.log(jnp.asarray([[0.5, 0.5]]))
    settings = S.make_sampling([7], num_tokens=2)
    tokens = jax.lax.map(
        lambda i: sample(logits_BV, jnp.zeros((1, 2), bool), i[None], settings)[0][0], jnp.arange(2000)
    )
    tokens = np.asarray(tokens)
    assert abs(tokens.mean() - 0.5) < 0.04
    assert abs(np.corrcoef(tokens[:-1], tokens[1:])[0, 1]) < 0.08


def test_temperature_zero_takes_the_maximum_after_the_penalty(logits_BV):
    settings = S.make_sampling([0] * 4, num_tokens=V, temperature=0.0, repetition_penalty=100.0, top_k=5)
    seen_BV = np.zeros((4, V), bool)
    seen_BV[np.arange(4), logits_BV.argmax(-1)] = True
    token_B, _ = sample(jnp.asarray(logits_BV), jnp.asarray(seen_BV), jnp.full(len(logits_BV), 3), settings)
    np.testing.assert_array_equal(token_B, np.argsort(-logits_BV, -1)[:, 1])


@pytest.mark.parametrize("temperature", [1e-2, 1e-6, 1e-20, 1e-37, 1e-38, 1e-45, 1e-60])
@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_a_lower_temperature_makes_the_maximum_more_probable(logits_BV, temperature, scale):
    options = dict(temperature=temperature, top_p=0.95, min_p=0.01, repetition_penalty=1.2)
    settings = S.make_sampling([0] * 4, num_tokens=V, **options)
    seen_BV = np.random.default_rng(1).random((4, V)) < 0.3
    logits_BV = np.float32(scale) * np.sign(logits_BV) * (5 + np.abs(logits_BV).argsort().argsort())  # at least 1 apart
    processed_BV = process_logits(logits_BV, seen_BV, settings)
    assert not np.isnan(processed_BV).any() and not np.isposinf(processed_BV).any()
    token_B, logprob_B = sample(logits_BV, seen_BV, jnp.full(len(logits_BV), 3), settings)
    greedy_B, _ = sample(
        logits_BV, seen_BV, jnp.full(len(logits_BV), 3), settings.replace(temperature_B=np.zeros(4, np.float32))
    )
    np.testing.assert_array_equal(token_B, greedy_B)
    assert np.isfinite(logprob_B).all()


@pytest.mark.parametrize("penalty", [1e-30, 1e30])
def test_extreme_penalties_give_finite_logits(logits_BV, penalty):
    settings = S.make_sampling([0] * 4, num_tokens=V, repetition_penalty=penalty, temperature=1e-38)
    processed_BV = process_logits(logits_BV, np.ones((4, V), bool), settings)
    assert not np.isnan(processed_BV).any() and (processed_BV.max(-1) == 0).all()


def test_ids_without_a_token_are_never_drawn():
    token_B, _ = draws([0.0, 0.0, 9.0, 9.0], 64)
    assert np.asarray(token_B).max() > 1
    settings = S.make_sampling(range(64), num_tokens=2)
    logits_BV = jnp.tile(jnp.asarray([0.0, 0.0, 9.0, 9.0]), (64, 1))
    token_B, _ = sample(logits_BV, jnp.zeros((64, 4), bool), jnp.zeros(len(logits_BV), jnp.int32), settings)
    assert np.asarray(token_B).max() <= 1


def test_a_row_does_not_depend_on_its_position_or_neighbours(logits_BV):
    def tokens(rows):
        settings = S.make_sampling([10 + row for row in rows], num_tokens=V, temperature=1.3, top_k=20)
        seen_BV = jnp.zeros((len(rows), V), bool)
        return [
            int(sample(jnp.asarray(logits_BV[rows]), seen_BV, jnp.full(len(rows), i), settings)[0][-1])
            for i in range(8)
        ]

    assert tokens([2]) == tokens([0, 1, 2]) == tokens([3, 2])


@pytest.mark.parametrize(
    "name, value",
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", 1e39),
        ("temperature", "warm"),
        ("temperature", None),
        ("temperature", [1.0, 1.0, 1.0]),
        ("top_k", -1),
        ("top_k", 2.5),
        ("top_k", 2**31),
        ("top_k", float("inf")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", 1.5),
        ("min_p", float("nan")),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e-46),
        ("repetition_penalty", float("inf")),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"{name} = .*must be"):
        S.make_sampling([0, 1], num_tokens=V, **{name: value})


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(ConfigError, match="seed"):
        S.make_sampling([seed], num_tokens=V)


def test_a_top_p_of_1_keeps_all_tokens_despite_rounding():
    """In float32, the mass before the last tokens is 1. Another row has a smaller nucleus, so that one is searched."""
    logits_BV = jnp.asarray([[0.0, -30.0, -60.0, -80.0]] * 2)
    settings = S.make_sampling([0, 0], num_tokens=4, top_p=[1.0, 0.5])
    processed_BV = np.asarray(process_logits(logits_BV, jnp.zeros((2, 4), bool), settings))
    assert [kept(processed_V) for processed_V in processed_BV] == [{0, 1, 2, 3}, {0}]


@pytest.mark.parametrize("settings", [dict(top_k=2), dict(top_p=0.5)])
def test_zeros_of_both_signs_tie(settings):
    logits_BV = jnp.asarray([[0.0, -0.0, 0.0, -5.0]])
    settings = S.make_sampling([0], num_tokens=4, **settings)
    assert kept(np.asarray(process_logits(logits_BV, jnp.zeros((1, 4), bool), settings))[0]) == {0, 1, 2}


def test_a_nucleus_is_never_empty():
    """With a top-p that float32 rounds to 0, the most probable token stays."""
    settings = S.make_sampling([0], num_tokens=4, top_p=1e-60)
    assert settings.top_p_B[0] == 0
    logits_BV = jnp.asarray([[1.0, 3.0, 2.0, 0.0]])
    assert kept(np.asarray(process_logits(logits_BV, jnp.zeros((1, 4), bool), settings))[0]) == {1}
