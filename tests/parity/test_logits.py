"""Logits of small random models of many families, compared with transformers' own code in float64 and float32."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers_families import FAMILIES, D, L, T, V, family_named_by, phi3_128k, state_of, torch, transformers

from gptjax.config import default
from gptjax.config.user_code import load_config
from gptjax.interop.huggingface.equivalence import differences_of
from gptjax.model.families import family_named, family_of
from gptjax.model.parameters import count_parameters

SOURCE_LENGTHS = (24, 17)  # of encoder–decoders; the second one is padded


class StandIn:
    """A module with some of its names replaced."""

    def __init__(self, module, **others):
        self.__dict__.update(others, _module=module)

    def __getattr__(self, name):
        return getattr(self._module, name)


@pytest.fixture
def without_float32(monkeypatch):
    """Uses float64 where both models round to float32 on purpose: norms, rotations, softmax, logits.

    The models' modules name the type; here that name is bound to the wider type."""

    def double(dtype):
        return jnp.dtype("float64" if dtype == "float32" else dtype)

    ours = [module for name, module in sys.modules.items() if name.startswith("gptjax.model.")]
    for module in ours:
        for name, others in (("jnp", dict(float32=jnp.float64, dtype=double)), ("np", dict(float32=np.float64))):
            if name in vars(module):
                monkeypatch.setattr(module, name, StandIn(getattr(module, name), **others))
    for family in FAMILIES:
        family()  # transformers imports each on first use
    theirs = [
        module
        for name, module in sys.modules.items()
        if name.startswith("transformers.")
        and name.rpartition(".")[2].startswith("modeling_")
        and "torch" in vars(module)
    ]
    for module in theirs:
        monkeypatch.setattr(module, "torch", StandIn(torch, float32=torch.float64, float=torch.float64))
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)  # the type of numbers that become tensors, such as Gemma's embedding scale
    yield
    torch.set_default_dtype(torch.float32)


def settings_of(family):
    """Our settings for a family's config, as the family's function states them."""
    _, _, ours = family()
    section = default().model
    section.update(dict(num_layers=L, width=D, num_heads=4, max_positions=64) | ours)
    return family_named(section.family).resolve(section, platform="cpu", vocab_size=V, sequence_length=T)


def largest_difference(family, backend, random_params, dtype):
    """The difference of our logits in `dtype` from transformers' in float64, as a share of the largest logit."""
    kind, theirs, _ = family()
    config = dataclasses.replace(settings_of(family), attention=backend)
    params = random_params(config)
    theirs._attn_implementation = theirs._experts_implementation = "eager"  # it computes in float64, too
    model = kind(theirs).to(torch.float64).eval()
    exact = jax.tree.map(lambda array: array.astype(np.float64), params)
    state = state_of(family_named_by(theirs).name, config, exact)
    if kind is transformers.MarianMTModel:  # its own table of sines is rounded to float32
        angles = np.arange(64)[:, None] / 10_000.0 ** (np.arange(0, D, 2) / D)
        sines = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        state |= {f"model.{side}.embed_positions.weight": sines for side in ("encoder", "decoder")}
    given = {name: torch.tensor(array, dtype=torch.float64) for name, array in state.items()}
    missing, unexpected = model.load_state_dict(given, strict=False)
    tied = set(model.all_tied_weights_keys)
    assert not unexpected and set(missing) <= tied
    model.tie_weights()

    tokens, sources = (np.random.default_rng(seed).integers(0, V, (2, T)) for seed in (1, 2))
    streams = [tokens]
    inputs = dict(input_ids=torch.tensor(tokens))
    if config.family == "encoder_decoder":
        sources = sources[:, : max(SOURCE_LENGTHS)]
        streams = [sources, tokens, np.array(SOURCE_LENGTHS)]
        mask = torch.tensor(np.arange(sources.shape[1]) < np.array(SOURCE_LENGTHS)[:, None]).long()
        inputs = dict(input_ids=torch.tensor(sources), attention_mask=mask, decoder_input_ids=torch.tensor(tokens))
    with torch.no_grad():
        expected = model(**inputs).logits.numpy()
    config = dataclasses.replace(config, dtype=dtype)
    params = jax.tree.map(lambda array: array.astype(dtype), params)
    actual = jax.jit(lambda params: family_of(config).module().apply({"params": params}, *streams))(params)
    assert actual.dtype == dtype and expected.dtype == np.float64
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("family", [each for each in FAMILIES if each is not phi3_128k])
def test_our_settings_are_read_from_a_config_and_written_to_it(family):
    _, theirs, _ = family()
    row, stated = family_named_by(theirs), settings_of(family)
    found, _ = row.read(theirs.to_dict())
    assert differences_of(found, stated) == {}
    assert row.obstacles(stated) == {}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", ["reference", "xla"])
