"""The decoder: every option against NumPy, and the ways of running it against each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_decoder import decode

from gptjax.config import ConfigError, default
from gptjax.model.decoder import Decoder, head_DV
from gptjax.model.dropout import row_keys
from gptjax.model.families import family_of
from gptjax.model.parameters import abstract_params, count_parameters
from gptjax.model.placement import Placement
from gptjax.model.resolve import resolve_model
from gptjax.model.stack import layer_windows

TOKENS = np.random.default_rng(1).integers(0, 29, (2, 12)).astype(np.int32)

WINDOWS = dict(window=3, window_pattern="SL")
YARN = dict(
    rope_scaling="yarn",
    rope_factor=8.0,
    rope_original_positions=64,
    rope_theta=50.0,
    head_width=16,
    rope_truncate=False,
)
OPTIONS = {
    "default": {},
    "layernorm": dict(norm="layernorm"),
    "layernorm_bias": dict(norm="layernorm", bias="all"),
    "epsilon": dict(norm_epsilon=0.5),
    "geglu": dict(feedforward="geglu"),
    "gelu": dict(feedforward="gelu"),
    "relu2": dict(feedforward="relu2"),
    "gated_bias": dict(bias="all"),
    "qkv_bias": dict(bias="qkv"),
    "multi_head": dict(num_kv_heads=4),
    "multi_query": dict(num_kv_heads=1),
    "wide_heads": dict(head_width=6),
    "qk_norm": dict(qk_norm=True),
    "qk_norm_with_layernorm": dict(qk_norm=True, norm="layernorm"),
    "qk_norm_over_projection": dict(qk_norm=True, qk_norm_over="projection"),
    "attention_scale": dict(attention_scale=0.9),
    "attention_softcap": dict(attention_softcap=0.4),
    "post_norms": dict(norm_placement="post"),
    "sandwich_norms": dict(norm_placement="sandwich", norm="layernorm", bias="norm"),
    "parallel_residual": dict(parallel_residual=True),
    "parallel_sandwich": dict(parallel_residual=True, norm_placement="sandwich"),
    "embedding_multiplier": dict(embedding_multiplier=3.0),
    "residual_multiplier": dict(residual_multiplier=0.3),
    "logit_multiplier": dict(logit_multiplier=0.25, logit_softcap=2.0),
    "output_bias": dict(bias="output"),
    "some_biases": dict(bias="qkv+feedforward", norm="layernorm"),
    "gelu_exact": dict(feedforward="gelu_exact"),
    "geglu_exact": dict(feedforward="geglu_exact"),
    "swiglu_clamped": dict(feedforward="swiglu_clamped", residual_multiplier=9.0),
    "theta": dict(rope_theta=100.0),
    "rope_linear": dict(rope_scaling="linear", rope_factor=4.0),
    "rope_yarn": YARN,
    "rope_yarn_whole": YARN | dict(rope_truncate=True, rope_attention_factor=0.7),
    "rope_longrope": dict(
        rope_scaling="longrope", rope_feature_factors=(1.0, 2.5), rope_factor=4.0, rope_original_positions=64
    ),
    "rope_llama3": dict(
        rope_scaling="llama3",
        rope_factor=8.0,
        rope_original_positions=64,
        rope_low_frequency_factor=1.0,
        rope_high_frequency_factor=4.0,
        rope_theta=50.0,
        head_width=16,
    ),
    "rope_fraction": dict(rope_fraction=0.5, head_width=8),
    "rope_local_theta": dict(rope_local_theta=20.0, rope_scaling="linear", rope_factor=4.0, **WINDOWS),
    "rope_in_some_layers": dict(window_pattern="NL"),
    "learned": dict(position="learned"),
    "sinusoidal": dict(position="sinusoidal"),
    "no_positions": dict(position="none"),
    "alibi": dict(position="alibi", num_heads=6, num_kv_heads=3, head_width=4, **WINDOWS),
    "sinks": dict(attention_sinks=True),
    "window": dict(window=3, window_pattern="S"),
    "window_pattern": WINDOWS,
    "untied": dict(tied_embeddings=False),
    "softcap": dict(logit_softcap=2.0),
}


# Options that can be combined in one model, so that a few models cover all. Each option alone is exhaustive.
TOGETHER = (
    "layernorm_bias geglu multi_query qk_norm_with_layernorm window theta",
    "epsilon gelu wide_heads learned residual_multiplier untied",
    "layernorm relu2 qkv_bias attention_scale window_pattern rope_linear softcap",
    "qk_norm_over_projection attention_softcap sandwich_norms rope_local_theta",
    "gelu_exact post_norms sinusoidal sinks output_bias logit_multiplier",
    "geglu_exact parallel_residual rope_yarn qk_norm embedding_multiplier",
    "swiglu_clamped parallel_sandwich alibi",
    "some_biases multi_head rope_longrope",
    "gated_bias rope_yarn_whole rope_in_some_layers",
    "rope_llama3",
    "rope_fraction",
    "no_positions",
    "default",
)


def options_alone_and_together():
    for name in OPTIONS:
        yield pytest.param((name,), id=name, marks=[] if name in TOGETHER else pytest.mark.exhaustive)
    for names in TOGETHER:
        if names not in OPTIONS:
            yield pytest.param(tuple(names.split()), id="+".join(names.split()))


@functools.cache
def compiled(config, **kwargs):
    return jax.jit(lambda params, args, keys_B: Decoder(config).apply({"params": params}, *args, **keys_B, **kwargs))


def logits_of(config, params, *args, dropout_keys_B=None, **kwargs):
    """The model's logits, compiled once per shape of the arguments."""
    return compiled(config, **kwargs)(params, args, dict(dropout_keys_B=dropout_keys_B))


