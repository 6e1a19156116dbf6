"""How much memory it takes to load a trained model: two ways, each in its own process.

python experiments/from_scratch/loading.py --workdir=runs/verdict
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import jax

from gptjax.model.families import family_of
from gptjax.training.checkpoints.loading import load_for_inference, saved_config


def peak_bytes() -> int:
    """The largest memory that this process has had so far (Linux counts it in KiB)."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def load(workdir: str, way: str) -> None:
    """Prints the size of the parameters, and by how much loading them raised the peak memory."""
    config = saved_config(workdir)
    family = family_of(config.model)
    jax.block_until_ready(jax.numpy.zeros(1))  # starts JAX
    before, made = peak_bytes(), None
    if way == "initialized first":
        made = jax.block_until_ready(family.init_params(jax.random.key(0)))
    params, _, _ = load_for_inference(workdir, "latest")
    jax.block_until_ready((params, made))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    print(f"| {way} | {size / 1e6:.0f} MB | {(peak_bytes() - before) / 1e6:.0f} MB |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--way", choices=("initialized first", "straight"), help="only this way, in this process")
    options = parser.parse_args()
    if options.way:
        return load(options.workdir, options.way)
    print("| way | parameters | memory that loading took, at most |\n|---|---|---|", flush=True)
    for way in ("initialized first", "straight"):
        subprocess.run([sys.executable, __file__, f"--workdir={options.workdir}", f"--way={way}"], check=True)


if __name__ == "__main__":
    main()
