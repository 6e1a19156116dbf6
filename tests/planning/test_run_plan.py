"""A plan has the facts of a run before it starts; described devices give the same plan as present ones."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from gptjax.config import ConfigError, default, flatten
from gptjax.config.user_code import load_config
from gptjax.data.facts import DataFacts
from gptjax.model.tree import leaves_by_path
from gptjax.parallel.mesh import AXES, AbstractDevices
from gptjax.planning import plan

REPOSITORY = Path(__file__).parents[2]
FACTS = DataFacts(vocab_size=32, windows_per_epoch=100)
H200 = AbstractDevices("gpu", 8, "NVIDIA H200")

WITHOUT_A_DEVICE = """
import json, jax
from gptjax.config import default
from gptjax.data.facts import DataFacts
from gptjax.parallel.mesh import AbstractDevices
from gptjax.planning import plan
from gptjax.config.user_code import load_config

for optimizer in ("adamw", "muon", "adafactor", "lion", "sgd"):
    config = load_config("configs/llama.py:8b")
    config.optimizer.name = optimizer
    config.mesh.update(data=2, fsdp=2, tensor=2)
    made = plan(config, DataFacts(100), AbstractDevices("gpu", 8, "NVIDIA H200"))
    made.abstract_batch, made.flops_per_token
print(json.dumps([made.parameters.total, made.config.model.attention, made.peak.flops]))
try:
    jax.devices()
except RuntimeError:
    print("no device")
"""


def test_a_plan_needs_no_device():
    """JAX finds no devices here, so any use of one would be an error."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_DEVICE],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "none_such", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    found, nothing = done.stdout.splitlines() or [done.stderr, ""]
    assert json.loads(found) == [8_030_261_248, "cudnn", 8 * 989e12] and nothing == "no device"


def test_a_plan_allocates_nothing_and_the_run_is_as_planned(tiny_config):
    config = tiny_config(mesh__data=2, mesh__fsdp=2, mesh__tensor=2, optimizer__name="muon", training__ema_decay=0.9)
    before = len(jax.live_arrays())
    made = plan(config, FACTS, jax.devices())
    assert made.parameters.total and made.flops_per_token and made.abstract_batch
    assert len(jax.live_arrays()) == before
    with jax.set_mesh(made.mesh):
        state = made.trainer.init()
    planned = leaves_by_path(made.abstract_state)
    for path, leaf in leaves_by_path(state).items():
        there = planned[path]
        assert (leaf.shape, leaf.dtype) == (there.shape, there.dtype)
        assert leaf.sharding.is_equivalent_to(there.sharding, leaf.ndim), path
    assert made.parameters.total == sum(leaf.size for leaf in leaves_by_path(state.params).values())


@pytest.mark.parametrize("mesh", [{}, {"fsdp": 4, "tensor": 2}])
def test_described_devices_give_the_same_plan_as_present_ones(tiny_config, mesh):
    config = tiny_config(**{f"mesh__{axis}": size for axis, size in mesh.items()})
    present, described = (plan(config, FACTS, devices) for devices in (jax.devices(), AbstractDevices("cpu", 8)))
    assert (
        present.config == described.config
        and present.units == described.units
        and dict(present.mesh.shape) == dict(described.mesh.shape)
    )
    assert present.flops_per_token == described.flops_per_token

    def placed(made):
        leaves = {**leaves_by_path(made.abstract_state), **made.abstract_batch}
        return {
            path: (x.shape, x.dtype, x.sharding.spec, x.sharding.shard_shape(x.shape)) for path, x in leaves.items()
        }

    assert placed(present) == placed(described)


def test_fields_that_depend_on_an_unknown_platform_stay_auto():
    config = default()
    config.model.update(vocab_size=32, num_layers=2)
    unknown = plan(config, FACTS, AbstractDevices())
    assert dict(unknown.mesh.shape) == dict.fromkeys(AXES, 1)
    assert (unknown.peak.flops, unknown.peak.label) == (None, "n/a: the devices are not known")
    for devices, dtype in ((H200, "bfloat16"), (AbstractDevices("cpu", 8), "float32")):
        known = plan(config, FACTS, devices)
        left = {field for field, value in flatten(known.config).items() if flatten(unknown.config)[field] != value}
        assert left == {"model.dtype", "model.layers", "model.attention", "model.attention_block"}
        assert known.config.model.dtype == dtype
        assert plan(known.config, FACTS, devices).config == known.config  # everything is resolved


