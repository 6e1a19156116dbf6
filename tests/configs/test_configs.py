"""Every config file loads, is valid, builds a model, and has the published number of parameters."""

import dataclasses
import functools
import math
from pathlib import Path

import jax
import pytest

from gptjax.config import ConfigError, Units, to_json, validate
from gptjax.config.user_code import load_config
from gptjax.model.families import family_named, family_of, validate_model
from gptjax.model.parameters import abstract_params, count_parameters
from gptjax.parallel.mesh import AXES, make_mesh
from gptjax.parallel.sharding import params_sharding
from gptjax.settings import freeze
from gptjax.training.optimizers.schedule import make_schedule
from gptjax.training.optimizers.treatments import summarize, treatments_of

CONFIGS = Path(__file__).parents[2] / "configs"

# Published counts. GPT-2: OpenAI's checkpoints; Pythia: its paper's table; the others: their model cards' safetensors
# (of Gemma 3 from 4b on without the vision tower and its projection).
PARAMETERS = {
    "gpt2:124m": 124_439_808,
    "gpt2:350m": 354_823_168,
    "gpt2:774m": 774_030_080,
    "gpt2:1558m": 1_557_611_200,
    "llama:135m": 134_515_008,
    "llama:1b": 1_235_814_400,
    "llama:3b": 3_212_749_824,
    "llama:8b": 8_030_261_248,
    "qwen3:0.6b": 596_049_920,
    "qwen3:1.7b": 1_720_574_976,
    "moe:olmoe": 6_919_161_856,
    "moe:glm4.5_air": 110_468_824_832 - 3_616_573_568,  # without the layer that predicts a second token
    "gemma:2-2b": 2_614_341_888,
    "gemma:3-270m": 268_098_176,
    "gemma:3-4b": 3_880_263_168,
    "olmo2:1b": 1_484_916_736,
    "pythia:70m": 70_426_624,
    "smollm3": 3_075_098_624,
    # 37,000 rows, and PyTorch's nn.Transformer without its two final norms (compared in tests/parity)
    "transformer:base": 37_000 * 512 + 44_140_544 - 4 * 512,
    "t5gemma:2b-2b": 5_596_853_760,
}
LARGER = {  # only the parameter counts of these are tested, since they differ only in size
    "llama:70b": 70_553_706_496,
    "moe:qwen3_30b_a3b": 30_532_122_624,
    "moe:glm4.5": 358_337_791_296 - 5_539_962_272,
    "gemma:2-9b": 9_241_705_984,
    "gemma:2-27b": 27_227_128_320,
    "gemma:3-1b": 999_885_952,
    "gemma:3-12b": 11_766_034_176,
    "gemma:3-27b": 27_009_346_304,
    "transformer:big": 37_000 * 1024 + 176_357_376,
    "t5gemma:9b-9b": 20_333_401_088,
    "olmo2:7b": 7_298_617_344,
    "olmo2:13b": 13_716_198_400,
    "olmo2:32b": 32_234_279_936,
    "pythia:160m": 162_322_944,
    "pythia:410m": 405_334_016,
    "pythia:1b": 1_011_781_632,
    "pythia:1.4b": 1_414_647_808,
    "pythia:2.8b": 2_775_208_960,
    "pythia:6.9b": 6_857_302_016,
    "pythia:12b": 11_846_072_320,
}
OTHERS = [
    "moe:tiny",
    "stdlib_tiny",
    "text_tiny",
    *(f"shakespeare_char:{setting}" for setting in ("cpu", "cpu_same_steps", "cpu_same_time", "gpu")),
    *(
        f"{name}:{setting}"
        for name in ("translation", "summarization")
        for setting in ("encoder-decoder", "decoder", "tiny", "tiny-decoder")
    ),
    *(f"depth:{n}" for n in (1, 2, 4, 6, 12, 20)),
    "instructions",
    "encoder:pretrain",
    "encoder:pretrain_decoder",
]


def load(name: str):
    file, _, arg = name.partition(":")
    return load_config(f"{CONFIGS / file}.py" + (f":{arg}" if arg else ""))


@functools.cache
def resolved(name: str, platform: str = "cpu"):
    config = load(name)
    family = family_named(config.model.family)
    return family.resolve(config.model, platform=platform, vocab_size=2048, sequence_length=config.data.sequence_length)


@pytest.mark.parametrize("name", [*PARAMETERS, *OTHERS])
def test_every_schedule_fits_a_run_of_twenty_steps(name):
    config = load(name)
    config.training.duration = "20 steps"
    units = Units(config.training.batch_size * config.data.sequence_length, total_steps=20)
    make_schedule(config.schedule, config.optimizer.learning_rate, 20, functools.partial(units.steps, field="schedule"))


@pytest.mark.parametrize("name", [*PARAMETERS, *OTHERS])
def test_a_config_is_valid_and_builds(name):
    config = load(name)
    validate(config)
    validate_model(config)
    config.model.layers = "scan"  # so that each kind of layer is traced once
    sizes = dict(vocab_size=2048, sequence_length=config.data.sequence_length)
    model = family_named(config.model.family).resolve(config.model, platform="cpu", **sizes)
    shapes = abstract_params(family_of(model).declarations)
    tokens = jax.ShapeDtypeStruct((2, 16), "int32")
    streams = [tokens] * (1 + (model.family == "encoder_decoder"))
    logits = jax.eval_shape(
        lambda params, *streams: family_of(model).module().apply({"params": params}, *streams), shapes, *streams
    )
    assert logits.shape == (2, 16, model.vocab_size)