def test_every_option_is_covered():
    assert set(" ".join(TOGETHER).split()) == set(OPTIONS)


@pytest.mark.parametrize("names", list(options_alone_and_together()))
def test_option_equals_numpy(names, model_config, random_params):
    options = {}
    for name in names:
        assert not any(options.get(field, value) != value for field, value in OPTIONS[name].items()), "they exclude"
        options |= OPTIONS[name]
    config = model_config(layers="scan", **options)
    params = random_params(config)
    expected = decode(config, params, TOKENS)
    np.testing.assert_allclose(logits_of(config, params, TOKENS), expected, rtol=2e-4, atol=2e-4)


def test_every_option_changes_the_function(model_config, random_params):
    """Guards the test above: a reference that ignores an option would agree with a model that also ignores it."""
    base = decode(config := model_config(), random_params(config), TOKENS[:1])
    for name, option in OPTIONS.items():
        if name != "default":
            other = decode(config := model_config(**option), random_params(config), TOKENS[:1])
            assert np.abs(other - base).max() > 1e-3, name


@pytest.mark.parametrize("position", ["rope", "learned", "sinusoidal", "alibi"])
def test_packed_equals_numpy_with_segments_and_positions(position, model_config, random_params):
    config = model_config(position=position, window=3, window_pattern="SL")
    params = random_params(config)
    segments = np.array([[1] * 5 + [2] * 4 + [0] * 3, [1] * 2 + [2] * 10], np.int32)
    positions = np.array([[*range(5), *range(4), *range(3)], [*range(2), *range(10)]], np.int32)
    expected = decode(config, params, TOKENS, segments, positions)
    actual = logits_of(config, params, TOKENS, segments, positions)
    np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-4)


BENT = dict(position="alibi", attention_sinks=True, attention_softcap=0.7, attention_scale=0.4)


