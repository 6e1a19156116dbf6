"""The encoder–decoder: which token sees which; packed pairs equal single pairs; cached steps equal a whole forward
pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from gptjax.config import ConfigError, default
from gptjax.data.facts import DataFacts
from gptjax.inference.decode import decoding_params
from gptjax.model.families import family_named, family_of, validate_model
from gptjax.model.parameters import count_parameters
from gptjax.planning import resolve

VOCAB, S, T = 23, 9, 7
VARIANTS = {
    "modern": dict(num_kv_heads=1, qk_norm=True),
    "original": dict(position="sinusoidal", norm="layernorm", norm_placement="post_residual", bias="all"),
    "gemma": dict(norm_placement="sandwich", window=3, window_pattern="SL", embedding_multiplier=4.0),
    "two_tables": dict(position="learned", shared_embeddings=False, source_vocab_size=31, tied_embeddings=False),
}


def encoder_decoder(two_vocabularies=0, **fields):
    config = ConfigDict(default().model)
    config.update(family="encoder_decoder", num_layers=2, num_encoder_layers=3, width=16, num_heads=2)
    config.update(initialization_std=0.3)
    config.update(fields)
    facts = dict(vocab_size=VOCAB, sequence_length=T, packed=True, source_length=S, source_vocab_size=two_vocabularies)
    return family_of(family_named("encoder_decoder").resolve(config, platform="cpu", **facts))


def pairs(family, seed=0):
    draw = np.random.default_rng(seed)
    sources = draw.integers(0, family.config.source_vocab_size, (2, S)).astype(np.int32)
    return sources, draw.integers(0, VOCAB, (2, T)).astype(np.int32)


@pytest.fixture(params=VARIANTS)
def family(request):
    return encoder_decoder(**VARIANTS[request.param])


def test_cached_generation_equals_the_whole_forward_pass(family, random_params):
    """Rows have sources of different lengths; compares the logits after each token of the target."""
    params = random_params(family.config)
    sources, targets = pairs(family)
    lengths = np.array([S, 4], np.int32)
    expected = jax.jit(family.module().apply)({"params": params}, sources, targets, lengths)

    prompts = np.zeros((2, S + 3), np.int32)
    for row, length in enumerate(lengths):
        prompts[row, :length], prompts[row, length] = sources[row, :length], targets[row, 0]
    decoding = decoding_params(family, params, "float32")
    cache, logits = jax.jit(family.prefill, static_argnames=("room", "piece"))(
        decoding, prompts, lengths + 1, room=2, piece=4
    )
    np.testing.assert_allclose(logits, expected[:, 0], atol=2e-5)
    cache = cache.grown(T - 2)
    step = jax.jit(family.step)
    for t in range(1, T):
        cache, logits = step(decoding, cache, targets[:, t], np.array([True, True]))
        np.testing.assert_allclose(logits, expected[:, t], atol=2e-5)
    stopped, _ = step(decoding, cache, targets[:, 0], np.array([True, False]))
    assert stopped.target.lengths_B.tolist() == [T + 1, T]


def variants_and_layers():
    """Each variant with one way of running its layers; with both if exhaustive."""
    for number, name in enumerate(VARIANTS):
        ways = ("scan", "unroll")
        yield pytest.param(name, ways[number % 2], id=f"{name}-{ways[number % 2]}")
        other = ways[(number + 1) % 2]
        yield pytest.param(name, other, id=f"{name}-{other}", marks=pytest.mark.exhaustive)


@pytest.mark.parametrize("name, layers", list(variants_and_layers()))
def test_packed_pairs_do_not_affect_each_other(name, layers, random_params):
    family = encoder_decoder(**VARIANTS[name], layers=layers)
    params = random_params(family.config)
    sources, targets = pairs(family)
    cuts = [((0, 4), (0, 2)), ((4, 7), (2, 6))]  # for each pair, its slices of the source's row and of the target's row
    batch = {name: np.zeros((1, length), np.int32) for name, length in (("s", S), ("sp", S), ("t", T), ("tp", T))}
    for number, (of_source, of_target) in enumerate(cuts, 1):
        for segments, positions, (first, last) in (("s", "sp", of_source), ("t", "tp", of_target)):
            batch[segments][0, first:last] = number
            batch[positions][0, first:last] = np.arange(last - first)

    @jax.jit
    def together_and_alone(params):
        hidden = functools.partial(family.module().apply, {"params": params}, method="hidden")
        together, _ = hidden(
            targets[:1],
            batch["t"],
            batch["tp"],
            source_BS=sources[:1],
            source_segments_BS=batch["s"],
            source_positions_BS=batch["sp"],
        )
        alone = [hidden(targets[:1, t0:t1], source_BS=sources[:1, s0:s1])[0] for (s0, s1), (t0, t1) in cuts]
        return together, alone

    together, alone = together_and_alone(params)
    for (_, (t0, t1)), of_pair in zip(cuts, alone):
        np.testing.assert_allclose(together[:, t0:t1], of_pair, atol=1e-5)


def test_a_target_sees_its_source_but_no_later_target(random_params):
    family = encoder_decoder(shared_embeddings=False)
    params = random_params(family.config)
    lengths = jnp.array([6])

    @jax.jit
    @jax.jacobian
    def jacobian(tables):
        moved = dict(params, embedding=tables[0], source_embedding=tables[1])
        tokens = jnp.arange(T)[None]
        segments = (jnp.arange(S) < lengths[:, None]).astype(jnp.int32)
        return family.module().apply(
            {"params": moved},
            tokens,
            jnp.ones_like(tokens),
            source_BS=jnp.arange(S)[None],
            source_segments_BS=segments,
            method="hidden",
        )[0][0]

    of_target, of_source = jacobian((params["embedding"], params["source_embedding"]))
    seen = np.abs(of_target).max((1, 3))[:, :T] > 1e-7
    np.testing.assert_array_equal(seen, np.tril(np.ones((T, T), bool)))
    seen = np.abs(of_source).max((1, 3))[:, :S] > 1e-7
    np.testing.assert_array_equal(seen, np.broadcast_to(np.arange(S) < 6, (T, S)))


def test_dropout_differs_between_the_stacks_and_depends_only_on_its_keys(random_params):
    family = encoder_decoder(dropout=0.5, attention_dropout=0.5)
    params = random_params(family.config)
    sources, targets = pairs(family)

    @jax.jit
    def hidden(seed):
        keys = jax.vmap(jax.random.key)(jnp.arange(2) + seed)
        x, _ = family.module().apply(
            {"params": params}, targets, dropout_keys_B=keys, source_BS=sources, method="hidden"
        )
        return x

    assert (hidden(0) == hidden(0)).all() and not (hidden(0) == hidden(5)).any()


def test_counts_and_flops():
    """Counted by hand: an encoder's layer has 4 D² + 3 D F, a decoder's 8 D² + 3 D F parameters in matrices."""
    D, F, V = 16, 40, VOCAB
    family = encoder_decoder(width=D, feedforward_width=F)
    layer = 3 * D * F
    of_encoder, of_decoder = 3 * (4 * D * D + layer), 2 * (8 * D * D + layer)
    norms = (3 * 2 + 1 + 2 * 3 + 1) * D
    assert count_parameters(family.declarations).total == of_encoder + of_decoder + norms + V * D
    # Per token of the target, S / T tokens pass through the encoder and the key and value projections of two
    # cross-attentions.
    norms_of_encoder = (3 * 2 + 1) * D
    of_source = of_encoder + norms_of_encoder + 2 * 2 * D * D
    of_target = of_encoder + of_decoder + norms + V * D - of_source
    keys = S / T * 3 * S + 2 * S
    expected = 6 * (of_target + S / T * of_source) + 12 * D * (keys + 2 * T)
    assert family.flops_per_token(T, S)["full"] == pytest.approx(expected)
    assert family.flops_per_token(T, S)["causal"] == pytest.approx(expected - 12 * D * T)


def test_first_dense_layers_cost_as_much_as_those_of_a_dense_model():
    """With one expert, which all use, a layer costs a column for the router more: two in the encoder, one after it."""
    D, sizes = 16, dict(width=16, feedforward_width=40)
    experts = dict(num_experts=1, experts_per_token=1, first_dense_layers=1, first_dense_width=40)
    dense, both = (encoder_decoder(**sizes | more).flops_per_token(T, S) for more in ({}, experts))
    for convention, flops in dense.items():
        assert both[convention] - flops == pytest.approx(6 * D * (1 + 2 * S / T))


def test_two_vocabularies_cannot_share_one_table():
    with pytest.raises(ConfigError, match=r"model.shared_embeddings = True: .* two vocabularies"):
        encoder_decoder(two_vocabularies=31)


@pytest.mark.parametrize(
    ("data", "model", "message"),
    [
        ((8, 64), (8, 64), None),  # only sources are too long
        ((64, 8), (64, 8), None),  # only targets are too long
        ((64, 0), (64, 64), None),
        ((64, 64), (8, 64), "data.sequence_length = 64: rows of targets .* model.max_positions = 8 .*for sources"),
        ((64, 64), (64, 8), "data.source_length = 64: rows of sources .* model.max_source_positions = 8 "),
        ((64, 0), (64, 8), "data.source_length = 64: .*data.source_length = 0 stands for data.sequence_length"),
    ],
)
def test_sources_and_targets_have_separate_lengths(data, model, message):
    """data: lengths of target and source rows; model: positions of decoder and encoder."""
    config = default()
    config.model.update(family="encoder_decoder", max_positions=model[0], max_source_positions=model[1])
    config.data.update(sequence_length=data[0], source_length=data[1])
    config.training.objective = "seq2seq"

    def check():
        validate_model(config)
        return resolve(config, DataFacts(32), "cpu", 1).model

    if message is None:
        assert (check().max_positions, check().max_source_positions) == model
    else:
        with pytest.raises(ConfigError, match=message):
            check()


def test_every_parameter_has_a_declaration_of_its_shape(family):
    params = flatten_dict(jax.eval_shape(lambda: family.init_params(jax.random.key(0))))
    declared = flatten_dict(family.declarations)
    assert {path: x.shape for path, x in params.items()} == {path: each.shape for path, each in declared.items()}
