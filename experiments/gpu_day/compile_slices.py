"""Compiles the step of every training slice for one H200 on a machine without GPUs, and reports its memory.

python experiments/gpu_day/compile_slices.py          (experiments/ahead_of_time says what to install)

Settings with flags for XLA are left out: flags hold for a whole process.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "ahead_of_time"))
import compile_for_gpu  # first: it sets what JAX reads at its import
import jax
from measure_training import compile_step, make_plan
from slices import SLICES

from gptjax.forecast.devices import gpus_of


def main() -> None:
    names = sys.argv[1:] or [each.name for each in SLICES if each.options.get("side") == "gptjax"]
    devices = gpus_of(compile_for_gpu.H200, 1)
    print("| slice | setting | attention | state GiB | work GiB | both GiB | compiled in |")
    print("|---|---|---|---|---|---|---|")
    for each in (each for each in SLICES if each.name in names):
        for setting in (setting for setting in each.options["settings"] if "xla_flags" not in setting):
            made = make_plan(each.options["config"], each.options["length"], setting, devices, {})
            with jax.set_mesh(made.mesh):
                _, facts = compile_step(made.trainer)
            state, work = facts["state_bytes"] / 2**30, facts["work_bytes"] / 2**30
            shown = ", ".join(f"{name} {value}" for name, value in setting.items())
            print(f"| {each.name} | {shown} | {made.config.model.attention} | {state:.1f} | {work:.1f} "
                  f"| {state + work:.1f} | {facts['compile_seconds']:.0f} s |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
