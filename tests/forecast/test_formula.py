"""The formula against steps compiled for H200s (experiments/memory/savings.csv); tests/experiments/plan has others."""

import csv
from pathlib import Path

import jax
import pytest
from abstract_runs import planned

from gptjax.config.user_code import load_config
from gptjax.data.facts import DataFacts
from gptjax.forecast.formula import UPDATED, formula_needs
from gptjax.forecast.kernels import Kernel
from gptjax.model.families import family_of
from gptjax.model.flops import product_flops
from gptjax.parallel.mesh import AbstractDevices
from gptjax.planning import plan
from gptjax.training.optimizers.trained import trained_only, untrained

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
        ("124M, 1 GPU", "fp8 products", {"model.matmul": "fp8"}),
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
    assert needs.memory.total / 2**30 == pytest.approx(compiled, rel=0.08 if "model.remat" in fields else 0.05)
    assert needs.memory.host / 2**30 == pytest.approx(float(row["host"]), abs=0.01)
    flops = sum(kernel.flops * kernel.times for kernel in needs.kernels if kernel.kind == "product")
    assert flops / 1e12 == pytest.approx(float(row["tflops"]), rel=0.01)
    sent = sum(each.times * each.bytes_sent() for each in needs.collectives)
    assert sent / 2**30 == pytest.approx(float(row["sent"]), rel=0.10)


LAST_LAYERS = ((".*", "freeze", True), ("layers/(9|10|11)/.*|final_norm/.*|head", "freeze", False))


@pytest.mark.parametrize(
    ("fields", "factor"),
    [
        ({}, 1.0),
        ({"model__lora_rank": 8}, 2 / 3),
        ({"optimizer__rules": LAST_LAYERS, "model__tied_embeddings": False}, 0.61),
        ({"optimizer__rules": LAST_LAYERS, "model__tied_embeddings": False, "model__layers": "scan"}, 1.0),
    ],
)
def test_a_frozen_parameter_costs_what_training_counts_for_it(fields, factor):
    """The products are those of the count of FLOPs per token. A loop over layers computes all of them alike."""
    made, whole = planned(**{"model__layers": "unroll"} | fields), planned(model__tied_embeddings=False)

    def products(plan):
        return sum(each.flops * each.times for each in formula_needs(plan).kernels if each.kind == "product")

    def counted(plan):
        attention = family_of(plan.config.model).flops_per_token(plan.config.data.sequence_length)["causal"]
        attention -= product_flops(plan.trainer.declared)
        below = untrained(plan.trainer.declared, plan.trainer.treatments).layers_below
        return plan.tokens_per_step * (plan.flops_per_token["causal"] - attention * (1 - below * 2 / 3))

    if made.config.model.layers == "unroll":
        assert products(made) == pytest.approx(counted(made), rel=0.02)
    assert products(made) / products(whole) == pytest.approx(factor, rel=0.05)


def test_layers_below_all_that_is_trained_run_forward_only():
    """Nine of twelve: in attention, 2.5 of 3.5 passes are backward, and in kernels without products, two of three."""
    fields = dict(model__layers="unroll", model__tied_embeddings=False)
    frozen, whole = planned(optimizer__rules=LAST_LAYERS, **fields), planned(**fields)

    def work(made, kind, of):
        return sum(of(each) for each in formula_needs(made).kernels if each.kind == kind)

    flops = [work(made, "attention", lambda each: each.flops * each.times) for made in (frozen, whole)]
    assert flops[0] / flops[1] == pytest.approx((3 * 3.5 + 9) / (12 * 3.5), rel=0.01)
    times = [
        max(each.times for each in formula_needs(made).kernels if each.kind == "other") for made in (frozen, whole)
    ]
    assert times[0] / times[1] == pytest.approx((3 * 3 + 9) / (12 * 3))


def test_the_optimizer_moves_what_is_trained_only():
    made = planned(model__lora_rank=8)
    adapters = sum(leaf.size for leaf in jax.tree.leaves(trained_only(made.trainer.declared, made.trainer.treatments)))
    assert Kernel("other", 0.0, False, UPDATED * adapters / 4, 4) in formula_needs(made).kernels
