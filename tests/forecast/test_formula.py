"""The formula against steps compiled for H200s (experiments/memory/savings.csv); tests/experiments/plan has others."""

import csv
from pathlib import Path

import pytest

from gptjax.config.user_code import load_config
from gptjax.data.facts import DataFacts
from gptjax.forecast.formula import formula_needs
from gptjax.parallel.mesh import AbstractDevices
from gptjax.planning import plan

ROOT = Path(__file__).parents[2]
with open(ROOT / "experiments" / "memory" / "savings.csv", newline="") as file:
    COMPILED = {(row["model"], row["saving"]): row for row in csv.DictReader(file)}
ALONE = {"mesh.data": 1}
LONG = {"mesh.data": 1, "mesh.fsdp": 8, "data.sequence_length": 4096}
MODELS = {
    "124M, 1 GPU": ("gpt2.py:124m", 1, 64, ALONE),
    "1B, 8 GPUs": ("llama.py:1b", 8, 64, LONG),
    "8B, 8 GPUs": ("llama.py:8b", 8, 16, LONG),
}


@pytest.mark.parametrize(
    ("model", "saving", "fields"),
    [
        ("124M, 1 GPU", "nothing", {}),
        ("124M, 1 GPU", "remat dots", {"model.remat": "dots"}),
        ("1B, 8 GPUs", "nothing", {}),
        ("1B, 8 GPUs", "loss in chunks", {"training.loss_chunk": 8192}),
        ("8B, 8 GPUs", "remat full", {"model.remat": "full"}),
        ("8B, 8 GPUs", "remat offload_inputs", {"model.remat": "offload_inputs"}),
        ("8B, 8 GPUs", "2 micro-batches", {"training.gradient_accumulation_steps": 2}),
    ],
)
def test_memory_products_and_sending_are_near_those_of_the_compiled_step(model, saving, fields):
    name, count, rows, shape = MODELS[model]
    config, row = load_config(f"{ROOT / 'configs' / name}"), COMPILED[model, saving]
    plain = {"training.loss_chunk": 0, "model.remat": "none", "model.layers": "scan"}
    step = {"training.batch_size": rows, "training.gradient_accumulation_steps": 1}
    config.update_from_flattened_dict(plain | step | shape | fields)
    made = plan(config, DataFacts(config.model.vocab_size), AbstractDevices("gpu", count, "NVIDIA H200"))
    needs = formula_needs(made)
    compiled = float(row["state"]) + float(row["work"])
    assert needs.memory.total / 2**30 == pytest.approx(compiled, rel=0.05)
    assert needs.memory.host / 2**30 == pytest.approx(float(row["host"]), abs=0.01)
    flops = sum(kernel.flops * kernel.times for kernel in needs.kernels if kernel.kind == "product")
    assert flops / 1e12 == pytest.approx(float(row["tflops"]), rel=0.01)
    sent = sum(each.times * each.bytes_sent() for each in needs.collectives)
    assert sent / 2**30 == pytest.approx(float(row["sent"]), rel=0.10)
