# ruff: noqa: E402 (the number of JAX devices must be set before JAX is used)
"""One of several processes: trains a few steps on its share of random batches, is evaluated, then generates a text.

Prints the losses, a checksum of the parameters, the score, the text's tokens, and what the processes agree on.
"""

import sys

import jax

process_id, num_processes, port, devices = map(int, sys.argv[1:5])
jax.config.update("jax_num_cpu_devices", devices)
jax.config.update("jax_default_matmul_precision", "highest")
if num_processes > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes, process_id)

import json

import numpy as np

from gptjax.config import default
from gptjax.data import open_dataset
from gptjax.data.facts import DataFacts
from gptjax.evaluation.validation import validate
from gptjax.inference.generate import Generator
from gptjax.parallel.distributed import fetch, local_rows, processes_on_this_host, put_batch, smallest
from gptjax.planning import plan
from gptjax.tokenizer import CharacterTokenizer

config = default()
config.model.update(num_layers=1, width=16, num_heads=4, num_kv_heads=2)
config.data.update(path=sys.argv[5], sequence_length=8)
config.training.update(batch_size=16, gradient_accumulation_steps=2, duration="20 steps")
config.mesh.update(data=1, fsdp=2, tensor=2)
made = plan(config, DataFacts(vocab_size=32), jax.devices())
config, mesh, trainer = made.config, made.mesh, made.trainer
jax.set_mesh(mesh)
step = trainer.compile_train_step(made.abstract_batch)
state = trainer.init()
rows = local_rows(mesh, 16, 2)
losses = []
for number in range(4):
    rng = np.random.default_rng(number)
    batch = {name: rng.integers(0, 32, (16, 8)).astype(np.int32) for name in ("tokens", "targets")}
    batch["weights"] = rng.integers(0, 2, (16, 8)).astype(np.float32)
    state, metrics = step(state, put_batch(mesh, {name: a[rows] for name, a in batch.items()}, rows, 16, 2))
    losses.append(float(metrics["train/loss"]))
params = fetch(state.params)
total = float(sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(params)))
validation = open_dataset(
    config.data, "validation", seed=0, batch_size=4, tokens=75
)  # ten windows: two and a half batches
tokenizer = CharacterTokenizer("abcdefgh")
evaluation_step = trainer.evaluation_step(tokenizer)
scored = validate(evaluation_step, trainer.objective.scores_of, state.params, validation, mesh, 4)
generator = Generator(state.params, config, tokenizer)
written = [completion.tokens for completion in generator.generate(["ab", "cdef"], max_new_tokens=4, num_samples=2)]
room = [smallest((5 - process_id) << 33), processes_on_this_host()]  # bytes do not fit into 32 bits
print(json.dumps(dict(losses=losses, total=total, rows=rows.tolist(), score=scored, written=written, room=room)))
