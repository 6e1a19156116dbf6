"""Compiles the real training step for H200 GPUs on a machine without them, and reports the memory that it will need.

  pip install --no-deps jax-cuda12-plugin==V jax-cuda12-pjrt==V nvidia-cudnn-cu12      (V: the version of jax)
  python experiments/ahead_of_time/compile_for_gpu.py             # each config on its own mesh
  python experiments/ahead_of_time/compile_for_gpu.py --savings   # one config, with each way of saving memory
  python experiments/ahead_of_time/compile_for_gpu.py --sent      # what each of eight GPUs sends, by kind of collective
  python experiments/ahead_of_time/compile_for_gpu.py --unrolled  # memory and gathers of unrolled layers and of a scan

`make aot` holds these programs to contracts (tests/experiments/ahead_of_time).

It finds what only a compilation for GPUs shows: a kernel that does not support the shapes, an unexpected collective, a
step that does not fit into memory. Nothing is timed, and matrix products are not autotuned.
"""

from __future__ import annotations

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # this machine has no driver

import collections
import re
import sys
import time
from pathlib import Path

import jax

from gptjax.config import validate
from gptjax.config.user_code import load_config
from gptjax.data.facts import DataFacts
from gptjax.forecast.devices import gpus_of
from gptjax.forecast.hardware import BY_NAME
from gptjax.forecast.kernels import kernels_of
from gptjax.forecast.program import bytes_of, parse_program
from gptjax.parallel.traffic import KINDS, Collective, collectives_of
from gptjax.planning import plan

CONFIGS = Path(__file__).parents[2] / "configs"

H200 = BY_NAME["H200"]

PIPELINE = {"mesh.data": 1, "mesh.pipeline_microbatches": 8}
#       config, GPUs, rows per step, fields that differ
CASES = (
    ("gpt2:124m", 1, 64, {"mesh.data": 1}),
    ("gpt2:124m", 8, 512, {"mesh.data": 8}),
    ("gpt2:124m", 8, 512, {"mesh.data": 1, "mesh.fsdp": 8}),
    ("depth:12", 1, 64, {"mesh.data": 1}),
    ("llama:1b", 8, 64, {"mesh.data": 1, "mesh.fsdp": 4, "mesh.tensor": 2}),
    ("qwen3:1.7b", 8, 64, {"mesh.data": 1, "mesh.fsdp": 8}),
    ("llama:1b", 8, 64, {"mesh.data": 1, "mesh.fsdp": 8}),
    ("llama:1b", 8, 64, PIPELINE | {"mesh.pipeline": 4, "mesh.fsdp": 2}),
    ("llama:1b", 8, 64, PIPELINE | {"mesh.pipeline": 4, "mesh.fsdp": 2, "mesh.pipeline_repeats": 2}),
    ("llama:1b", 8, 64, PIPELINE | {"mesh.pipeline": 2, "mesh.fsdp": 2, "mesh.tensor": 2}),
)

PLAIN = {"training.loss_chunk": 0, "model.remat": "none", "training.gradient_accumulation_steps": 1}
SAVINGS = (
    ("nothing", 1, {}),
    ("bfloat16 first moments", 1, {"optimizer.first_moment_dtype": "bfloat16"}),
    ("logits in chunks", 1, {"training.loss_chunk": 8192}),
    ("layers recomputed, products kept", 1, {"model.remat": "dots"}),
    ("layers recomputed whole", 1, {"model.remat": "full"}),
    ("four micro-batches", 1, {"training.gradient_accumulation_steps": 4}),
    ("eight micro-batches", 1, {"training.gradient_accumulation_steps": 8}),
    ("chunks, recomputed whole", 1, {"training.loss_chunk": 8192, "model.remat": "full"}),
    (
        "chunks, recomputed whole, eight micro-batches",
        1,
        {"training.loss_chunk": 8192, "model.remat": "full", "training.gradient_accumulation_steps": 8},
    ),
    ("eight GPUs, data", 8, {"mesh.data": 8}),
    ("eight GPUs, fsdp", 8, {"mesh.data": 1, "mesh.fsdp": 8}),
)


def compile_step(name: str, num_gpus: int, rows: int, fields: dict[str, object]):
    """Returns the compiled step, its resolved config and the seconds of compilation. fields: {'mesh.fsdp': 8, …}."""
    file, _, argument = name.partition(":")
    config = load_config(f"{CONFIGS / file}.py:{argument}")
    config.update_from_flattened_dict(
        {"training.batch_size": rows, "training.gradient_accumulation_steps": 1, "training.duration": "100000 steps"}
        | fields
    )
    validate(config)
    made = plan(config, DataFacts(vocab_size=config.model.vocab_size or 32768), gpus_of(H200, num_gpus))
    started = time.perf_counter()
    with jax.set_mesh(made.mesh):
        compiled = made.trainer.compile_train_step(made.abstract_batch)
    return compiled, made.config, time.perf_counter() - started


def gibibytes(compiled) -> tuple[float, float]:
    """Returns the GiB per GPU of (state and batch, everything else that the step needs)."""
    memory = compiled.memory_analysis()
    return memory.argument_size_in_bytes / 2**30, memory.temp_size_in_bytes / 2**30


