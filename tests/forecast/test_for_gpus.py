"""Steps compiled for GPUs that this machine lacks (make aot), and the needs read from them."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

pytest.importorskip("jax_cuda12_plugin")

from gptjax.config import default
from gptjax.data.facts import DataFacts
from gptjax.forecast.devices import find_place
from gptjax.forecast.formula import formula_needs
from gptjax.forecast.hardware import DEVICES, parse_hardware
from gptjax.forecast.liveness import live_at_peak
from gptjax.forecast.program import parse_program
from gptjax.forecast.step import read_needs
from gptjax.planning import plan

pytestmark = pytest.mark.aot
REPOSITORY = Path(__file__).parents[2]
SMALL = {"model.width": 256, "model.num_heads": 4, "model.vocab_size": 8192, "data.sequence_length": 512}
GPUS = [device.name for device in DEVICES if device.target]


def compiled_for(hardware, fields):
    name, count = parse_hardware(hardware)
    place, config = find_place(name, count), default()
    config.update_from_flattened_dict(SMALL | {"training.batch_size": 16} | fields)
    made = plan(config, DataFacts(8192), place.devices)
    with jax.set_mesh(made.mesh):
        return made, made.trainer.compile_train_step(made.abstract_batch)


@pytest.mark.parametrize("name", GPUS)
def test_a_step_compiles_for_each_gpu_of_the_table(name):
    made, compiled = compiled_for(name, {"model.num_layers": 1})
    needs = read_needs(made, compiled)
    assert made.config.model.attention == "cudnn" and "__cudnn$fmha" in compiled.as_text()
    assert sum(kernel.times for kernel in needs.kernels if kernel.kind == "attention") == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"mesh.data": 1, "mesh.fsdp": 8},
        {"mesh.data": 8, "model.layers": "scan", "model.remat": "dots"},
        {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2, "training.gradient_accumulation_steps": 2},
        {"mesh.data": 1, "mesh.fsdp": 8, "training.loss_chunk": 256, "model.remat": "full"},
    ],
    ids=lambda fields: ", ".join(f"{field}={value}" for field, value in fields.items()),
)
def test_the_live_arrays_take_the_memory_that_the_compiler_reserves(fields):
    """Within 5 %, since the compiler also pads what it places; and the formula's products within 3 %."""
    made, compiled = compiled_for("8xH200", fields | {"model.num_layers": 4})
    found = sum(each.array.bytes for each in live_at_peak(parse_program(compiled.as_text())))
    assert found == pytest.approx(compiled.memory_analysis().temp_size_in_bytes, rel=0.05)
    needs, formula = read_needs(made, compiled), formula_needs(made)
    products = [
        sum(kernel.flops * kernel.times for kernel in each.kernels if kernel.kind == "product")
        for each in (needs, formula)
    ]
    assert products[1] == pytest.approx(products[0], rel=0.03)
    assert {each.kind for each in needs.collectives}


def test_the_command_writes_nothing_about_a_missing_driver():
    small = [f"--config.{field}={value}" for field, value in (SMALL | {"model.num_layers": 1}).items()]
    command = [sys.executable, "-m", "gptjax.plan", "--config=configs/gpt2.py:124m", "--hardware=H100", *small]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr and "by formula" not in done.stdout