@pytest.mark.parametrize(
    "layers, width, fsdp, remat, chosen",
    [
        (12, 768, 8, "none", "unroll"),
        (24, 2048, 1, "none", "unroll"),
        (24, 2048, 8, "none", "scan"),
        (24, 2048, -1, "none", "scan"),
        (24, 2048, 8, "dots", "unroll"),
    ],
)
def test_with_fsdp_no_device_keeps_the_gathered_weights_of_many_large_layers(layers, width, fsdp, remat, chosen):
    """The layers of 768 take 162 MiB in bfloat16, those of 2,048 2.3 GiB. Layers that are recomputed gather again."""
    config = default()
    config.model.update(num_layers=layers, width=width, num_heads=width // 64, remat=remat)
    config.training.batch_size = 64
    config.mesh.update(data=-1 if fsdp == 1 else 1, fsdp=fsdp)
    assert plan(config, FACTS, H200).config.model.layers == chosen


@pytest.mark.parametrize(
    "fields, devices, message",
    [
        ({"training.batch_size": 4}, H200, "batch_size = 4: must be divisible by the 8 devices of mesh.data$"),
        (
            {"training.batch_size": 8, "training.gradient_accumulation_steps": 2},
            H200,
            "batch_size = 8 with training.gradient_accumulation_steps = 2, 4 rows at once: must be divisible by the 8",
        ),
        (
            {"mesh.fsdp": 3, "training.batch_size": 8},
            AbstractDevices(),
            "batch_size = 8: must be divisible by the 3 devices",
        ),
        ({"mesh.tensor": 4}, AbstractDevices(), r"mesh\.tensor = 4: must divide the .* of "),
        ({"mesh.expert": 2}, H200, r"mesh\.expert = 2 with model\.num_experts = 0: must be 1 without experts"),
        (
            {"mesh.expert": 4, "model.num_experts": 6},
            H200,
            r"expert = 4 with model\.num_experts = 6: must divide",
        ),
        ({"mesh.data": 3}, H200, "is for 3 devices, and this run has 8"),
        ({"model.vocab_size": 31}, H200, "must be at least 32, the size of the tokenizer"),
        ({"data.windows": "packed", "model.attention": "cudnn"}, H200, "model.attention = 'cudnn'"),
        ({"schedule.warmup": "90 steps", "training.duration": "80 steps"}, H200, "must fit into the run's 80 steps"),
        ({"optimizer.rules": (("nothing", "freeze", True),)}, H200, "matches no parameter"),
    ],
)
def test_contradictory_settings_are_refused_before_data_are_opened(fields, devices, message):
    config = default()
    config.model.update(num_layers=1, width=96, num_heads=6)
    config.update_from_flattened_dict(fields)
    with pytest.raises(ConfigError, match=message):
        plan(config, FACTS, devices)


@pytest.mark.parametrize(
    "duration, every, refused",
    [
        ("6 steps", "4 steps", ""),
        ("5 steps", "4 steps", "training.duration = '5 steps': must be a multiple of .* = 2 steps, and is 5 steps$"),
        ("6 steps", "3 steps", "checkpoint.every = '3 steps': must be a multiple of .* = 2 steps, and is 3 steps$"),
    ],
)
def test_a_run_is_saved_and_ends_between_groups_of_steps_with_texts_written_together(
    tiny_config, duration, every, refused
):
    config = tiny_config(
        training__objective="grpo",
        training__updates_per_rollout=2,
        training__duration=duration,
        checkpoint__every=every,
        data__source_length=3,
    )
    with pytest.raises(ConfigError, match=refused) if refused else contextlib.nullcontext():
        plan(config, FACTS, jax.devices())


def test_without_data_everything_but_epochs_can_be_planned():
    config = load_config("configs/gpt2.py:124m")
    made = plan(config, DataFacts(vocab_size=50257), AbstractDevices())
    assert made.parameters.total == 124_439_808 and made.total_tokens >= 1e9
    config.training.duration = "2 epochs"
    with pytest.raises(ConfigError, match=r"training\.duration = '2 epochs': epochs require data"):
        plan(config, DataFacts(vocab_size=50257), AbstractDevices())
    made = plan(config, DataFacts(vocab_size=50257, windows_per_epoch=51_200), AbstractDevices())
    assert made.total_steps == 2 * 51_200 / config.training.batch_size


def test_intervals_of_evaluations_and_saves(tiny_config):
    made = plan(
        tiny_config(checkpoint__every="6 steps", evaluation__every="5 steps", evaluation__sample_every=""),
        FACTS,
        jax.devices(),
    )
    assert [step for step in range(1, 21) if made.every("checkpoint.every", step)] == [6, 12, 18, 20]
    assert [step for step in range(1, 21) if made.evaluates(step)] == [5, 6, 10, 12, 15, 18, 20]
    assert not any(made.every("evaluation.sample_every", step) for step in range(1, 21))
    off = dataclasses.replace(made, config=tiny_config(evaluation__every=""))
    assert not any(off.evaluates(step) for step in range(1, 21))
