"""A mixture of experts: its output, the independence of tokens, its statistics, its counts and what it refuses."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import FORWARD, TOKENIZER, greedy_reference, make_model
from reporting_blocks import Reporting

from gptjax.config import ConfigError, default
from gptjax.config.user_code import load_config
from gptjax.inference.generate import Generator
from gptjax.model.checks import check_experts
from gptjax.model.decoder import Decoder
from gptjax.model.families import family_named, family_of
from gptjax.model.grouped_products import blocks_of, grouped_product
from gptjax.model.int8 import quantize
from gptjax.model.mixture_of_experts import mixture, route
from gptjax.model.parameters import count_parameters
from gptjax.settings import ModelSettings


@pytest.mark.parametrize("load", ["even", "one expert has all", "some of another device"])
@pytest.mark.parametrize("products", ["loop", "gathered", "ragged"])
def test_each_row_is_multiplied_with_the_matrix_of_its_expert(products, load):
    R, E, inner, outer = 50, 3, 5, 4
    rng = np.random.default_rng(0)
    expert_R = {"even": rng.integers(0, E, R), "one expert has all": np.full(R, 1)}.get(load, rng.integers(0, E + 1, R))
    x_RI, weight_EIO, cotangent_RO = (rng.standard_normal(s) for s in ((R, inner), (E, inner, outer), (R, outer)))
    is_mine_R1 = (expert_R < E)[:, None]

    def grouped(x_RI, weight_EIO):
        blocks = blocks_of(jnp.asarray(expert_R), E)
        x_SI = x_RI.at[blocks.rows_S].get(mode="fill", fill_value=0)
        y_SO = grouped_product(x_SI, weight_EIO, blocks, products)
        return (y_SO.at[blocks.slots_R].get(mode="fill", fill_value=0) * cotangent_RO).sum()

    def plain(x_RI, weight_EIO):
        y_RO = jnp.einsum("ri,rio->ro", x_RI, weight_EIO[np.minimum(expert_R, E - 1)])
        return (y_RO * is_mine_R1 * cotangent_RO).sum()

    arguments = jnp.float32(x_RI), jnp.float32(weight_EIO)
    made = jax.jit(jax.value_and_grad(grouped, (0, 1)))(*arguments)
    expected = jax.value_and_grad(plain, (0, 1))(*arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), made, expected)


@pytest.mark.parametrize("products", ["loop", "gathered"])
def test_8_bit_experts_are_multiplied_as_the_numbers_that_they_represent(products):
    rng = np.random.default_rng(0)
    weight_EIO = quantize(jnp.float32(rng.standard_normal((3, 8, 4))), (-2,))
    blocks = blocks_of(jnp.asarray(rng.integers(0, 3, 40)), 3)
    x_SI = jnp.float32(rng.standard_normal((blocks.rows_S.shape[0], 8)))
    made = grouped_product(x_SI, weight_EIO, blocks, products)
    expected = grouped_product(x_SI, weight_EIO.values * weight_EIO.scale, blocks, products)
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)


EXPERTS = dict(num_experts=6, feedforward_width=16, router_scores="sigmoid", router_bias=True, shared_experts=1)


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
@pytest.mark.parametrize("normalized, scale, bias", [(False, 1.0, False), (True, 2.5, False), (True, 2.5, True)])
def test_tokens_choose_by_score_plus_bias_and_weight_by_score(scores, normalized, scale, bias):
    rng = np.random.default_rng(0)
    x_BTD, router_DE, bias_E = (np.float32(rng.standard_normal(shape)) for shape in ((2, 5, 8), (8, 6), 6))
    fields = dict(num_experts=6, experts_per_token=2, router_scores=scores, router_normalized=normalized)
    config = ModelSettings(**fields, router_scale=scale, router_bias=bias)
    weights = {"router": router_DE} | ({"router_bias": bias_E} if bias else {})
    chosen_BTk, share_BTk, _ = route(config, jnp.asarray(x_BTD), jnp.ones((2, 5), bool), weights)

    logits_BTE = np.float64(x_BTD) @ router_DE
    scores_BTE = 1 / (1 + np.exp(-logits_BTE))
    if scores == "softmax":
        scores_BTE = np.exp(logits_BTE) / np.exp(logits_BTE).sum(-1, keepdims=True)
    expected_BTk = np.argsort(-(scores_BTE + bias_E * bias), axis=-1)[..., :2]
    shares_BTk = np.take_along_axis(scores_BTE, expected_BTk, axis=-1)
    if normalized:
        shares_BTk /= shares_BTk.sum(-1, keepdims=True)
    np.testing.assert_array_equal(chosen_BTk, expected_BTk)
    np.testing.assert_allclose(share_BTk, shares_BTk * scale, rtol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 1.25])
@pytest.mark.parametrize("products", ["loop", "gathered"])
def test_an_expert_takes_the_earliest_tokens_of_a_row_up_to_its_capacity(factor, products):
    B, T, D, E, k = 3, 14, 8, 4, 2
    rng = np.random.default_rng(0)
    config = ModelSettings(
        num_experts=E, experts_per_token=k, expert_capacity=factor, feedforward="relu", expert_products=products
    )
    x_BTD = np.float32(rng.standard_normal((B, T, D)) + 0.5)
    weights = {"router": rng.standard_normal((D, E)), "up": rng.standard_normal((E, D, 5))}
    weights = {name: np.float32(each) for name, each in (weights | {"down": rng.standard_normal((E, 5, D))}).items()}
    weights["router"][:, 1] += 1  # most choose the second expert, where the sum of x is positive
    real_BT = np.ones((B, T), bool)
    real_BT[1, 3:6] = False
    made_BTD, statistics = jax.jit(lambda *args: mixture(config, *args))(x_BTD, real_BT, weights)

    chosen_BTk, share_BTk, of_all = route(config, jnp.asarray(x_BTD), jnp.asarray(real_BT), weights)
    room, drops_B, expected_BTD = math.ceil(factor * T * k / E), np.zeros(B), np.zeros((B, T, D))
    for b in range(B):
        taken = np.zeros(E, int)
        for t in range(T):
            for expert, share in zip(np.asarray(chosen_BTk)[b, t] * real_BT[b, t], np.asarray(share_BTk)[b, t]):
                if real_BT[b, t] and taken[expert] < room:
                    hidden = np.maximum(x_BTD[b, t] @ weights["up"][expert], 0)
                    expected_BTD[b, t] += share * (hidden @ weights["down"][expert])
                    taken[expert] += 1
                elif real_BT[b, t]:
                    drops_B[b] += 1
    assert drops_B.any()
    np.testing.assert_allclose(made_BTD, expected_BTD, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(statistics["expert_drops"], drops_B)
    np.testing.assert_array_equal(statistics["expert_tokens"], of_all["expert_tokens"])  # including dropped choices


def test_a_sufficient_capacity_drops_nothing_and_no_token_depends_on_later_ones():
    params, config = make_model(**EXPERTS, experts_per_token=2)
    tokens, other = (np.random.default_rng(seed).integers(0, 60, (2, 12)) for seed in (0, 1))
    other[:, :7] = tokens[:, :7]

    def logits(capacity, tokens):
        model = dataclasses.replace(config.model, expert_capacity=capacity)
        return FORWARD(model, params, tokens)

    np.testing.assert_allclose(logits(3.0, tokens), logits(0.0, tokens), rtol=1e-4, atol=1e-4)
    assert not np.allclose(logits(1.0, tokens), logits(0.0, tokens), atol=1e-3)
    np.testing.assert_allclose(logits(1.0, tokens)[:, :7], logits(1.0, other)[:, :7], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("capacity", [0.0, 1.0])
def test_generation_token_by_token_equals_whole_forward_passes(capacity):
    """Whole passes without a capacity, since nothing is dropped during generation."""
    params, config = make_model(**EXPERTS)
    without = config
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, expert_capacity=capacity))
    prompt = TOKENIZER.encode("experts ")
    prompts = [prompt, prompt[:3]]
    made = Generator(params, config, TOKENIZER).generate(prompts, max_new_tokens=8, temperature=0.0)
    for completion, start in zip(made, prompts, strict=True):
        expected = greedy_reference(params, without, start, 8)
        assert len(completion.tokens) > 0 and list(completion.tokens) == expected[: len(completion.tokens)]


def test_experts_generate_with_8_bit_weights():
    params, config = make_model(**EXPERTS)
    (made,) = Generator(params, config, TOKENIZER, weights="int8").generate(["ex"], max_new_tokens=4, temperature=0.0)
    (exact,) = Generator(params, config, TOKENIZER).generate(["ex"], max_new_tokens=4, temperature=0.0)
    np.testing.assert_allclose(made.logprobs[0], exact.logprobs[0], atol=0.3)


def test_statistics_leave_out_padding_and_count_every_choice():
    params, config = make_model(**EXPERTS)
    tokens, segments = np.random.default_rng(0).integers(0, 60, (2, 12)), np.ones((2, 12), np.int32)
    segments[1, 7:] = 0
    hidden = jax.jit(functools.partial(family_of(config.model).module().apply, method="hidden"))
    _, statistics = hidden({"params": params}, tokens, segments)
    np.testing.assert_allclose(statistics["router_tokens"], [[12, 7]] * 2)
    np.testing.assert_allclose(statistics["expert_tokens"].sum(-1), [[24, 14]] * 2)
    np.testing.assert_allclose(statistics["router_probability"].sum(-1), [[12, 7]] * 2, rtol=1e-5)


@pytest.mark.parametrize(
    "name, total, active",
    [
        ("olmoe", 6_919_161_856, 1_282_017_280),
        ("qwen3_30b_a3b", 30_532_122_624, 3_353_032_704),
        ("glm4.5_air", 106_852_251_264, 13_424_129_664),
        ("glm4.5", 352_797_829_024, 33_632_266_144),
    ],
)
def test_published_configs_have_the_published_numbers_of_parameters(name, total, active):
    """Compared with transformers' modules of the published configs: all parameters, and those that a token uses."""
    section = load_config(f"configs/moe.py:{name}").model
    config = family_named("decoder").resolve(section, platform="cpu", vocab_size=0, sequence_length=16)
    counts = count_parameters(family_of(config).declarations)
    assert (counts.total, counts.active) == (total, active)
    assert counts.multiplied == active - config.vocab_size * config.width  # the embedding is looked up


