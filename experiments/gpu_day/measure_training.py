"""Measures the trainer's step, or compiled PyTorch's, on synthetic tokens, with the first of several settings that
fits.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from timing import spread, time_turns
from worker import NotSupported, is_out_of_memory

from gptjax.config import validate
from gptjax.config.user_code import load_config
from gptjax.data.facts import DataFacts
from gptjax.model.parameters import count_parameters
from gptjax.parallel.mesh import AbstractDevices
from gptjax.planning import Plan, plan
from gptjax.settings import Settings
from gptjax.training.hardware import peak_flops_per_device
from gptjax.training.trainer import Trainer

CONFIGS = Path(__file__).parents[2] / "configs"
LARGEST_SHARE = 0.98  # a setting is tried if the compiler's estimate is below this share of the memory that JAX may use


class TooLarge(Exception):
    """The compiled step needs more memory than the device has."""


def measure(
    config: str, length: int, side: str, settings: tuple[dict, ...], model: dict | None = None
) -> Iterator[dict]:
    """Yields a row for every setting that did not fit, and a row of figures for the first that did."""
    for setting in settings:
        row = {"config": config, "length": length, "side": side, **setting}
        try:
            figures = measure_one(config, length, side, setting, model or {})
        except Exception as error:
            if not (isinstance(error, TooLarge) or is_out_of_memory(error)):
                raise
            reason = str(error) if isinstance(error, TooLarge) else "out of memory"
        else:
            yield row | figures
            return
        yield row | {"error": reason}
        free_memory()
    raise MemoryError("out of memory with every setting")


def free_memory() -> None:
    """Frees the memory of a setting that failed: its arrays and PyTorch's cached blocks."""
    jax.clear_caches()
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()
        sys.modules["torch"].cuda.reset_peak_memory_stats()


def measure_one(config: str, length: int, side: str, setting: dict, model: dict) -> dict:
    devices = AbstractDevices("gpu", count=1) if side == "torch" else jax.devices()[:1]
    made = make_plan(config, length, setting, devices, model)
    facts = facts_of(made)
    steps, found = torch_side(made.config, setting["rows"]) if side == "torch" else gptjax_side(made.trainer)
    if facts["parameters"] != found["parameters"]:
        raise RuntimeError(f"PyTorch's model has {found['parameters']:,} parameters, not {facts['parameters']:,}")
    losses = []
    seconds = time_turns(lambda number: losses.append(steps(number)))
    if not all(np.isfinite(losses)):
        raise RuntimeError(f"the losses are {losses}")
    rates = spread(setting["rows"] * length, seconds, "tokens_per_second")
    flops = {name: rates["tokens_per_second"] * each for name, each in facts["flops_per_token"].items()}
    peak = peak_flops_per_device(found["device"], "bfloat16")
    mfu = {name: each / peak if peak else None for name, each in flops.items()}
    found["peak_bytes"] = found["peak_bytes"]()
    return facts | found | rates | {"flops_per_second": flops, "mfu": mfu, "seconds_per_step": seconds}


# --- What is trained -------------------------------------------------------------------------------------------------


def named_config(name: str) -> ConfigDict:
    """Loads a config by its name, such as 'gpt2:124m'."""
    file, _, argument = name.partition(":")
    return load_config(f"{CONFIGS / file}.py:{argument}")


def make_plan(
    config: str, length: int, setting: dict, devices: Sequence[jax.Device] | AbstractDevices, model: dict
) -> Plan:
    """The config of that name with the setting's rows, layers, remat and chunk; `model`: fields that differ.

    The vocabulary is rounded up to a multiple of 128 on both sides, for the tensor cores; no token uses the added rows.
    """
    made = named_config(config)
    made.model.update(layers=setting.get("layers", "unroll"), remat=setting.get("remat", "none"), **model)
    made.model.vocab_size = -(-made.model.vocab_size // 128) * 128
    made.model.max_positions = max(made.model.max_positions, length)
    made.data.sequence_length = length
    made.training.update(batch_size=setting["rows"], gradient_accumulation_steps=1, duration="10000 steps")
    made.training.loss_chunk = setting.get("chunk", made.training.loss_chunk)
    made.schedule.update(name="constant", warmup="0 steps")
    validate(made)
    return plan(made, DataFacts(made.model.vocab_size), devices)


def facts_of(made: Plan) -> dict:
    return {
        "parameters": made.parameters.total,
        "flops_per_token": made.flops_per_token,
        "attention": made.config.model.attention,
    }


# --- The two sides: (a function that takes n steps and returns the last loss, facts) ---------------------------------


def gptjax_side(trainer: Trainer) -> tuple[Callable[[int], float], dict]:
    """Raises TooLarge before anything is allocated."""
    device = trainer.mesh.devices.flat[0]
    with jax.set_mesh(trainer.mesh):
        step, facts = compile_step(trainer)
    limit = (device.memory_stats() or {}).get("bytes_limit")
    needed = facts["state_bytes"] + facts["work_bytes"]
    if limit and needed > LARGEST_SHARE * limit:
        raise TooLarge(f"needs {needed / 2**30:.1f} GiB by the compiler's estimate; JAX may use {limit / 2**30:.1f}")
    shapes = trainer.abstract_batch()
    tokens = np.random.default_rng(0).integers(trainer.config.model.vocab_size, size=shapes["tokens"].shape)
    values = {"tokens": tokens, "targets": np.roll(tokens, -1, axis=-1), "weights": np.ones(tokens.shape)}
    batch = {name: jax.device_put(values[name].astype(s.dtype), s.sharding) for name, s in shapes.items()}
    with jax.set_mesh(trainer.mesh):
        state = trainer.init()

    def steps(number: int) -> float:
        nonlocal state
        for _ in range(number):
            state, metrics = step(state, batch)
        return float(metrics["train/loss"])  # waits

    peak = lambda: (device.memory_stats() or {}).get("peak_bytes_in_use")  # noqa: E731
    return steps, facts | {"device": device.device_kind, "peak_bytes": peak}


def compile_step(trainer: Trainer) -> tuple[jax.stages.Compiled, dict]:
    started = time.perf_counter()
    step = trainer.compile_train_step(trainer.abstract_batch())
    memory = step.memory_analysis()
    return step, {
        "compile_seconds": time.perf_counter() - started,
        "parameters": count_parameters(trainer.declared).total,
        "state_bytes": memory.argument_size_in_bytes,
        "work_bytes": memory.temp_size_in_bytes,
    }


def torch_side(config: Settings, rows: int) -> tuple[Callable[[int], float], dict]:
    try:
        import pytorch_side
        import torch
    except ImportError as error:
        raise NotSupported(f"PyTorch cannot be imported: {error}") from error
    steps, facts = pytorch_side.training_steps(config)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return steps, facts | {"device": device}
