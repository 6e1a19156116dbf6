"""Training speed on one GPU beside PyTorch, and which settings are best there, in one call of ten minutes:

  python experiments/throughput/gpu.py --output=FOLDER --seconds=540
  python experiments/throughput/gpu.py --compile_only      for one H200 on a machine that has none (see ahead_of_time)

Every variant is the real trainer's step on synthetic tokens in a process of its own, so that one that fails (no
memory, a kernel that refuses) is a row like the others, and peak memory is its own. For each shape, the search begins
with the settings that memory and arithmetic suggest, tries one change after the other and keeps what is faster; PyTorch
then trains the same shape with the largest of the batches tried that it can hold.

FOLDER/results.jsonl has a line for every variant, with the times of all turns, as soon as it is measured;
FOLDER/table.md the table. Speeds are medians over turns of about a second; compile time is apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

EXPERIMENTS = Path(__file__).parents[1]
VARIANT_SECONDS = 240  # after which a process counts as hung


@dataclasses.dataclass(frozen=True)
class Variant:
    """One setting of one shape. rows: sequences a step. chunk: tokens whose logits exist at once, 0 all."""

    config: str
    length: int
    rows: int
    layers: str = "unroll"
    remat: str = "none"
    chunk: int = 16_384
    xla_flags: str = ""
    side: str = "gptjax"

    def __str__(self) -> str:
        if self.side == "torch":
            return f"{self.rows} rows"
        parts = [f"{self.rows} rows", self.layers, f"remat {self.remat}", f"chunk {self.chunk or 'off'}"]
        return ", ".join([*parts, *([self.xla_flags] if self.xla_flags else [])])


NO_TRITON = "--xla_gpu_enable_triton_gemm=false"
NO_GRAPHS = "--xla_gpu_enable_command_buffer="
#        where the search begins, and the changes that it tries, in turn
SEARCHES: dict[str, tuple[Variant, tuple[dict, ...]]] = {
    "gpt2:124m@1024": (
        Variant("gpt2:124m", 1024, 64),
        ({"chunk": 0}, {"rows": 128}, {"xla_flags": NO_TRITON}, {"layers": "scan", "remat": "dots"},
         {"xla_flags": NO_GRAPHS}, {"rows": 256, "chunk": 16_384}),
    ),
    "llama:1b@2048": (
        Variant("llama:1b", 2048, 16),
        ({"rows": 32}, {"xla_flags": NO_TRITON}, {"chunk": 0}, {"rows": 32, "remat": "dots"},
         {"layers": "scan", "remat": "dots"}, {"xla_flags": NO_GRAPHS}),
    ),
    "gpt2:124m@2048": (Variant("gpt2:124m", 2048, 32), ({"chunk": 0}, {"rows": 64}, {"xla_flags": NO_TRITON})),
    "llama:1b@1024": (Variant("llama:1b", 1024, 32), ({"rows": 64}, {"xla_flags": NO_TRITON}, {"chunk": 0})),
}  # fmt: skip
SMOKE = {
    "gpt2:124m@32": (Variant("gpt2:124m", 32, 2, chunk=32), ({"rows": 4}, {"layers": "scan", "remat": "dots"})),
}


# --- The search ------------------------------------------------------------------------------------------------------


def search(begin: Variant, changes: tuple[dict, ...], measure: Callable[[Variant], dict]) -> Iterator[dict]:
    """Results of `begin` and of what each change makes of the best so far; then PyTorch's, largest batch first."""
    yield (best := measure(begin))
    tried = {begin}
    for change in changes:
        known = "error" not in best
        candidate = dataclasses.replace(best["variant"] if known else begin, **change)
        if candidate in tried:
            continue
        tried.add(candidate)
        yield (found := measure(candidate))
        if "error" not in found and (not known or found["tokens_per_second"] > best["tokens_per_second"]):
            best = found
    for rows in sorted({variant.rows for variant in tried}, reverse=True):
        yield (found := measure(Variant(begin.config, begin.length, rows, side="torch")))
        if "error" not in found or found.get("final"):
            return