@pytest.mark.parametrize("changes", [{}, BENT], ids=["plain", "bent"])
@pytest.mark.parametrize("backend", ["reference", "xla"])
def test_packed_documents_do_not_affect_each_other(backend, changes, model_config, random_params):
    config = model_config(attention=backend, num_layers=1, **changes)
    params = random_params(config)
    lengths = [5, 4, 3]
    segments = np.repeat([1, 2, 3], lengths)[None].astype(np.int32)
    positions = np.concatenate([np.arange(n) for n in lengths])[None].astype(np.int32)
    packed = logits_of(config, params, TOKENS[:1], segments, positions)
    alone = [logits_of(config, params, part[None]) for part in np.split(TOKENS[0], np.cumsum(lengths)[:-1])]
    np.testing.assert_allclose(packed, np.concatenate(alone, axis=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend, layers", [("reference", "scan"), ("xla", "unroll")])
def test_gradients_show_that_attention_is_causal(backend, layers, model_config, random_params):
    """Each position t depends on all embeddings up to t and on no later one."""
    config = model_config(attention=backend, layers=layers, tied_embeddings=False)
    params = random_params(config)
    tokens = np.arange(12)[None]  # each position has its own row of the embedding

    def per_position(embedding):
        x = Decoder(config).apply({"params": dict(params, embedding=embedding)}, tokens)
        return (x[0] * jnp.arange(1.0, 30.0)).sum(-1)

    influence = np.abs(jax.jit(jax.jacrev(per_position))(params["embedding"])).max(-1)[:, :12]
    assert (influence[np.triu_indices(12, 1)] == 0).all()
    assert (influence[np.tril_indices(12)] > 0).all()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(dict(remat="dots"), marks=pytest.mark.exhaustive),
        pytest.param(dict(**WINDOWS, num_layers=4), marks=pytest.mark.exhaustive),
        pytest.param(dict(**WINDOWS, num_layers=5, remat="full", dropout=0.3), marks=pytest.mark.exhaustive),
        pytest.param(dict(**WINDOWS, num_layers=5, remat="full"), marks=pytest.mark.exhaustive),
        dict(**WINDOWS, num_layers=5),  # the fifth layer runs after the scan
        pytest.param(
            dict(window_pattern="LNN", norm_placement="sandwich", parallel_residual=True, num_layers=4),
            marks=pytest.mark.exhaustive,
        ),
    ],
    ids=str,
)
def test_scan_equals_unroll(changes, model_config, random_params):
    keys_B = row_keys(jax.random.key(0), 0, len(TOKENS))

    def run(layers):
        config = model_config(layers=layers, **changes)

        def loss(params):
            return jnp.square(Decoder(config).apply({"params": params}, TOKENS, dropout_keys_B=keys_B)).mean()

        return jax.jit(jax.value_and_grad(loss))(random_params(config))

    (loss_s, grads_s), (loss_u, grads_u) = run("scan"), run("unroll")
    np.testing.assert_allclose(loss_s, loss_u, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4), grads_s, grads_u)


def test_initialisation_runs_no_forward_pass(model_config):
    text = str(jax.make_jaxpr(lambda: family_of(model_config(num_layers=3)).init_params(jax.random.key(0)))())
    assert "gather" not in text  # no token is looked up


@pytest.mark.parametrize("transform", [lambda loss: loss, jax.grad], ids=["forward", "backward"])
def test_a_scan_over_layers_makes_no_copy_of_their_parameters_or_gradients(transform, model_config):
    config = model_config(layers="scan", num_layers=64, dtype="float32", remat="full")
    family = family_of(config)
    params, tokens_BT = abstract_params(family.declarations), jax.ShapeDtypeStruct((1, 2), jnp.int32)
    program = transform(lambda params, tokens_BT: family.module().apply({"params": params}, tokens_BT).sum())
    memory = jax.jit(program).lower(params, tokens_BT).compile().memory_analysis()
    assert memory.temp_size_in_bytes < memory.argument_size_in_bytes / 4


def test_each_layer_is_initialized_separately_and_equally_for_scan_and_unroll(model_config):
    configs = [model_config(layers=kind, num_layers=3) for kind in ("scan", "unroll")]
    scan, unroll = (family_of(config).init_params(jax.random.key(3)) for config in configs)
    jax.tree.map(np.testing.assert_array_equal, scan, unroll)
    for weight in (scan["layers"]["attention"]["query"], scan["layers"]["feedforward"]["down"]):
        assert len({np.asarray(layer).tobytes() for layer in weight}) == 3


def test_layer_windows(model_config):
    assert layer_windows(model_config(num_layers=5, window=7, window_pattern="SSL")) == (7, 7, 0, 7, 7)
    assert layer_windows(model_config(num_layers=3, window=0, window_pattern="SSL")) == (0, 0, 0)
    assert layer_windows(model_config(num_layers=3, window=7, window_pattern="NS")) == (0, 7, 0)
    with pytest.raises(ConfigError, match="window_pattern = 'SX'"):
        layer_windows(model_config(window=7, window_pattern="SX"))