@pytest.mark.parametrize(
    "field, value, others",
    [
        ("experts_per_token", 5, dict(num_experts=4)),
        ("shared_experts", 1, {}),
        ("router_bias", True, {}),
        ("expert_capacity", 2.0, {}),
        ("expert_capacity", 0.5, dict(num_experts=4)),
        ("bias", "all", dict(num_experts=4)),
        ("first_dense_layers", 1, {}),
        ("first_dense_layers", 3, dict(num_experts=4, num_layers=3)),
        ("first_dense_layers", 2, dict(num_experts=4, num_layers=3, num_encoder_layers=2)),
        ("first_dense_width", 16, dict(num_experts=4)),
    ],
)
def test_fields_that_contradict_each_other_are_refused_by_name(field, value, others):
    section = default().model
    section.update(others | {field: value})
    with pytest.raises(ConfigError, match=rf"model\.{field} = {value!r}"):
        check_experts(section)


def test_one_expert_that_all_tokens_choose_is_a_dense_layer():
    params, config = make_model(num_experts=1, experts_per_token=1, feedforward_width=16)
    dense = dataclasses.replace(config.model, num_experts=0)
    layer = params["layers"]["feedforward"]
    same = {name: layer[name][:, 0] for name in ("gate", "up", "down")}
    of_dense = params | {"layers": params["layers"] | {"feedforward": same}}
    tokens = np.random.default_rng(0).integers(0, 60, (2, 12))
    made = FORWARD(config.model, params, tokens)
    np.testing.assert_allclose(made, FORWARD(dense, of_dense, tokens), rtol=1e-4, atol=1e-4)