def test_the_model_computes_the_same_function_as_transformers(family, backend, random_params, without_float32):
    """If one function is computed in two ways in float64, with sums of at most 61 terms, only the last digits (2e-16)
    may differ, and three layers multiply that by less than a thousand.
    """
    with jax.enable_x64(True):
        assert largest_difference(family, backend, random_params, "float64") < 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_logits_differ_only_by_rounding(family, random_params):
    """Training computes in float32: at worst 64 roundings (6e-8 of a number) in a row.

    PyTorch's own float32 is as far from its float64: 0.7e-6 to 1.3e-6 of the largest logit here, ours 0.7e-6 to 2.5e-6.
    """
    assert largest_difference(family, "xla", random_params, "float32") < 64 * 2**-24


@pytest.mark.parametrize("size", ["base", "big"])
def test_the_original_transformer_has_as_many_parameters_as_pytorchs(size):
    """PyTorch's has no embeddings, and a norm after each stack."""
    section = load_config(f"configs/transformer.py:{size}").model
    config = family_named(section.family).resolve(section, platform="cpu", vocab_size=0, sequence_length=T)
    D = config.width
    with torch.device("meta"):
        theirs = torch.nn.Transformer(D, config.num_heads, 6, 6, config.feedforward_width)
    expected = sum(parameter.numel() for parameter in theirs.parameters()) - 2 * 2 * D + config.vocab_size * D
    assert count_parameters(family_of(config).declarations).total == expected


@pytest.mark.parametrize("size", ["2b-2b", "9b-9b"])
def test_t5gemma_has_as_many_parameters_as_transformers(size):
    section = load_config(f"configs/t5gemma.py:{size}").model
    config = family_named(section.family).resolve(section, platform="cpu", vocab_size=0, sequence_length=T)
    stack = dict(
        hidden_size=config.width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_width,
        intermediate_size=config.feedforward_width,
    )
    stacks = {name: transformers.T5GemmaModuleConfig(**stack) for name in ("encoder", "decoder")}
    with torch.device("meta"):
        theirs = transformers.T5GemmaForConditionalGeneration(transformers.T5GemmaConfig(**stacks))
    assert count_parameters(family_of(config).declarations).total == theirs.num_parameters()


@pytest.mark.parametrize("name", ["glm4.5_air", "glm4.5"])
def test_glm_has_as_many_parameters_as_transformers(name):
    section = load_config(f"configs/moe.py:{name}").model
    config = family_named(section.family).resolve(section, platform="cpu", vocab_size=0, sequence_length=T)
    theirs = transformers.Glm4MoeConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_width,
        attention_bias=config.bias == "qkv",
        use_qk_norm=config.qk_norm,
        intermediate_size=config.first_dense_width,
        first_k_dense_replace=config.first_dense_layers,
        moe_intermediate_size=config.feedforward_width,
        n_routed_experts=config.num_experts,
        num_mtp_layers=0,
    )
    with torch.device("meta"):
        model = transformers.Glm4MoeForCausalLM(theirs)
    biases = sum(each.numel() for name, each in model.named_buffers() if name.endswith("e_score_correction_bias"))
    assert count_parameters(family_of(config).declarations).total == model.num_parameters() + biases