def in_a_process(variant: Variant, mode: str, deadline: float) -> dict:
    """What `--worker` prints for the variant, or the reason why it printed nothing; never raises."""
    left = deadline - time.monotonic()
    if left < 20 and mode != "compile_only":
        return {"variant": variant, "error": "not measured: the time was up", "final": True}
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(EXPERIMENTS.parent), os.environ.get("PYTHONPATH")]))
    environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {variant.xla_flags}".strip()
    environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.94"
    if variant.side == "torch":
        environment["JAX_PLATFORMS"] = "cpu"  # for the config alone; the GPU is PyTorch's
    command = [sys.executable, __file__, "--worker", json.dumps(dataclasses.asdict(variant)), "--mode", mode]
    try:
        limit = max(20.0, min(VARIANT_SECONDS, left)) if mode != "compile_only" else None
        process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"variant": variant, "error": f"not finished after {limit:.0f} s"}
    lines = process.stdout.splitlines()
    if process.returncode or not lines:
        return {"variant": variant, "error": reason(process.stderr, process.returncode)}
    return {"variant": variant, **json.loads(lines[-1])}


def reason(stderr: str, status: int) -> str:
    """The line of a traceback that says what happened."""
    if "RESOURCE_EXHAUSTED" in stderr or "OutOfMemoryError" in stderr or "out of memory" in stderr.lower():
        return "out of memory"
    lines = [line.strip() for line in stderr.splitlines() if "Error" in line]
    return (lines[-1] if lines else f"exit status {status}")[:200]


# --- One variant, in its own process ---------------------------------------------------------------------------------


def worker(variant: Variant, mode: str) -> dict:
    if variant.side == "torch":
        try:
            import gpu_torch
        except ImportError as error:
            return {"error": f"PyTorch is not here: {error}", "final": True}
    import jax

    from gptjax.parallel.mesh import make_mesh

    if mode == "compile_only":
        from jax.experimental import topologies

        sys.path.append(str(EXPERIMENTS / "ahead_of_time"))
        from compile_for_gpu import H200

        devices = topologies.get_topology_desc(platform="cuda", target_config=H200, topology="1x1x1").devices
    else:
        devices = jax.devices()[:1]
    platform = "gpu" if mode == "compile_only" else devices[0].platform
    config = make_config(variant, platform, smoke=mode == "smoke")
    trainer = make_trainer_of(config, make_mesh(config.mesh, devices))
    with jax.set_mesh(trainer.mesh):
        facts = facts_of(trainer)
        if variant.side == "torch":
            steps, found = gpu_torch.make_side(config)
        else:
            steps, found = gptjax_side(trainer, run=mode != "compile_only")
        if facts["parameters"] != found["parameters"]:
            raise RuntimeError(f"PyTorch's model has {found['parameters']:,} parameters, not {facts['parameters']:,}")
        if mode != "compile_only":
            seconds = time_turns(steps, turns=3 if mode == "smoke" else 7, target=0.1 if mode == "smoke" else 1.0)
            facts |= speeds(seconds, variant.rows * variant.length, facts, peak_of(found["device"], config.model.dtype))
    return facts | {name: value() if callable(value) else value for name, value in found.items()}