def cases(cases=CASES) -> None:
    names = " | ".join(KINDS)
    print(f"| config | GPUs, mesh | rows | attention | flash kernels | state GiB | work GiB | {names} | compiled in |")
    print("|---" * (8 + len(KINDS)) + "|")
    for name, num_gpus, rows, fields in cases:
        compiled, config, seconds = compile_step(name, num_gpus, rows, fields)
        text, (state, work) = compiled.as_text(), gibibytes(compiled)
        counts = " | ".join(str(len(re.findall(rf"\b{c}(?:-start)?\(", text))) for c in KINDS)
        sizes = {field.removeprefix("mesh."): size for field, size in fields.items()}
        axes = " x ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1) or "one"
        print(
            f"| {name} | {num_gpus}, {axes} | {rows} | {config.model.attention} | {text.count('__cudnn$fmha')} "
            f"| {state:.2f} | {work:.1f} | {counts} | {seconds:.0f} s |",
            flush=True,
        )


def savings(name: str = "gpt2:350m", rows: int = 32) -> None:
    print(f"| {name}, {rows} rows of 1,024 tokens per step | fields | state GiB | work GiB | together |")
    print("|---" * 5 + "|")
    for what, num_gpus, fields in SAVINGS:
        compiled, _, _ = compile_step(name, num_gpus, rows, PLAIN | {"mesh.data": 1} | fields)
        state, work = gibibytes(compiled)
        texts = " ".join(f"`{field}={value}`" for field, value in fields.items())
        print(f"| {what} | {texts} | {state:.2f} | {work:.1f} | {state + work:.1f} |", flush=True)


#       config, GPUs, rows per step, fields that differ; each in one micro-batch
SENT = (
    ("gpt2:124m", 1, 64, {"mesh.data": 1}),
    ("gpt2:124m", 8, 512, {"mesh.data": 1, "mesh.fsdp": 8}),
    ("llama:8b", 8, 16, {"mesh.data": 1, "mesh.fsdp": 8, "model.num_layers": 4}),
    ("llama:1b", 8, 16, {"mesh.data": 1, "mesh.tensor": 8, "model.num_layers": 4}),
)


def sent(cases=SENT) -> None:
    """The MiB that a step's collectives move: outputs of all-gathers, inputs of reductions and all-to-alls. And the
    GiB that kernels write transposed, and that all kernels without products read and write."""
    print(
        f"| config | fields | layers | peak GiB | {' | '.join(KINDS)} | largest gather of layers | transposing kernels "
        "| GiB transposed | GiB read and written |"
    )
    print("|---" * (8 + len(KINDS)) + "|")
    for name, num_gpus, rows, fields in cases:
        compiled, config, _ = compile_step(name, num_gpus, rows, fields)
        text, total = compiled.as_text(), collections.Counter()
        every = collectives_of(text, num_gpus)
        for each in every:
            total[each.kind] += each.times * each.bytes
        sizes = " | ".join(f"{total[kind] / 2**20:.0f}" for kind in KINDS)
        changed = ", ".join(f"{field} {value}" for field, value in fields.items() if value != 1)
        moved = sum(k.bytes * k.times for k in kernels_of(parse_program(text)) if k.kind == "other") / 2**30
        largest = largest_gather(every, 2 * config.model.vocab_size * config.model.width) / 2**20
        print(
            f"| {name} | {changed} | {config.model.layers} | {sum(gibibytes(compiled)):.1f} | {sizes} | {largest:.0f} "
            f"| {len(transposing(text))} | {sum(transposing(text)) / 2**30:.2f} | {moved:.0f} |",
            flush=True,
        )


UNROLLED = [("gpt2:124m", 512, "none"), ("llama:1b", 64, "none"), ("llama:1b", 64, "dots")]


def unrolled() -> None:
    print("| config | layers | `model.remat` | state GiB | work GiB | all-gather | reduce-scatter |")
    print("|---" * 7 + "|")
    for name, rows, remat in UNROLLED:
        for how in ("unroll", "scan"):
            fields = {"mesh.data": 1, "mesh.fsdp": 8, "model.layers": how, "model.remat": remat}
            compiled, _, _ = compile_step(name, 8, rows, fields)
            (state, work), every = gibibytes(compiled), collectives_of(compiled.as_text(), 8)
            sums = [sum(each.times * each.bytes for each in every if each.kind == kind) / 2**20 for kind in KINDS[1:3]]
            print(
                f"| {name} | {how} | {remat} | {state:.2f} | {work:.2f} | {sums[0]:.0f} | {sums[1]:.0f} |", flush=True
            )


def largest_gather(every: list[Collective], head: int) -> int:
    """The bytes of the largest all-gather, except that of the output head, which has `head` bytes."""
    return max((each.bytes for each in every if each.kind == "all-gather" and each.bytes != head), default=0)


def transposing(text: str) -> list[int]:
    """The bytes that each kernel writes that transposes or copies arrays, per run."""
    program = parse_program(text)
    return [
        bytes_of(each.shape)
        for operations in program.computations.values()
        for each in operations
        if each.kind == "copy" or (each.kind == "fusion" and re.search("transpose|copy", each.name))
    ]


if __name__ == "__main__":
    {"--savings": savings, "--sent": sent, "--unrolled": unrolled}.get(" ".join(sys.argv[1:]), cases)()