@pytest.mark.parametrize("layers", ["scan", pytest.param("unroll", marks=pytest.mark.exhaustive)])
def test_remat_changes_the_program_but_not_the_gradients(layers, model_config, random_params):
    programs, gradients, saved = {}, {}, {}
    for remat in ("none", "dots", "full"):
        config = model_config(layers=layers, remat=remat, width=32, num_layers=4 if layers == "scan" else 1)
        params = random_params(config)
        loss = lambda params, config=config: Decoder(config).apply({"params": params}, TOKENS).mean()  # noqa: E731
        lowered = jax.jit(jax.grad(loss)).lower(params)
        compiled = lowered.compile()
        programs[remat], gradients[remat] = lowered.as_text(), compiled(params)
        saved[remat] = compiled.memory_analysis().temp_size_in_bytes
    dots = {remat: text.count("dot_general") for remat, text in programs.items()}
    assert dots["dots"] == dots["none"] + 1  # recomputes a layer's attention logits
    assert dots["full"] >= dots["none"] + 7  # and the layer's projections
    if layers == "scan":  # (outside of loops XLA:CPU may merge the recomputation with the forward pass)
        assert saved["none"] > saved["dots"] > saved["full"]
    for remat in ("dots", "full"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradients["none"], gradients[remat]
        )


def test_unknown_remat_is_refused(model_config, random_params):
    config = model_config(remat="some")
    with pytest.raises(ConfigError, match="remat = 'some'"):
        logits_of(config, random_params(config), TOKENS)


def test_bfloat16_computes_low_and_returns_float32(model_config, random_params):
    low = model_config(dtype="bfloat16", layers="scan")
    params = random_params(low)
    hidden, _ = jax.eval_shape(lambda: Decoder(low).apply({"params": params}, TOKENS, method="hidden"))
    assert hidden.dtype == jnp.bfloat16
    actual = logits_of(low, params, TOKENS)
    expected = logits_of(model_config(dtype="float32"), params, TOKENS)
    assert actual.dtype == jnp.float32
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 0.05


def test_hidden_times_head_is_logits(model_config, random_params):
    for tied in (True, False):
        config = model_config(tied_embeddings=tied, logit_softcap=3.0, num_layers=1)
        params = random_params(config)
        raw = logits_of(config, params, TOKENS, method="hidden")[0] @ head_DV(params)
        np.testing.assert_allclose(3 * np.tanh(raw / 3), logits_of(config, params, TOKENS), rtol=1e-4, atol=1e-5)


def test_the_placement_gets_the_residual_stream_after_the_embedding_and_each_block(model_config, random_params):
    config = model_config()
    params = random_params(config)
    seen = []

    class Watching(Placement):
        def residual(self, x_BTD):
            seen.append(x_BTD.shape)
            return x_BTD

    jax.eval_shape(lambda: Decoder(config, Watching()).apply({"params": params}, TOKENS))
    assert seen == [(2, 12, 16)] * 3


def test_learned_positions_refuse_a_longer_sequence(model_config, random_params):
    config = model_config(position="learned", max_positions=8)
    with pytest.raises(ConfigError, match=r"max_positions = 8.*12"):
        Decoder(config).apply({"params": random_params(config)}, TOKENS)


