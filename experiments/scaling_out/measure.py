"""Which mesh is best on 8 to 4,096 GPUs? Estimated from the programs compiled for them, on a machine without GPUs.

  pip install --no-deps jax-cuda12-plugin==V jax-cuda12-pjrt==V nvidia-cudnn-cu12      (V: the version of jax)
  python experiments/scaling_out/measure.py             # compiles what results.csv does not have, then draws
  python experiments/scaling_out/measure.py --draw      # draws best.png and prints the tables of README.md

Each program is the whole training step of a config, for H200 GPUs of which eight share a node. Its collectives are read
from the compiled text, with every loop counted as often as it runs. Their time is estimated as gptjax plan does
(gptjax/forecast/duration.py): NVLink within a node, InfiniBand between nodes, LATENCY per further node of a ring.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from gptjax.errors import ConfigError
from gptjax.forecast.duration import send_seconds
from gptjax.model.families import family_of
from gptjax.parallel.pipeline import Schedule
from gptjax.parallel.traffic import collectives_of

sys.path.insert(0, str(Path(__file__).parents[1] / "ahead_of_time"))
from compile_for_gpu import H200, compile_step, gibibytes  # also tells JAX that this machine has no driver

HERE = Path(__file__).parent

RESULTS = HERE / "results.csv"
MODELS = ("llama:1b", "llama:8b", "llama:70b")
COUNTS = (8, 64, 512, 4096)
ROWS, LENGTH = 2048, 2048  # of a step: 4.2 M tokens, however many GPUs share them
PER_NODE = 8
STAGES = 8

PEAK = H200.peak("bfloat16") or 0.0  # FLOP/s
REACHED = 0.6  # the share of it that matrix products reach
LINKS = 0.8  # the share of NVLink's and the network's rates that large messages reach
LATENCY = 2e-6  # seconds for each further node of a ring; a sum runs along a binary tree
MEMORY = 141e9 / 2**30 * 0.92  # GiB of an H200 that JAX uses


def meshes(gpus: int) -> dict[str, dict[str, int | bool]]:
    """Name → fields of the section `mesh`."""
    nodes = gpus // PER_NODE
    found: dict[str, dict[str, int | bool]] = {
        "data": {"data": gpus},
        "data, ZeRO-1": {"data": gpus, "zero1": True},
        "fsdp": {"data": 1, "fsdp": gpus},
        "fsdp, tensor 8": {"data": 1, "fsdp": nodes, "tensor": 8},
        "fsdp, context 8": {"data": 1, "fsdp": nodes, "context": 8},
        "fsdp, pipeline 8": {"data": 1, "fsdp": nodes, "pipeline": STAGES},
    }
    if nodes > 1:
        found["fsdp in a node, data"] = {"data": nodes, "fsdp": PER_NODE}
    if nodes > PER_NODE:
        found["fsdp 8, tensor 8, data"] = {"data": nodes // 8, "fsdp": 8, "tensor": 8}
    return found


def fields_of(mesh: dict[str, int | bool]) -> dict[str, object] | None:
    """The fields of a config, with as many micro-batches as leave each GPU few rows; None if there are too few rows."""
    fields: dict[str, object] = {f"mesh.{axis}": size for axis, size in mesh.items()}
    fields |= {"model.remat": "full", "model.layers": "scan"}
    groups = int(mesh.get("data", 1)) * int(mesh.get("fsdp", 1))  # of rows
    rows = ROWS // groups  # that a group computes per step
    if rows == 0:
        return None
    if "pipeline" in mesh:
        parts = min(32, rows)  # each of them a multiple of one row
        if parts % STAGES:
            return None
        fields["mesh.pipeline_microbatches"] = parts
        at_once = parts * min(4, rows // parts)
    else:
        at_once = min(rows, 8 if "tensor" in mesh or "context" in mesh else 4)
    return fields | {"training.gradient_accumulation_steps": rows // at_once}


def measured(model: str, gpus: int, name: str, mesh: dict[str, int | bool]) -> dict[str, object]:
    row: dict[str, object] = {"model": model, "gpus": gpus, "mesh": name}
    fields = fields_of(mesh)
    if fields is None:
        return row | {"refused": f"{ROWS:,} rows are too few"}
    try:
        compiled, config, seconds = compile_step(model, gpus, ROWS, fields)
    except ConfigError as error:
        return row | {"refused": str(error)}
    collectives = collectives_of(compiled.as_text(), gpus)
    flops = family_of(config.model).flops_per_token(LENGTH)["causal"] * ROWS * LENGTH / gpus
    stages = int(mesh.get("pipeline", 1))
    bubble = Schedule(stages, int(str(fields["mesh.pipeline_microbatches"]))).bubble if stages > 1 else 0.0
    within = [each for each in collectives if each.nodes(PER_NODE) == 1]
    sending = sum(each.times * send_seconds(each, H200, LINKS, LATENCY) for each in collectives)
    state, work = gibibytes(compiled)
    return row | {
        "micro_batches": fields["training.gradient_accumulation_steps"],
        "state_gib": round(state, 2),
        "work_gib": round(work, 2),
        "fits": state + work < MEMORY,
        "model_tflop": round(flops / 1e12, 3),
        "gib_in_node": round(sum(each.times * each.bytes_sent() for each in within) / 2**30, 3),
        "gib_between_nodes": round(
            sum(each.times * each.bytes_sent() for each in collectives if each not in within) / 2**30, 3
        ),
        "collectives": sum(each.times for each in collectives),
        "bubble": round(bubble, 4),
        "compute_seconds": round(flops * 4 / 3 / PEAK / REACHED / (1 - bubble), 5),  # 4/3: layers are recomputed
        "communication_seconds": round(sending, 5),
        "compiled_in": round(seconds),
    }


def cases() -> Iterator[tuple[str, int, str, dict[str, int | bool]]]:
    for gpus in COUNTS:
        for model in MODELS:
            for name, mesh in meshes(gpus).items():
                yield model, gpus, name, mesh


def read() -> list[dict[str, str]]:
    if not RESULTS.exists():
        return []
    with open(RESULTS, newline="") as file:
        return list(csv.DictReader(file))


COLUMNS = (
    *("model", "gpus", "mesh", "micro_batches", "state_gib", "work_gib", "fits", "model_tflop", "gib_in_node"),
    *("gib_between_nodes", "collectives", "bubble", "compute_seconds", "communication_seconds", "compiled_in"),
    "refused",
)


def main() -> None:
    if "--draw" not in sys.argv[1:]:
        done = {(row["model"], int(row["gpus"]), row["mesh"]) for row in read()}
        for model, gpus, name, mesh in cases():
            if (model, gpus, name) not in done:
                row = measured(model, gpus, name, mesh)
                is_new = not RESULTS.exists()
                with open(RESULTS, "a", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS)
                    if is_new:
                        writer.writeheader()
                    writer.writerow(row)
                print(row, flush=True)
    rows = read()
    draw(rows)
    print(table(rows))


def shares(row: dict[str, str]) -> tuple[float, float]:
    """Model FLOPs as a share of the peak: without any overlap of sending and computing, and with full overlap."""
    compute, sends = float(row["compute_seconds"]), float(row["communication_seconds"])
    ideal = float(row["model_tflop"]) * 1e12 / PEAK
    return ideal / (compute + sends), ideal / max(compute, sends)


def table(rows: list[dict[str, str]]) -> str:
    lines = ["| model | GPUs | best mesh | MFU | second | MFU |", "|---" * 6 + "|"]
    for model in MODELS:
        for gpus in COUNTS:
            fitting = [
                row for row in rows if (row["model"], row["gpus"]) == (model, str(gpus)) and row["fits"] == "True"
            ]
            ranked = sorted(fitting, key=lambda row: -sum(shares(row)))[:2]
            cells = [f"{row['mesh']} | {shares(row)[0]:.0%} to {shares(row)[1]:.0%}" for row in ranked]
            lines.append(f"| {model} | {gpus:,} | {' | '.join((cells + ['none | –'] * 2)[:2])} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, str]]) -> None:
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(name for gpus in COUNTS for name in meshes(gpus)))
    figure, panels = plt.subplots(2, len(MODELS), figsize=(13, 7), sharex=True, sharey="row")
    for column, model in enumerate(MODELS):
        share, ratio = panels[:, column]
        for number, name in enumerate(names):
            found = [row for row in rows if (row["model"], row["mesh"]) == (model, name) and not row["refused"]]
            found = [row for row in found if row["fits"] == "True"]
            counts = [int(row["gpus"]) for row in found]
            color = f"C{number}"
            low, high = ([100 * shares(row)[side] for row in found] for side in (0, 1))
            share.fill_between(counts, low, high, color=color, alpha=0.12, linewidth=0)
            share.plot(counts, low, "o-", color=color, markersize=4, label=name)
            sends = [float(row["communication_seconds"]) / float(row["compute_seconds"]) for row in found]
            ratio.plot(counts, sends, "o-", color=color, markersize=4)
        ratio.axhline(1, color="black", linewidth=0.8)
        ratio.set(xscale="log", yscale="log", xlabel="GPUs", xticks=COUNTS, xticklabels=[f"{n:,}" for n in COUNTS])
        ratio.minorticks_off()
        share.set(title=model)
    panels[0, 0].set_ylabel("model FLOPs, % of the peak\n(line: no overlap; band: full overlap)")
    panels[1, 0].set_ylabel("seconds of sending\nper second of computing")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(HERE / "best.png", dpi=110)


if __name__ == "__main__":
    assert os.environ["JAX_PLATFORMS"] == "cpu"
    main()