def test_first_dense_layers_are_layers_of_a_dense_model():
    """With one expert, which all choose: three dense layers, whose parameters are in two stacks."""
    params, config = make_model(num_layers=3, feedforward_width=16, window=3, window_pattern="SL", layers="scan")
    experts = dict(num_experts=1, experts_per_token=1, first_dense_layers=1, first_dense_width=16)
    of_experts = jax.tree.map(lambda x: x[1:], params["layers"])
    of_experts["feedforward"] = {name: x[:, None] for name, x in of_experts["feedforward"].items()}
    of_experts["feedforward"]["router"] = np.zeros((2, config.model.width, 1), np.float32)
    in_two = params | {"first_layers": jax.tree.map(lambda x: x[:1], params["layers"]), "layers": of_experts}
    tokens = np.random.default_rng(0).integers(0, 60, (2, 12))

    def hidden(settings, params):
        return jax.jit(
            lambda params: Decoder(settings, block=Reporting).apply({"params": params}, tokens, method="hidden")
        )(params)

    x_BTD, statistics = hidden(config.model, params)
    made_BTD, reported = hidden(dataclasses.replace(config.model, **experts), in_two)
    np.testing.assert_allclose(made_BTD, x_BTD, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(reported["energy"], statistics["energy"], rtol=1e-4)  # [3, B]
    assert reported["router_tokens"].tolist() == [[12.0, 12.0]] * 2  # only layers with experts have routers
