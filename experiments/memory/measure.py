"""What each way of saving memory saves and costs, from the training step compiled ahead of time for H200 GPUs.

  python experiments/memory/measure.py          # writes savings.csv row by row; rows in it are not computed again
  python experiments/memory/measure.py --draw   # writes savings.png and prints the tables of README.md

experiments/ahead_of_time/compile_for_gpu.py says what to install besides gptjax.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_gpu_enable_triton_gemm=false"  # not Triton, which has no 8-bit products
sys.path.append(str(Path(__file__).parents[1] / "ahead_of_time"))
import compile_for_gpu  # first: it sets what JAX reads at its import

from gptjax.parallel.compiled import products_of
from gptjax.parallel.traffic import collectives_of

HERE = Path(__file__).parent
TABLE = HERE / "savings.csv"
FIELDS = ("model", "saving", "gpus", "state", "work", "host", "tflops", "fp8_tflops", "sent")

ALL = {"training.loss_chunk": 0, "model.remat": "none", "model.layers": "scan"}
#          config, GPUs, rows of a step, fields
MODELS = {
    "124M, 1 GPU": ("gpt2:124m", 1, 64, {"mesh.data": 1}),
    "1B, 8 GPUs": ("llama:1b", 8, 64, {"mesh.data": 1, "mesh.fsdp": 8, "data.sequence_length": 4096}),
    "8B, 8 GPUs": ("llama:8b", 8, 16, {"mesh.data": 1, "mesh.fsdp": 8, "data.sequence_length": 4096}),
}
BFLOAT16 = {"optimizer.first_moment_dtype": "bfloat16", "optimizer.second_moment_dtype": "bfloat16"}
INT8 = {"optimizer.first_moment_dtype": "int8", "optimizer.second_moment_dtype": "int8"}
SAVINGS = {
    "nothing": {},
    "remat full": {"model.remat": "full"},
    "remat attention": {"model.remat": "attention"},
    "remat offload_inputs": {"model.remat": "offload_inputs"},
    "remat dots": {"model.remat": "dots"},
    "remat offload_dots": {"model.remat": "offload_dots"},
    "bfloat16 moments": BFLOAT16,
    "int8 moments": INT8,
    "optimizer.memory=host": {"optimizer.memory": "host"},
    "fp8 products": {"model.matmul": "fp8"},
    "loss in chunks": {"training.loss_chunk": 8192},
    "offload_inputs, loss in chunks": {"model.remat": "offload_inputs", "training.loss_chunk": 8192},
    "data instead of fsdp": {"mesh.data": 8, "mesh.fsdp": 1},
    "zero1 instead of fsdp": {"mesh.data": 8, "mesh.fsdp": 1, "mesh.zero1": True},
    "2 micro-batches": {"training.gradient_accumulation_steps": 2},
}


def measure() -> None:
    done = {(row["model"], row["saving"]) for row in rows()}
    with TABLE.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not done:
            writer.writeheader()
        for saving, fields in SAVINGS.items():
            for model, (name, num_gpus, num_rows, shape) in MODELS.items():
                if (model, saving) in done or (num_gpus == 1 and "mesh.data" in fields):
                    continue
                compiled, _, seconds = compile_for_gpu.compile_step(name, num_gpus, num_rows, ALL | shape | fields)
                writer.writerow({"model": model, "saving": saving, "gpus": num_gpus} | needs(compiled, num_gpus))
                file.flush()
                print(f"{model}: {saving}, compiled in {seconds:.0f} s", flush=True)


def needs(compiled, num_gpus: int) -> dict[str, str]:
    """GiB of a GPU's and its host's memory, TFLOPs of matrix products and GiB sent to other GPUs, per GPU and step."""
    memory, text = compiled.memory_analysis(), compiled.as_text()
    flops, float8 = products_of(text)
    sent = sum(each.times * each.bytes_sent() for each in collectives_of(text, num_gpus))
    numbers = {
        "state": memory.argument_size_in_bytes / 2**30,
        "work": (memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes) / 2**30,
        "host": (memory.host_argument_size_in_bytes + memory.host_temp_size_in_bytes) / 2**30,
        "tflops": flops / 1e12,
        "fp8_tflops": float8 / 1e12,
        "sent": sent / 2**30,
    }
    return {name: f"{number:.2f}" for name, number in numbers.items()}


def rows() -> list[dict[str, str]]:
    """The rows of the table, in the order of SAVINGS."""
    if not TABLE.exists():
        return []
    with TABLE.open(newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: list(SAVINGS).index(row["saving"]))


def draw() -> None:
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(MODELS), figsize=(14, 4.5))
    for model, panel in zip(MODELS, panels):
        table = [row for row in rows() if row["model"] == model][::-1]
        names = [row["saving"] for row in table]
        state, work = ([float(row[what]) for row in table] for what in ("state", "work"))
        panel.barh(names, state, label="state and batch")
        panel.barh(names, work, left=state, label="temporary buffers of a step")
        panel.axvline(139, color="black", linewidth=0.8, linestyle=":")
        panel.set_title(f"{model} (dotted: an H200)", fontsize=9, loc="left")
        panel.set_xlabel("GiB of one GPU's memory")
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(HERE / "savings.png", dpi=110)


def show() -> None:
    for model in MODELS:
        print(
            f"\n**{model}**\n\n| | state GiB | work GiB | together | on the host | TFLOPs | GiB sent |\n"
            + "|---" * 7
            + "|"
        )
        for row in rows():
            if row["model"] == model:
                together = float(row["state"]) + float(row["work"])
                print(
                    f"| {row['saving']} | {row['state']} | {row['work']} | {together:.1f} | {row['host']} | "
                    f"{row['tflops']} | {row['sent']} |"
                )


if __name__ == "__main__":
    if "--draw" in sys.argv[1:]:
        draw()
        show()
    else:
        measure()
