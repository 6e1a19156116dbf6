"""Memory and work of a training step: all parameters, the last block, or adapters over a base in 32, 16 or 8 bits.

python experiments/lora/memory.py

Steps of a GPT-2 of 6 layers and width 768 are compiled for one processor, and nothing is run. Memory is the
compiler's: the state (parameters, optimizer), and what the step needs beside it (activations, gradients). A checkpoint
has the state without what is frozen, which all checkpoints share.
"""

import jax

from gptjax.config import default
from gptjax.data.facts import DataFacts
from gptjax.parallel.compiled import products_of
from gptjax.planning import plan
from gptjax.settings import freeze
from gptjax.training.checkpoints.frozen_parameters import split

ADAPTERS = {"model.lora_rank": 16, "model.lora_alpha": 32.0}
VARIANTS = {
    "all parameters": {},
    "last block, norm": {
        "optimizer.rules": ((".*", "freeze", True), ("layers/5/.*|final_norm/.*", "freeze", False)),
    },
    "adapters, rank 16": ADAPTERS,
    "adapters, DoRA": ADAPTERS | {"model.lora_dora": True},
    "adapters, bfloat16 base": ADAPTERS | {"model.lora_base": "bfloat16"},
    "adapters, int8 base": ADAPTERS | {"model.lora_base": "int8"},
}
MEGABYTE = 2**20


def planned(fields):
    config = default()
    config.model.update(num_layers=6, width=768, num_heads=12, vocab_size=50_304, max_positions=512, dtype="float32")
    config.model.update(feedforward="gelu", layers="unroll", attention="xla")
    config.data.sequence_length = 512
    config.training.update(batch_size=2, loss_chunk=512)
    config.update_from_flattened_dict(fields)
    return plan(freeze(config), DataFacts(50_304), jax.devices()[:1])


def size_of(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) / MEGABYTE


def in_memory(made):
    with jax.set_mesh(made.mesh):
        compiled = made.trainer.compile_train_step(made.abstract_batch)
    sizes = [size_of(tree) for tree in (made.abstract_state.params, made.abstract_state.opt_state)]
    trained = sum(x.size for x in jax.tree.leaves(made.abstract_state.opt_state) if x.ndim) // 2
    work = compiled.memory_analysis().temp_size_in_bytes / MEGABYTE
    return trained, *sizes, work, products_of(compiled.as_text())[0] / 1e9


def on_disk(made):
    """MiB of every checkpoint, and of what is written once."""
    return [size_of(part) for part in split(made.abstract_state, made.trainer.frozen)]


COLUMNS = ("trained", "with optimizer state", "parameters, MiB", "optimizer, MiB", "step, MiB", "sum, MiB", "GFLOP")
COLUMNS += ("each checkpoint, MiB", "once, MiB")

if __name__ == "__main__":
    print(*("", *COLUMNS, ""), sep=" | ")
    print("|---" * len(COLUMNS) + "|")
    for name, fields in VARIANTS.items():
        made = planned(fields)
        trained, *memory, products = in_memory(made)
        print(
            "",
            name,
            f"{trained:,}",
            *(f"{x:,.0f}" for x in (*memory, sum(memory), products, *on_disk(made))),
            "",
            sep=" | ",
            flush=True,
        )