@pytest.mark.parametrize("sizes", [dict(fsdp=8), dict(fsdp=2, tensor=2, data=2)], ids=str)
@pytest.mark.parametrize("name", [*PARAMETERS, *OTHERS])
def test_every_parameter_is_split_evenly(name, sizes):
    """Each of eight devices holds an equal part of each matrix; a mesh that would split a pair of heads is refused."""
    model, mesh = resolved(name), make_mesh(dict.fromkeys(AXES, 1) | sizes)
    if model.num_kv_heads % mesh.shape["tensor"]:
        with pytest.raises(ConfigError, match=r"mesh\.tensor = 2"):
            params_sharding(mesh, family_of(model).declarations)
        return
    shardings = jax.tree.leaves(params_sharding(mesh, family_of(model).declarations))
    for parameter, sharding in zip(jax.tree.leaves(family_of(model).declarations), shardings, strict=True):
        ways = 1 if parameter.kind == "vector" else sizes["fsdp"] * sizes.get("tensor", 1)
        if "router" in parameter.outputs:  # small arrays, which are replicated over `tensor`
            ways = sizes["fsdp"]
        held = math.prod(sharding.shard_shape(parameter.shape))
        assert held * ways == parameter.size or (parameter.kind == "vector" and held <= parameter.size)


@pytest.mark.parametrize("name", PARAMETERS | LARGER)
def test_published_shapes_have_the_published_number_of_parameters(name):
    assert count_parameters(family_of(resolved(name)).declarations).total == (PARAMETERS | LARGER)[name]


@pytest.mark.parametrize("base, rows", [("encoder:pretrain", "mean"), ("text_tiny", "last")])
def test_a_classifier_has_the_body_of_the_run_that_it_starts_from(tmp_path, base, rows):
    model = resolved(base)
    (tmp_path / "config.json").write_text(to_json(dataclasses.replace(freeze(load(base)), model=model)))
    config = freeze(load(f"classifier:{tmp_path},last_block"))
    validate(config)
    sizes = dict(platform="cpu", vocab_size=2048, sequence_length=config.data.sequence_length)
    made = family_named("classifier").resolve(dataclasses.replace(config.model, num_classes=3), **sizes)
    declared = family_of(made).declarations
    assert abstract_params(declared)["body"] == abstract_params(family_of(model).declarations)
    assert (made.pooling, declared["head"].shape) == (rows, (model.width, 3))
    assert config.training.init_from == str(tmp_path)
    assert {
        path
        for group in summarize(treatments_of(config.optimizer, declared))
        for path in group["paths"]
        if group["method"] != "frozen" and not path.startswith(f"body/layers/{model.num_layers - 1}/")
    } == {"head", "head_bias", "body/final_norm/scale"}
    with pytest.raises(ConfigError, match=r"training.init_from = .*there is no such folder"):
        load(f"classifier:{tmp_path}/none")


def test_preferences_have_the_model_of_the_run_that_they_start_from(tmp_path):
    model = resolved("text_tiny")
    (tmp_path / "config.json").write_text(to_json(dataclasses.replace(freeze(load("text_tiny")), model=model)))
    config = freeze(load(f"preferences:{tmp_path}"))
    validate(config)
    sizes = dict(platform="cpu", vocab_size=2048, sequence_length=config.data.sequence_length)
    made = family_named(config.model.family).resolve(config.model, **sizes)
    assert abstract_params(family_of(made).declarations) == abstract_params(family_of(model).declarations)
    assert (config.training.objective, config.training.init_from) == ("preference", str(tmp_path))
    assert config.data.sequence_length == model.max_positions == 128
    with pytest.raises(ConfigError, match="the folder of the base run"):
        load("preferences")


def test_every_config_file_is_tested():
    tested = {name.partition(":")[0] for name in [*PARAMETERS, *OTHERS]} | {"classifier", "preferences"}
    assert tested == {file.stem for file in CONFIGS.glob("*.py")}


@pytest.mark.parametrize(
    "name",
    [
        "gpt2:13b",
        "llama:2b",
        "gemma:4-4b",
        "olmo2:3b",
        "pythia:1t",
        "qwen3:8b",
        "transformer:small",
        "t5gemma:3b",
        "depth:zero",
        "depth:0",
        "shakespeare_char:tpu",
        "translation:large",
        "summarization:large",
    ],
)
def test_an_unknown_argument_is_refused_with_the_allowed_ones(name):
    with pytest.raises(ConfigError, match=r"expected (one of|a depth)"):
        load(name)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("gpt2:124M", "124m"), ("llama:8B", "8b"), ("moe:OLMoE", "olmoe"), ("translation:Tiny", "tiny")],
)
def test_an_argument_in_other_letters_is_recognized(typed, meant):
    with pytest.raises(ConfigError, match=rf"expected one of .*; did you mean {meant}\?$"):
        load(typed)


@pytest.mark.parametrize("name", ["gpt2:124m", "llama:8b", "depth:4"])
def test_parameters_of_a_gpu_config_can_be_made_without_a_gpu(name):
    on_gpu, on_cpu = (
        jax.eval_shape(family_of(resolved(name, platform)).init_params, jax.random.key(0))
        for platform in ("gpu", "cpu")
    )
    assert resolved(name, "gpu").attention == "cudnn" and on_gpu == on_cpu


def test_automatic_settings_are_bfloat16_and_cudnn_on_a_gpu():
    model = resolved("gpt2:124m", "gpu")
    assert (model.dtype, model.attention, model.layers) == ("bfloat16", "cudnn", "unroll")
    assert (resolved("gpt2:124m").dtype, resolved("gpt2:124m").attention) == ("float32", "xla")