def make_config(variant: Variant, platform: str, smoke: bool) -> Any:
    """The config of that name with the variant's settings, resolved; with `smoke`, a model of two small layers."""
    import runpy

    from ml_collections import ConfigDict, FrozenConfigDict

    from gptjax.config import validate
    from gptjax.model.resolve import resolve_model

    file, _, argument = variant.config.partition(":")
    config = runpy.run_path(str(EXPERIMENTS.parent / "configs" / f"{file}.py"))["get_config"](argument)
    config.model.update(layers=variant.layers, remat=variant.remat)
    config.model.vocab_size = (
        -(-config.model.vocab_size // 128) * 128
    )  # rows that no token uses; tensor cores want them
    config.model.max_positions = max(config.model.max_positions, variant.length)
    if smoke:
        config.model.update(num_layers=2, width=64, num_heads=4, vocab_size=512)
    config.data.sequence_length = variant.length
    config.training.update(batch_size=variant.rows, gradient_accumulation_steps=1, loss_chunk=variant.chunk)
    config.schedule.update(name="constant", warmup="0 steps")
    validate(config)
    config.model = ConfigDict(
        resolve_model(
            config.model, platform=platform, vocab_size=config.model.vocab_size, sequence_length=variant.length
        )
    )
    return FrozenConfigDict(config)


def make_trainer_of(config: Any, mesh: Any) -> Any:
    from gptjax.config import Units
    from gptjax.training.trainer import make_trainer

    units = Units(config.training.batch_size * config.data.sequence_length, total_steps=10_000)
    return make_trainer(config, mesh, 10_000, functools.partial(units.steps, field="schedule"))


def facts_of(trainer: Any) -> dict:
    from gptjax.training.metrics import count_parameters, flops_per_token

    params, config = trainer.abstract_state.params, trainer.config
    return {
        "parameters": count_parameters(params).total,
        "flops_per_token": flops_per_token(config.model, params, config.data.sequence_length),
        "attention": config.model.attention,
    }


def gptjax_side(trainer: Any, run: bool) -> tuple[Callable[[int], float] | None, dict]:
    """(steps, facts): `steps(n)` takes n steps and waits for them; None unless `run`. The batch is always the same."""
    import jax
    import numpy as np

    started = time.perf_counter()
    step = trainer.compile_train_step(trainer.abstract_batch())
    memory = step.memory_analysis()
    device = trainer.mesh.devices.flat[0]
    facts = {
        "compile_seconds": time.perf_counter() - started,
        "parameters": facts_of(trainer)["parameters"],
        "device": device.device_kind,
        "version": f"jax {jax.__version__}",
        "state_bytes": memory.argument_size_in_bytes,
        "work_bytes": memory.temp_size_in_bytes,
        "peak_bytes": lambda: (device.memory_stats() or {}).get("peak_bytes_in_use"),
    }
    if not run:
        return None, facts | {"peak_bytes": None}
    tokens = np.random.default_rng(0).integers(
        trainer.config.model.vocab_size, size=trainer.abstract_batch()["tokens"].shape
    )
    values = {"tokens": tokens, "targets": np.roll(tokens, -1, axis=-1), "weights": np.ones(tokens.shape)}
    batch = {n: jax.device_put(values[n].astype(s.dtype), s.sharding) for n, s in trainer.abstract_batch().items()}
    state = trainer.init()

    def steps(number: int) -> float:
        nonlocal state
        for _ in range(number):
            state, metrics = step(state, batch)
        return float(metrics["train/loss"])  # waits

    return steps, facts


def time_turns(steps: Callable[[int], float], turns: int, target: float) -> list[float]:
    """Seconds a step of each turn, which takes about `target` seconds, after a warm-up."""
    steps(2)
    started = time.perf_counter()
    steps(2)
    number = max(1, round(2 * target / (time.perf_counter() - started)))
    seconds = []
    for _ in range(turns):
        started = time.perf_counter()
        loss = steps(number)
        seconds.append((time.perf_counter() - started) / number)
    if not loss < float("inf"):
        raise RuntimeError(f"the loss is {loss}")
    return seconds


def peak_of(device: str, dtype: str) -> float | None:
    from gptjax.training.hardware import peak_flops_per_device

    return peak_flops_per_device(device, dtype)


def speeds(seconds: list[float], tokens: int, facts: dict, peak: float | None) -> dict:
    """Tokens a second, FLOP/s and MFU by both conventions at the median step, and every turn's seconds a step."""
    rate = tokens / statistics.median(seconds)
    flops = {name: rate * each for name, each in facts["flops_per_token"].items()}
    mfu = {name: value / peak if peak else None for name, value in flops.items()}
    return {"seconds_per_step": seconds, "tokens_per_second": rate, "flops_per_second": flops, "mfu": mfu}


# --- What is shown ---------------------------------------------------------------------------------------------------

MEASURED = (
    "| shape | side | settings | tokens/s, median (extremes) | ms/step | TFLOP/s causal · full | MFU causal · full "
    "| peak GiB | compile s |"
)
COMPILED = "| shape | settings | attention | state GiB | work GiB | both GiB | compile s |"


def row(shape: str, result: dict, mode: str) -> str:
    variant = result["variant"]
    names = [shape, variant.side, str(variant)] if mode != "compile_only" else [shape, str(variant)]
    if "error" in result:
        return f"| {' | '.join(names)} | {result['error']} |"
    if mode == "compile_only":
        state, work = result["state_bytes"] / 2**30, result["work_bytes"] / 2**30
        seconds = result["compile_seconds"]
        sizes = [result["attention"], f"{state:.1f}", f"{work:.1f}", f"{state + work:.1f}", f"{seconds:.0f}"]
        return f"| {' | '.join([*names, *sizes])} |"
    tokens = variant.rows * variant.length
    rates = [tokens / seconds for seconds in result["seconds_per_step"]]
    flops, mfu = result["flops_per_second"], result["mfu"]
    peak = result["peak_bytes"]
    figures = [
        f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
        f"{1e3 * tokens / statistics.median(rates):.1f}",
        " · ".join(f"{flops[name] / 1e12:.3g}" for name in ("causal", "full")),
        " · ".join("n/a" if mfu[name] is None else f"{mfu[name]:.1%}" for name in ("causal", "full")),
        f"{peak / 2**30:.1f}" if peak else "n/a",
        f"{result['compile_seconds']:.0f}",
    ]
    return f"| {' | '.join([*names, *figures])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=os.environ.get("OUT"), help="a folder; default $OUT, or none")
    parser.add_argument("--seconds", type=float, default=540, help="when to stop starting variants")
    parser.add_argument("--shapes", nargs="*", default=list(SEARCHES), choices=list(SEARCHES))
    parser.add_argument(
        "--compile_only", action="store_true", help="memory of every variant, for an H200 that is not here"
    )
    parser.add_argument("--smoke", action="store_true", help="a model of two small layers, a few steps, on any device")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--mode", default="measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(Variant(**json.loads(arguments.worker)), arguments.mode)))
        return

    mode = "smoke" if arguments.smoke else "compile_only" if arguments.compile_only else "measure"
    searches = SMOKE if arguments.smoke else {shape: SEARCHES[shape] for shape in arguments.shapes}
    measure = functools.partial(in_a_process, mode=mode, deadline=time.monotonic() + arguments.seconds)
    folder = Path(arguments.output) if arguments.output else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)

    def show(line: str) -> None:
        print(line, flush=True)
        if folder:
            with open(folder / "table.md", "a") as file:
                file.write(line + "\n")

    header = COMPILED if mode == "compile_only" else MEASURED
    show(header)
    show("|---" * (header.count("|") - 1) + "|")
    for shape, (begin, changes) in searches.items():
        results = each(begin, changes, measure) if mode == "compile_only" else search(begin, changes, measure)
        for result in results:
            show(row(shape, result, mode))
            if folder:
                line = {"shape": shape, **result, "variant": dataclasses.asdict(result["variant"])}
                with open(folder / "results.jsonl", "a") as file:
                    file.write(json.dumps(line) + "\n")


def each(begin: Variant, changes: tuple[dict, ...], measure: Callable[[Variant], dict]) -> Iterator[dict]:
    """Results of `begin` and of every single change of it."""
    for change in ({}, *changes):
        yield measure(dataclasses.replace(begin, **change))


if __name__ == "__main__":
    main()
