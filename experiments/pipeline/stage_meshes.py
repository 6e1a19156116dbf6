"""One program for all stages of a pipeline, or one program per stage with `jax.device_put` between their meshes?

python experiments/pipeline/stage_meshes.py    # prints the table of README.md

Both run the same layers, GPipe and micro-batches on four CPU devices, and return the loss and all gradients.
`one program` is gptjax/parallel/pipeline.py.
"""

from __future__ import annotations

import inspect
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gptjax.parallel import pipeline
from gptjax.parallel.mesh import make_mesh
from gptjax.settings import MeshSettings

STAGES, MICROBATCHES = 4, 8
LAYERS, WIDTH, HEADS, VOCABULARY, ROWS, LENGTH = 8, 256, 4, 4096, 32, 128
ROUNDS = 9
Params = dict[str, Any]
Gradient = tuple[jax.Array, Params]


def layer(x_BTD: jax.Array, weights: Params) -> tuple[jax.Array, None]:
    """Attention and a feed-forward layer, without learned norms."""

    def normalized(x: jax.Array) -> jax.Array:
        return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)

    q, k, v = jnp.split(normalized(x_BTD) @ weights["qkv"], 3, axis=-1)
    q, k, v = (a.reshape(*a.shape[:2], HEADS, -1) for a in (q, k, v))
    attended = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    x_BTD = x_BTD + attended.reshape(x_BTD.shape) @ weights["output"]
    return x_BTD + jax.nn.relu(normalized(x_BTD) @ weights["up"]) @ weights["down"], None


def run(layers: Params, x_BTD: jax.Array, seen: Any = None, keys_LB: Any = None) -> tuple[jax.Array, dict]:
    return jax.lax.scan(layer, x_BTD, layers)[0], {}


def loss_of(embedding: jax.Array, x_BTD: jax.Array, tokens_BT: jax.Array) -> jax.Array:
    log_probs = jax.nn.log_softmax(x_BTD[:, :-1] @ embedding.T)
    return -jnp.sum(jnp.take_along_axis(log_probs, tokens_BT[:, 1:, None], axis=-1)) / (ROWS * (LENGTH - 1))


def one_program(params: Params, tokens_BT: jax.Array) -> jax.Array:
    schedule = pipeline.Schedule(STAGES, MICROBATCHES)
    x_BTD = params["embedding"][tokens_BT]
    x_BTD, _ = pipeline.pipelined(run, params["layers"], x_BTD, (), None, schedule=schedule, keep=lambda *_, **__: True)
    return loss_of(params["embedding"], x_BTD, tokens_BT)


class StageMeshes:
    """GPipe over programs of single stages. The first stage embeds, and the last one has the head and the loss."""

    def __init__(self) -> None:
        self.forward = jax.jit(lambda layers, x: jax.vjp(lambda *of: run(*of)[0], layers, x))
        self.backward = jax.jit(lambda pull, cotangent: pull(cotangent))
        self.embed = jax.jit(lambda embedding, tokens: embedding[tokens])
        self.embed_backward = jax.jit(
            lambda embedding, tokens, cotangent: jax.vjp(lambda e: e[tokens], embedding)[1](cotangent)[0]
        )
        self.head = jax.jit(jax.value_and_grad(loss_of, (0, 1)))
        self.add = jax.jit(lambda a, b: jax.tree.map(jnp.add, a, b), donate_argnums=0)
        self.peak = 0

    def __call__(self, stages: list[Params], embeddings: list[jax.Array], tokens: list[list[jax.Array]]) -> Gradient:
        """embeddings, tokens: copies on the first and on the last stage's device."""
        devices, pulls = jax.devices(), [[] for _ in stages]
        total: list[Any] = [None] * STAGES
        outer: list[Any] = [None, None]
        loss, heads = None, []
        for micro in range(MICROBATCHES):
            x = self.embed(embeddings[0], tokens[0][micro])
            for number, layers in enumerate(stages):
                x, pull = self.forward(layers, jax.device_put(x, devices[number]))
                pulls[number].append(pull)
            part, (of_head, cotangent) = self.head(embeddings[1], x, tokens[1][micro])
            loss = part if loss is None else loss + part
            outer[1] = of_head if outer[1] is None else self.add(outer[1], of_head)
            heads.append(cotangent)
        self.note_memory()
        for micro in reversed(range(MICROBATCHES)):
            cotangent = heads.pop()
            for number in reversed(range(STAGES)):
                of_layers, cotangent = self.backward(pulls[number].pop(), jax.device_put(cotangent, devices[number]))
                total[number] = of_layers if total[number] is None else self.add(total[number], of_layers)
            of_lookup = self.embed_backward(embeddings[0], tokens[0][micro], cotangent)
            outer[0] = of_lookup if outer[0] is None else self.add(outer[0], of_lookup)
        return loss, {"layers": total, "embedding": self.add(outer[0], jax.device_put(outer[1], devices[0]))}

    def note_memory(self) -> None:
        """Counts the arrays of the fullest device between the forward and the backward passes."""
        held = dict.fromkeys(jax.devices(), 0)
        for array in jax.live_arrays():
            for shard in array.addressable_shards:
                held[shard.device] += shard.data.nbytes
        self.peak = max(self.peak, *held.values())


