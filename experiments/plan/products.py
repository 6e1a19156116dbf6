"""The memory of single products and of small fusions on processors, beside what the plan adds for them.

  python experiments/plan/products.py       # a minute; prints the table of README.md

Each program is run once before, so that threads and code are not counted. What it takes is the growth of the resident
memory to its highest, without its result and the temporary arrays of the compiler.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from one_run import MMAP_THRESHOLD, peak, resident

from gptjax.forecast.product_buffers import product_buffers
from gptjax.forecast.program import parse_program
from gptjax.parallel.compilation import training_options

Shapes = list[tuple[int, ...]]


def gated(x: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    return (jax.nn.silu(x @ gate) * (x @ up)) @ down


def orthogonal(x: jax.Array) -> jax.Array:
    """Five iterations like Muon's, of stacked matrices [L, D, F]."""
    for _ in range(5):
        square = jnp.einsum("ldf,lef->lde", x, x)
        x = 3.4 * x + jnp.einsum("lde,lef->ldf", 2.03 * jnp.einsum("lde,leg->ldg", square, square) - 4.7 * square, x)
    return x


def adapted(x: jax.Array, weight: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """A product with an adapter of rank 8 (LoRA)."""
    return x @ weight + (x @ a) @ b


def of_logits(gradient: jax.Array, scale: jax.Array, logits: jax.Array, head: jax.Array, norm: jax.Array) -> jax.Array:
    """What the loss passes back through a frozen head: its gradient is computed where it is multiplied.

    gradient, logits: [B, T, V]; scale: [B, T, 1]; head: [V, D]; norm: [B, T, D].
    """
    return norm * jnp.einsum("btv,vd->btd", gradient + scale * jnp.exp(logits), head)


PROGRAMS: list[tuple[str, Callable[..., jax.Array], list[Shapes]]] = [
    ("a product alone, YNNPACK", lambda a, b: a @ b, [[(512, 1024), (1024, 16_384)], [(2048, 4096), (4096, 1024)]]),
    ("a product of aᵀ, Eigen", lambda a, b: a.T @ b, [[(1024, 512), (1024, 24_576)], [(4096, 512), (4096, 12_288)]]),
    (
        *("a product and a sum", lambda a, b, c: c + a @ b),
        [[(m, k), (k, n), (m, n)] for m, k, n in ((512, 1024, 16_384), (512, 2048, 16_384), (512, 2048, 4096))],
    ),
    (
        *("a gated feed-forward layer", gated),
        [[(rows, 512), (512, 1536), (512, 1536), (1536, 512)] for rows in (2048, 4096, 8192)],
    ),
    (
        *("a gated feed-forward layer of [B, T, D]", gated),
        [[(8, 1024, 512), (512, 1536), (512, 1536), (1536, 512)]],
    ),
    ("two products", lambda a, b, c: (a @ b) @ c, [[(8192, 512), (512, 1536), (1536, n)] for n in (64, 512)]),
    (
        *("three products and their sum", lambda a, b, c, d: a @ b + a @ c + a @ d),
        [[(8192, 512), (512, 1536), (512, 1536), (512, 1536)]],
    ),
    ("a product and LoRA's", adapted, [[(8192, 1024), (1024, 1536), (1024, 8), (8, 1536)]]),
    (
        *("a scaled matrix and a product", lambda a, b, c: (a * b) @ c),
        [[(m, 8192), (m, 1), (8192, n)] for m, n in ((2048, 64), (2048, 128), (2048, 1024), (1024, 2048))],
    ),
    (
        *("the same, times another", lambda a, b, c, d: d * ((a * b) @ c)),
        [[(2048, 8192), (2048, 1), (8192, 384), (2048, 384)]],
    ),
    (
        *("a product with a scaled matrix", lambda a, b, c: a @ (b * c)),
        [[(512, 1024), (1024, 1), (1024, 16_384)]],
    ),
    (
        *("the same, and a sum", lambda a, b, c, d: d + a @ (b * c)),
        [[(512, 1024), (1024, 1), (1024, 16_384), (512, 16_384)]],
    ),
    (
        *("the gradient of logits and the head", of_logits),
        [
            [(8, t, v), (8, t, 1), (8, t, v), (v, 320), (8, t, 320)]
            for t, v in ((256, 6144), (128, 6144), (256, 12_288))
        ],
    ),
    ("five iterations of Newton and Schulz", orthogonal, [[(3, 256, 1024)], [(6, 512, 1024)], [(6, 512, 512)]]),
]


def measured(function: Callable[..., jax.Array], shapes: Shapes) -> tuple[int, int]:
    """(bytes that a program takes beside its arrays, what the plan adds for it)."""
    given = [jnp.full(shape, 1e-3) for shape in shapes]
    options = training_options(jax.make_mesh((1,), ("data",)), "float32")
    compiled = jax.jit(function).lower(*given).compile(options)
    jax.block_until_ready(compiled(*given))
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident memory starts anew
    result = jax.block_until_ready(compiled(*given))
    taken = peak() - before - result.nbytes - compiled.memory_analysis().temp_size_in_bytes
    return taken, product_buffers(parse_program(compiled.as_text()))


def main() -> None:
    ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 2**20)  # freed arrays return to the system at once
    print("| program | arguments | measured, MiB | planned, MiB |\n|---|---|---|---|")
    for name, function, sizes in PROGRAMS:
        for shapes in sizes:
            taken, planned = measured(function, shapes)
            text = ", ".join(" × ".join(map(str, shape)) for shape in shapes)
            print(f"| {name} | {text} | {taken / 2**20:.1f} | {planned / 2**20:.1f} |", flush=True)


if __name__ == "__main__":
    main()
