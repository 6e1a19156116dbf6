"""Estimated needs beside compiled ones where a pipeline, sequences or experts are divided over GPUs.

  python experiments/plan/axes.py          # compiles what axes.csv lacks for H100s, and writes it there row by row
  python experiments/plan/axes.py --show   # prints the table of README.md

experiments/ahead_of_time/compile_for_gpu.py says what to install besides gptjax.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import jax

from gptjax.config.user_code import load_config
from gptjax.data.facts import DataFacts
from gptjax.forecast.devices import Place, described_place, find_place
from gptjax.forecast.formula import formula_needs
from gptjax.forecast.step import Needs, read_needs
from gptjax.planning import Plan, plan

HERE = Path(__file__).parent
TABLE = HERE / "axes.csv"
NUMBERS = ("memory", "tflops", "moved", "sent")
EIGHT_ROWS = {"data.sequence_length": 4096, "training.batch_size": 8}
DENSE = {"data.sequence_length": 4096, "training.batch_size": 64}
LONG = {"data.sequence_length": 16_384, "training.batch_size": 4}

#       name → config, GPUs, fields
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "1B, fsdp 16": ("llama.py:1b", 16, DENSE | {"mesh.fsdp": 16}),
    "1B, pipeline 2 × fsdp 8, 8 micro-batches": (
        *("llama.py:1b", 16),
        DENSE | {"mesh.pipeline": 2, "mesh.pipeline_microbatches": 8, "mesh.fsdp": 8},
    ),
    "1B, pipeline 4 × fsdp 4": ("llama.py:1b", 16, DENSE | {"mesh.pipeline": 4, "mesh.fsdp": 4}),
    "the same, remat full": ("llama.py:1b", 16, DENSE | {"mesh.pipeline": 4, "mesh.fsdp": 4, "model.remat": "full"}),
    "1B, fsdp 2 × context 4, T = 16,384": ("llama.py:1b", 8, LONG | {"mesh.context": 4, "mesh.fsdp": 2}),
    "OLMoE, fsdp 8": ("moe.py:olmoe", 8, EIGHT_ROWS | {"mesh.fsdp": 8}),
    "OLMoE, fsdp 8, remat full": ("moe.py:olmoe", 8, EIGHT_ROWS | {"mesh.fsdp": 8, "model.remat": "full"}),
    "OLMoE, expert 8, ring": ("moe.py:olmoe", 8, EIGHT_ROWS | {"mesh.expert": 8}),
    "OLMoE, fsdp 2 × expert 4, ring": ("moe.py:olmoe", 8, EIGHT_ROWS | {"mesh.expert": 4, "mesh.fsdp": 2}),
    "OLMoE, expert 8, all_to_all, capacity 1.25": (
        *("moe.py:olmoe", 8),
        EIGHT_ROWS | {"mesh.expert": 8, "mesh.expert_exchange": "all_to_all", "model.expert_capacity": 1.25},
    ),
}


def planned(name: str, place: Place) -> Plan:
    file, _, fields = CASES[name]
    config = load_config(f"{HERE.parents[1] / 'configs'}/{file}")
    config.update_from_flattened_dict({"training.gradient_accumulation_steps": 1, "mesh.data": 1} | fields)
    return plan(config, DataFacts(config.model.vocab_size), place.devices)


def numbers(needs: Needs) -> dict[str, float]:
    """GiB of memory, TFLOPs of products and attention, GB that other kernels move, GiB sent, per GPU and step."""
    return {
        "memory": needs.memory.total / 2**30,
        "tflops": sum(each.flops * each.times for each in needs.kernels) / 1e12,
        "moved": sum(each.bytes * each.times for each in needs.kernels if each.kind == "other") / 1e9,
        "sent": sum(each.bytes_sent() * each.times for each in needs.collectives) / 2**30,
    }


def estimated(name: str) -> dict[str, float]:
    return numbers(formula_needs(planned(name, described_place("H100", CASES[name][1]))))


def rows() -> dict[str, dict[str, float]]:
    """name → what was compiled."""
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="") as file:
        return {row["name"]: {number: float(row[number]) for number in NUMBERS} for row in csv.DictReader(file)}


def measure() -> None:
    done = rows()
    with TABLE.open("a", newline="") as file:
        writer = csv.DictWriter(file, ("name", *NUMBERS))
        if not done:
            writer.writeheader()
        for name in (name for name in CASES if name not in done):
            made = planned(name, find_place("H100", CASES[name][1]))
            with jax.set_mesh(made.mesh):
                compiled = made.trainer.compile_train_step(made.abstract_batch)
            found = numbers(read_needs(made, compiled))
            writer.writerow({"name": name} | {number: f"{value:.2f}" for number, value in found.items()})
            file.flush()
            print(name, flush=True)


def show() -> None:
    print("| estimated / compiled | memory | FLOPs | bytes moved | bytes sent |\n|---|---|---|---|---|")
    for name, compiled in rows().items():
        formula = estimated(name)
        print(f"| {name} | {' | '.join(f'{formula[number] / compiled[number]:.2f}' for number in NUMBERS)} |")


if __name__ == "__main__":
    if "--show" not in sys.argv[1:]:
        measure()
    show()
