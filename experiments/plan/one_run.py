"""A few real training steps of one config on this machine's processors, with what the plan says about them.

  python one_run.py NAME memory      prints a line of JSON: the plan's figures, and the bytes that the steps took
  python one_run.py NAME time        the same with the step's time, by the clock and in processor seconds

`measure.py` starts a process for each, since freed memory returns to the system in the one, and is kept in the other.
"""

from __future__ import annotations

import ctypes
import gc
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from gptjax.command_line.kept_memory import keep_freed_memory

if sys.argv[2:] == ["time"]:
    keep_freed_memory()  # as gptjax train does, before any library starts a thread

import jax
import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
from configs_measured import CONFIGS, facts
from sides import processor_seconds

from gptjax.cluster.cores import available_cores
from gptjax.command_line.runtime import run_in_turn, use_compilation_cache
from gptjax.config import validate
from gptjax.forecast.formula import formula_needs
from gptjax.forecast.step import Needs, read_needs
from gptjax.parallel.distributed import local_rows, put_batch
from gptjax.planning import Plan, plan
from gptjax.training.hardware import measured_peak
from gptjax.training.state import TrainState

PLAIN = {"model.attention": "reference", "model.remat": "none", "optimizer.name": "adamw"}
MMAP_THRESHOLD = -3  # glibc's number of this parameter, in malloc.h
SETTLED = 5  # equal readings of the resident memory, a twentieth of a second apart
STEPS, SECONDS = 3, 6.0  # the least number of steps that are timed, and of seconds


def main() -> None:
    name, what = sys.argv[1:]
    if what == "memory":
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 2**20)  # freed arrays return to the system at once
    use_compilation_cache()
    run_in_turn()
    config = CONFIGS[name]()
    validate(config)
    made = plan(config, facts(config), jax.devices()[:1])
    jax.set_mesh(made.mesh)
    compiled = made.trainer.compile_train_step(made.abstract_batch)
    found = {"config": name, **planned(made, compiled)}
    if what == "memory":
        found["plain_flops"] = plain_flops(name)
    batch = batch_of(made)
    jax.block_until_ready(made.trainer.init())  # once before, so that its compilation is not measured
    found |= memory(made, compiled, batch) if what == "memory" else times(made, compiled, batch)
    print(json.dumps(found), flush=True)


def planned(made: Plan, compiled: jax.stages.Compiled) -> dict[str, Any]:
    """What the plan says, and what the compiled program says about FLOPs."""
    formula, needs = formula_needs(made), read_needs(made, compiled)
    return {
        "parameters": made.parameters.total,
        "convention_flops": made.flops_per_token["full"] * made.tokens_per_step,
        "compiled_flops": flops(needs),
        "formula": formula.to_json(),
        "needs": needs.to_json(),
        "platform": made.mesh.devices.flat[0].platform,
    }


def plain_flops(name: str) -> float:
    """The products of the same model's step as the convention counts them: all queries with all keys, once."""
    config = CONFIGS[name]()
    config.update_from_flattened_dict(PLAIN)
    made = plan(config, facts(config), jax.devices()[:1])
    return flops(read_needs(made, made.trainer.compile_train_step(made.abstract_batch)))


def flops(needs: Needs) -> float:
    """FLOPs of matrix products."""
    return sum(kernel.flops * kernel.times for kernel in needs.kernels)


def batch_of(made: Plan) -> dict[str, jax.Array]:
    """A random batch of the shapes that the objective needs, all of it trained on."""
    draw, training = np.random.default_rng(0), made.config.training
    rows = {}
    for name, field in made.trainer.objective.row_fields().items():
        shape = (training.batch_size, *field.shape)
        if name.endswith(("weights", "segments")):
            array = np.ones(shape)
        elif name.endswith("positions"):
            array = np.broadcast_to(np.arange(shape[-1]), shape)
        else:
            array = draw.integers(0, made.data.num_classes if name == "labels" else made.data.vocab_size, shape)
        rows[name] = np.ascontiguousarray(array.astype(field.dtype))
    steps = training.gradient_accumulation_steps
    mine = local_rows(made.mesh, training.batch_size, steps)
    return put_batch(made.mesh, rows, mine, training.batch_size, steps)


def memory(made: Plan, compiled: jax.stages.Compiled, batch: dict[str, jax.Array]) -> dict[str, Any]:
    """Growth of the resident memory from before the state is made to its highest during steps, and the batch.

    A first state is trained and dropped before, so that what stays for good is not counted: threads, buffers of the
    library of products, code. It is returned as `once`.
    """
    jax.block_until_ready(batch)
    idle = resident()
    steps(made, compiled, batch)
    before = resident()
    state = steps(made, compiled, batch)
    taken = peak() - before + sum(array.nbytes for array in jax.tree.leaves(batch))
    counted = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return {"bytes": taken, "once": before - idle, "counted_parameters": counted}


def steps(made: Plan, compiled: jax.stages.Compiled, batch: dict[str, jax.Array]) -> TrainState:
    """A state after a few steps; the highest resident memory is that of the steps, without the making of the state."""
    state = jax.block_until_ready(made.trainer.init())
    resident()
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident memory starts anew
    for _ in range(STEPS):
        state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))
        resident()
    return state


def resident() -> int:
    """The resident bytes of this process, after freed memory is returned to the system.

    A step's results are ready before its temporary arrays are freed, and the system takes gigabytes back only after
    tenths of a second, so this waits until the figure stays the same.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    readings = [_status("VmRSS")]
    while len(readings) < SETTLED or max(readings[-SETTLED:]) - min(readings[-SETTLED:]) > 2**18:
        time.sleep(0.05)
        readings.append(_status("VmRSS"))
    return readings[-1]


def peak() -> int:
    """The most resident bytes since clear_refs was written."""
    return _status("VmHWM")


def _status(line: str) -> int:
    text = Path("/proc/self/status").read_text()
    return 1024 * int(next(each for each in text.splitlines() if each.startswith(line)).split()[1])


def times(made: Plan, compiled: jax.stages.Compiled, batch: dict[str, jax.Array]) -> dict[str, Any]:
    """The fastest product of this process, and the steps' seconds, all after a first step."""
    state, metrics = compiled(made.trainer.init(), batch)
    jax.block_until_ready((state, metrics))
    clock, used, started = [], [], time.perf_counter()
    while len(clock) < STEPS or time.perf_counter() - started < SECONDS:
        began, before = time.perf_counter(), processor_seconds()
        state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))
        clock.append(time.perf_counter() - began)
        used.append(processor_seconds() - before)
    return {
        "clock": statistics.median(clock),
        "fastest": min(clock),
        "processor": statistics.median(used) / len(available_cores()),
        "steps": len(clock),
        "peak": measured_peak()[0],
        "cores": len(available_cores()),
        "loss": float(metrics["train/loss"]),
    }


if __name__ == "__main__":
    main()
