"""Decoding with a cache equals the forward pass over the whole sequence, for every option that depends on positions."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from gptjax.model.cache import KeyValueCache, allocate
from gptjax.model.decoder import Decoder
from gptjax.model.families import family_of
from gptjax.model.parameters import unstack

TOKENS = np.random.default_rng(2).integers(0, 29, (3, 11)).astype(np.int32)
SLOTS, PROMPT = 16, 6  # the prompt is longer than one block of query rows (4), and not a multiple of it

# Models have one layer if nothing depends on the layer. Independent options are combined in one model.
CASES = {
    "rope": {},
    "rope_scanned": dict(layers="scan", num_layers=2),
    "learned": dict(position="learned"),
    "window": dict(window=3, window_pattern="SL", num_layers=2),
    "rope_by_kind": dict(window=3, window_pattern="SLN", rope_local_theta=20.0, rope_fraction=0.5, num_layers=4),
    "alibi_and_sinks": dict(position="alibi", attention_sinks=True, attention_softcap=0.7, attention_scale=0.4),
    "gemma_multi_head": dict(
        norm_placement="sandwich",
        embedding_multiplier=4.0,
        logit_multiplier=0.5,
        residual_multiplier=0.5,
        num_kv_heads=4,
    ),
    "olmo_no_positions": dict(norm_placement="post", qk_norm=True, qk_norm_over="projection", position="none"),
    "pythia_multi_query": dict(
        parallel_residual=True, norm="layernorm", bias="all", feedforward="gelu_exact", num_kv_heads=1
    ),
    "first_dense": dict(
        num_layers=3, num_experts=4, first_dense_layers=1, first_dense_width=20, window=3, window_pattern="SL"
    ),
    "qk_norm_sinusoidal": dict(qk_norm=True, logit_softcap=3.0, tied_embeddings=False, position="sinusoidal"),
}


def config_of(model_config, case, **changes):
    return model_config(**dict(num_layers=1) | changes | CASES[case])


def empty_cache(config, batch) -> KeyValueCache:
    cache = jax.eval_shape(lambda: allocate(config, batch, SLOTS))
    # slots that were never written must have no effect
    keys, values = (tuple(np.full(x.shape, 1e4, x.dtype) for x in layers) for layers in (cache.keys, cache.values))
    return cache.replace(keys=keys, values=values, lengths_B=np.zeros(batch, np.int32))


@functools.cache
def whole(config):
    return jax.jit(lambda params, tokens: Decoder(config).apply({"params": params}, tokens))


def forward(config, params, tokens):
    return whole(config)(params, tokens)


@functools.cache
def reader(config):
    """read(params, tokens, cache, num_new_B=None): logits [B, T, V] of tokens that continue a cache, and the new
    cache."""
    model = Decoder(config)

    def read(params, tokens, cache, num_new_B=None):
        x_BTD, cache = model.apply({"params": params}, tokens, cache, num_new_B, method="read")
        return model.apply({"params": params}, x_BTD, method="logits"), cache

    return jax.jit(read)


def unstacked(config, params):
    return unstack(family_of(config).declarations, params)[1]


@pytest.mark.parametrize("case", CASES)
def test_prefill_and_steps_equal_the_whole_forward_pass(case, model_config, random_params):
    config = config_of(model_config, case)
    params = random_params(config)
    read = reader(config)
    logits, cache = read(params, TOKENS[:, :PROMPT], empty_cache(config, len(TOKENS)))
    parts = [logits]
    for t in range(PROMPT, TOKENS.shape[1]):
        logits, cache = read(unstacked(config, params), TOKENS[:, t : t + 1], cache)
        parts.append(logits)
    assert cache.lengths_B.tolist() == [TOKENS.shape[1]] * 3
    np.testing.assert_allclose(np.concatenate(parts, 1), forward(config, params, TOKENS), rtol=1e-4, atol=1e-4)


WANTED = np.int32([[0, 5], [10, 10], [3, 7]])  # places in each row; one twice


@pytest.mark.parametrize(
    "case, stacked, changes",
    [
        ("window", False, dict(attention="xla")),
        pytest.param("first_dense", False, {}, marks=pytest.mark.exhaustive),
        pytest.param("pythia_multi_query", False, {}, marks=pytest.mark.exhaustive),
        ("rope_scanned", True, {}),
        ("first_dense", False, dict(expert_capacity=0.5)),
    ],
    ids=["window", "experts", "parallel", "scanned", "dropping experts"],
)
def test_wanted_tokens_have_the_same_output_as_among_all(case, stacked, changes, model_config, random_params):
    config = config_of(model_config, case, **changes)
    params = random_params(config)
    model = Decoder(dataclasses.replace(config, layers="scan" if stacked else "unroll"))
    cached = not config.expert_capacity  # no token is dropped when a cache is read

    @jax.jit
    def compute(params):
        apply = functools.partial(model.apply, {"params": params}, TOKENS)
        whole, wanted = apply(method="hidden")[0], apply(wanted_BQ=WANTED, method="hidden")[0]
        read = apply(empty_cache(config, 3), wanted_BQ=WANTED, method="read")[0] if cached else wanted
        return whole, wanted, read

    whole, *wanted = compute(params if stacked else unstacked(config, params))
    for each in wanted:
        np.testing.assert_allclose(each, np.take_along_axis(whole, WANTED[..., None], 1), rtol=1e-4, atol=1e-4)


def test_after_attention_the_last_layer_computes_nothing_for_tokens_that_are_not_wanted(model_config, random_params):
    config = dataclasses.replace(model_config(num_layers=1, position="none"), layers="unroll")
    params = unstacked(config, random_params(config))
    model, cache = Decoder(config), empty_cache(config, 3)

    def flops(*inputs, **options):
        lowered = jax.jit(lambda params: model.apply({"params": params}, TOKENS, *inputs, **options)[0]).lower(params)
        return lowered.cost_analysis()["flops"]

    layer = params["layers"][0]
    spared = [layer["attention"]["output"], *layer["feedforward"].values()]
    for inputs, method, matrices in (
        ((), "hidden", spared),
        ((cache,), "read", [*spared, layer["attention"]["query"]]),
    ):
        less = flops(*inputs, method=method) - flops(*inputs, wanted_BQ=WANTED, method=method)
        assert less > 2 * (TOKENS.size - WANTED.size) * sum(matrix.size for matrix in matrices)


@pytest.mark.parametrize(
    "case", [*(pytest.param(case, marks=pytest.mark.exhaustive) for case in ("rope", "learned")), "window"]
)
def test_rows_of_different_lengths_do_not_affect_each_other(case, model_config, random_params):
    """Each row has read a different number of tokens. Then rows continue by one token, by up to three, and one not at
    all."""
    config = config_of(model_config, case)
    params = random_params(config)
    read, whole = reader(config), forward(config, params, TOKENS)
    cache, done = empty_cache(config, 3), np.zeros(3, int)
    for num_new, width in (([6, 1, 3], 6), ([1, 1, 0], 1), ([0, 1, 1], 1), ([1, 3, 2], 3)):
        chunk = np.zeros((3, width), np.int32)
        for row, count in enumerate(num_new):
            chunk[row, :count] = TOKENS[row, done[row] : done[row] + count]
        logits, cache = read(params, chunk, cache, np.int32(num_new))
        assert np.isfinite(logits).all()
        for row, count in enumerate(num_new):
            expected = whole[row, done[row] : done[row] + count]
            np.testing.assert_allclose(logits[row, :count], expected, rtol=1e-4, atol=1e-4)
        done += num_new
        assert cache.lengths_B.tolist() == done.tolist()


def cases_and_pieces():
    """Each case with one piece length; with all of them if exhaustive."""
    for case, chosen in {"rope": 8, "learned": 4, "window": 2}.items():
        for piece in (8, 4, 2):
            marks = [] if piece == chosen else pytest.mark.exhaustive
            yield pytest.param(case, piece, id=f"{case}-{piece}", marks=marks)


@pytest.mark.parametrize("case, piece", list(cases_and_pieces()))
def test_a_family_reads_prompts_of_different_lengths_at_once_and_continues(case, piece, model_config, random_params):
    config = config_of(model_config, case, max_positions=11)
    params, whole = random_params(config), forward(config, random_params(config), TOKENS)
    family, lengths = family_of(config), np.int32([8, 1, 5])
    prefill, step = jax.jit(family.prefill, static_argnames=("room", "piece")), jax.jit(family.step)
    cache, logits = prefill(params, TOKENS[:, :8], lengths, room=3, piece=piece)
    assert (cache.num_slots, cache.lengths_B.tolist()) == (11, [8, 1, 5])
    rows = np.arange(3)
    np.testing.assert_allclose(logits, whole[rows, lengths - 1], rtol=1e-4, atol=1e-4)
    for _ in range(3):
        cache, logits = step(params, cache, TOKENS[rows, lengths], np.array([True, True, False]))
        np.testing.assert_allclose(logits[:2], whole[rows, lengths][:2], rtol=1e-4, atol=1e-4)
        lengths = lengths + np.int32([1, 1, 0])
        assert cache.lengths_B.tolist() == lengths.tolist()
    _, logits = step(params, cache, TOKENS[rows, lengths % 11], np.array([False, True, True]))
    np.testing.assert_allclose(
        logits[1:], whole[rows, lengths % 11][1:], rtol=1e-4, atol=1e-4
    )  # as if there had been no step