def lines(*of: Any) -> int:
    return sum(len(inspect.getsource(each).splitlines()) for each in of)


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", STAGES)
    draw = np.random.default_rng(0)
    shapes = {"qkv": (WIDTH, 3 * WIDTH), "output": (WIDTH, WIDTH), "up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}
    params = {name: draw.normal(0, 0.02, (LAYERS, *shape)).astype(np.float32) for name, shape in shapes.items()}
    params = {"layers": params, "embedding": draw.normal(0, 0.02, (VOCABULARY, WIDTH)).astype(np.float32)}
    tokens = draw.integers(0, VOCABULARY, (ROWS, LENGTH)).astype(np.int32)

    mesh, devices = make_mesh(MeshSettings(data=1, pipeline=STAGES), jax.devices()), jax.devices()
    by_stage, whole = (NamedSharding(mesh, P(axis)) for axis in (pipeline.AXIS, None))
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, {"layers": by_stage, "embedding": whole})
        rows = jax.device_put(tokens, by_stage)
        compiled = jax.jit(jax.value_and_grad(one_program)).lower(placed, rows).compile()
    memory = compiled.memory_analysis()

    parts = {name: np.split(array, STAGES) for name, array in params["layers"].items()}
    stages = [jax.device_put({name: parts[name][n] for name in parts}, devices[n]) for n in range(STAGES)]
    ends = (devices[0], devices[-1])
    embeddings = [jax.device_put(params["embedding"], device) for device in ends]
    pieces = [[jax.device_put(part, device) for part in np.split(tokens, MICROBATCHES)] for device in ends]
    by_stages = StageMeshes()

    results, seconds = {}, {"one program": [], "stage meshes": []}
    for number in range(ROUNDS + 1):
        for name, step in (
            ("one program", lambda: compiled(placed, rows)),
            ("stage meshes", lambda: by_stages(stages, embeddings, pieces)),
        ):
            wall, processor = time.perf_counter(), time.process_time()
            results[name] = jax.block_until_ready(step())
            if number:  # the first round compiles
                seconds[name].append((time.perf_counter() - wall, time.process_time() - processor))
    one, other = (results[name] for name in seconds)
    other[1]["layers"] = jax.tree.map(lambda *parts: np.concatenate(parts), *other[1]["layers"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), one, other)

    peaks = (memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes, by_stages.peak)
    code = (lines(pipeline.pipelined, pipeline._flow, pipeline._cut, pipeline._pick), lines(StageMeshes))
    print("| | seconds per step | processor seconds per step | MiB on the fullest device | lines of code |")
    print("|---|---|---|---|---|")
    for (name, times), peak, length in zip(seconds.items(), peaks, code):
        wall, processor = (statistics.median(column) for column in zip(*times))
        print(f"| {name} | {wall:.2f} | {processor:.2f} | {peak / 2**20:.0f} | {length} |")


if __name__ == "__main__":
    main()
