"""A small step compiled for this machine's CPU: the needs read from it, and their cache."""

import dataclasses
import json
import math

import jax
import pytest

from gptjax.config import ConfigError, default
from gptjax.data.facts import DataFacts
from gptjax.forecast import step
from gptjax.forecast.devices import Place, _processor
from gptjax.forecast.fits import compiled_bytes, refuse_compiled
from gptjax.forecast.memory import PARTS, state_bytes
from gptjax.forecast.product_buffers import product_buffers
from gptjax.forecast.program import parse_program
from gptjax.forecast.run import forecast_run
from gptjax.forecast.step import Needs, compiled_needs, read_needs
from gptjax.parallel.compiled import products_of
from gptjax.planning import CompiledStep, plan
from gptjax.training.trainer import Trainer

ROWS, LENGTH, VOCABULARY = 8, 64, 509


@pytest.fixture(scope="module")
def made():
    config = default()
    config.update_from_flattened_dict(
        {
            **{"model.num_layers": 2, "model.width": 32, "model.num_heads": 2, "model.vocab_size": VOCABULARY},
            **{"data.sequence_length": LENGTH, "training.batch_size": ROWS, "training.duration": "10 steps"},
            **{"evaluation.tokens": 3 * ROWS * LENGTH, "evaluation.every": "5 steps", "mesh.data": 1},
        }
    )
    return plan(config, DataFacts(VOCABULARY), jax.devices()[:1])


@pytest.fixture(scope="module")
def compiled(made):
    with jax.set_mesh(made.mesh):
        return made.trainer.compile_train_step(made.abstract_batch)


@pytest.fixture(scope="module")
def needs(made, compiled):
    return read_needs(made, compiled)


def test_the_total_memory_is_the_compilers_and_its_parts_are_plausible(made, compiled, needs):
    memory, statistics = needs.memory, compiled.memory_analysis()
    temporary = statistics.temp_size_in_bytes
    total = statistics.argument_size_in_bytes + temporary + statistics.output_size_in_bytes
    beside = product_buffers(parse_program(compiled.as_text()))
    assert memory.total == total - statistics.alias_size_in_bytes + beside and beside > 0
    arrays = jax.tree.leaves(made.abstract_state.params)
    assert memory.parameters == sum(4 * math.prod(array.shape) for array in arrays)
    assert memory.parameters + memory.optimizer == sum(
        array.dtype.itemsize * math.prod(array.shape) for array in jax.tree.leaves(made.abstract_state)
    )
    assert memory.logits >= 4 * ROWS * LENGTH * VOCABULARY  # float32, for the loss
    assert memory.activations >= 2 * 4 * ROWS * LENGTH * 32  # at least the stream of two layers
    assert all(getattr(memory, part) >= 0 for part in PARTS)
    assert memory.workspace < 0.25 * temporary + beside + 3 * 4 * ROWS * LENGTH  # little is left over


def test_plan_auto_refusal_and_review_say_the_same_number(made, compiled, needs):
    same = dataclasses.replace(made)
    object.__setattr__(same, "compiled_step", CompiledStep(compiled, 0.0))
    assert compiled_bytes(same) == refuse_compiled(same, needs.memory.total) == needs.memory.total
    with pytest.raises(ConfigError, match=r"a step needs 0\.0 GiB per device, but a device has 0\.0 GiB"):
        refuse_compiled(same, needs.memory.total - 1)


def test_products_equal_those_of_the_program(compiled, needs):
    flops = sum(kernel.flops * kernel.times for kernel in needs.kernels)
    assert flops == products_of(compiled.as_text())[0] > 0


def test_needs_are_read_back_from_json(needs):
    assert Needs.from_json(json.loads(json.dumps(needs.to_json()))) == needs


def test_a_shape_is_compiled_once_and_again_if_the_cache_is_damaged(made, compiled, needs, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []
    monkeypatch.setattr(Trainer, "compile_train_step", lambda *_: calls.append(1) or compiled)
    hardware = _processor(1)
    first = compiled_needs(made, hardware)
    assert compiled_needs(made, hardware) == first and len(calls) == 1
    later = dataclasses.replace(made.config.optimizer, learning_rate=0.5)
    same = dataclasses.replace(made, config=dataclasses.replace(made.config, optimizer=later))
    assert step._identity(same, hardware) == step._identity(made, hardware)  # a rate is a number in the program
    longer = dataclasses.replace(made.config.data, sequence_length=32)
    other = dataclasses.replace(made, config=dataclasses.replace(made.config, data=longer))
    assert step._identity(other, hardware) != step._identity(made, hardware)
    (file,) = (tmp_path / "gptjax" / "plans").iterdir()
    for damaged in (b"", b"{}", b"[1]", file.read_bytes()[:-20], b'{"memory": 3}'):
        file.write_bytes(damaged)
        assert compiled_needs(made, hardware).memory == needs.memory
    assert len(calls) == 6


def test_the_cache_distinguishes_meshes_and_versions_of_the_code(made, monkeypatch):
    all_devices = dataclasses.replace(made.config, mesh=dataclasses.replace(made.config.mesh, data=-1))
    one, two = (plan(all_devices, DataFacts(VOCABULARY), jax.devices()[:count]) for count in (1, 2))
    before = step._identity(one, _processor(1))
    assert step._identity(two, _processor(1)) != before
    monkeypatch.setattr(step, "_own_files", lambda: "another model")
    assert step._identity(one, _processor(1)) != before


def test_the_time_of_a_run_is_that_of_steps_evaluations_and_saves(made, needs, monkeypatch):
    monkeypatch.setattr("gptjax.forecast.run.measured_peak", lambda: (1e11, 0.0))
    place = Place(_processor(1), 1, jax.devices()[:1])
    forecast = forecast_run(made, place, needs, None)
    assert forecast.size.parameters == made.parameters.total
    assert forecast.size.flops_per_token == made.flops_per_token
    assert forecast.tokens.run == 10 * ROWS * LENGTH
    assert forecast.time.training.likely == pytest.approx(10 * forecast.step.step.likely)
    assert forecast.time.evaluation.likely == pytest.approx(2 * 3 * forecast.step.step.likely / 3)
    rate = forecast.speed.tokens_per_second.likely
    assert forecast.speed.mfu["causal"].likely == pytest.approx(made.flops_per_token["causal"] * rate / 1e11)
    assert forecast.checkpoint.bytes == sum(state_bytes(made))
    assert forecast.loss.loss is None and "far below" in forecast.loss.why_not
    assert json.loads(json.dumps(forecast.to_json()))["memory"]["logits"] == needs.memory.logits
