"""Programs are named beside an export if they compute its function. tests/parity runs vLLM and mlx-lm."""

import pytest
from huggingface_models import MODELS
from loader_models import CASES
from random_models import make_model

from gptjax.interop.huggingface.families import FAMILIES
from gptjax.interop.huggingface.programs import MLX, VLLM, loading


@pytest.mark.parametrize("name", CASES)
def test_a_program_is_named_if_it_computes_the_same_function(name):
    family, settings, mlx, vllm = CASES[name]
    _, config = make_model(**settings)
    assert FAMILIES[family].obstacles(config.model) == {}
    named = {line.partition(": ")[0] for line in loading(FAMILIES[family], config.model, "x")}
    assert ("MLX" in named, "vLLM" in named) == (mlx, vllm)


def test_a_window_for_some_layers_of_qwen_is_said_so_that_vllm_refuses_it():
    """vllm/model_executor/models/qwen2.py asks that max_window_layers be the number of layers if layer_types differ."""
    _, config = make_model(**CASES["qwen2 with some windows"][1])
    assert FAMILIES["qwen2"].write(config.model)["max_window_layers"] == 1


def test_every_family_of_decoders_is_looked_up():
    decoders = {name for name, family in FAMILIES.items() if family.ours == "decoder"}
    without = {"mpt", "glm4_moe", "gpt_oss"}  # vLLM 0.28 dropped MPT; its code for the others has not been compared
    assert VLLM.keys() == decoders - without
    assert MLX.keys() <= decoders
    assert {family for family, *_ in CASES.values()} >= MLX.keys()
    assert all(not loading(FAMILIES[name], make_model(**MODELS[name])[1].model, "x")[1:] for name in ("mpt", "marian"))