class TestDropout:
    def logits(self, config, params, seed=None):
        if seed is None:
            return logits_of(config, params, TOKENS)
        return logits_of(config, params, TOKENS, dropout_keys_B=row_keys(jax.random.key(seed), 0, len(TOKENS)))

    def test_off_without_keys_and_on_otherwise(self, model_config, random_params):
        config, without = (model_config(dropout=rate, num_layers=1) for rate in (0.5, 0.0))
        params = random_params(config)
        np.testing.assert_array_equal(self.logits(config, params), self.logits(without, params))
        np.testing.assert_array_equal(self.logits(without, params, seed=0), self.logits(without, params))
        first, again, other = (self.logits(config, params, seed) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 0.1
        assert np.abs(first - self.logits(config, params)).max() > 0.1

    def test_scan_equals_unroll(self, model_config, random_params):
        rates = dict(dropout=0.3, attention_dropout=0.3)
        scan, unroll = (model_config(**rates, layers=layers, remat="full") for layers in ("scan", "unroll"))
        params = random_params(scan)
        actual, expected = self.logits(scan, params, 5), self.logits(unroll, params, 5)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("layers", ["scan", "unroll"])
    def test_layers_differ(self, layers, model_config, random_params):
        """Two layers add a constant wherever it is not dropped, so the sum shows where their masks are equal."""
        config = model_config(dropout=0.5, layers=layers, bias="all", position="none", norm="layernorm")
        params = jax.tree.map(np.zeros_like, random_params(config))
        params["layers"]["attention"]["output_bias"] += 0.5  # kept elements arrive doubled
        ends = []

        class Recording(Placement):
            def residual(self, x_BTD):
                jax.debug.callback(lambda x: ends.append(np.asarray(x)), x_BTD, ordered=True)
                return x_BTD

        model, keys_B = Decoder(config, Recording()), row_keys(jax.random.key(0), 0, len(TOKENS))
        jax.block_until_ready(
            jax.jit(lambda: model.apply({"params": params}, TOKENS, dropout_keys_B=keys_B, method="hidden"))()
        )
        jax.effects_barrier()
        first, second = ends[1] - ends[0], ends[2] - ends[1]
        assert set(np.unique(first)) == set(np.unique(second)) == {0.0, 1.0}
        assert 0.3 < (first != second).mean() < 0.7


class TestInitialization:
    def params(self, model_config, **changes):
        config = model_config(num_layers=8, width=64, feedforward_width=128, initialization_std=0.02, **changes)
        return family_of(config).init_params(jax.random.key(0))

    @pytest.mark.parametrize("kind, expected", [("normal", 0.02), ("residual_scaled", 0.005), ("zero", 0.0)])
    def test_output_projections(self, kind, expected, model_config):
        params = self.params(model_config, initialization=kind)
        layers = params["layers"]
        for matrix in (layers["attention"]["output"], layers["feedforward"]["down"]):
            assert float(matrix.std()) == pytest.approx(expected, rel=0.05)
        for matrix in (layers["attention"]["query"], layers["feedforward"]["gate"], params["embedding"]):
            assert float(matrix.std()) == pytest.approx(0.02, rel=0.05)

    def test_embedding_and_head_may_have_their_own_standard_deviations(self, model_config):
        for fields, embedding, head in ((dict(embedding_std=1.0), 1.0, 0.02), (dict(head_std=0.1), 0.02, 0.1)):
            params = self.params(model_config, tied_embeddings=False, **fields)
            assert float(params["embedding"].std()) == pytest.approx(embedding, rel=0.08)
            assert float(params["head"].std()) == pytest.approx(head, rel=0.08)
            assert float(params["layers"]["attention"]["query"].std()) == pytest.approx(0.02, rel=0.05)

    def test_zero_makes_every_block_the_identity_with_scales_of_one(self, model_config):
        config = model_config(initialization="zero", norm="layernorm", bias="all")
        params = family_of(config).init_params(jax.random.key(0))
        x, _ = logits_of(config, params, TOKENS, method="hidden")
        embedded = np.asarray(params["embedding"])[TOKENS]
        normed = (embedded - embedded.mean(-1, keepdims=True)) / np.sqrt(embedded.var(-1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(x, normed, rtol=1e-4, atol=1e-4)
        assert not np.any(params["layers"]["feedforward"]["up_bias"])

    def test_layers_differ_and_are_float32(self, model_config):
        params = self.params(model_config, dtype="bfloat16")
        query = params["layers"]["attention"]["query"]
        assert not np.allclose(query[0], query[1])
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}

    def test_unknown_name_is_refused(self, model_config):
        with pytest.raises(ConfigError, match="initialization = 'xavier'"):
            self.params(model_config, initialization="xavier")


def test_gpt2_small_has_its_published_size():
    model = default().model
    model.update(dict(num_layers=12, width=768, num_heads=12, position="learned", max_positions=1024))
    model.update(dict(norm="layernorm", feedforward="gelu", bias="all", tied_embeddings=True))
    model = resolve_model(model, platform="cpu", vocab_size=50257, sequence_length=1024)
    assert count_parameters(family_of(model).declarations).total == 124_439_808
