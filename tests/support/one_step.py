"""The loss and the gradients of one training step, as a mesh of the first devices computes them."""

import jax
import numpy as np

from gptjax.data.facts import DataFacts
from gptjax.parallel.distributed import local_rows, put_batch
from gptjax.planning import plan

VOCABULARY = 32  # of the data
# The step subtracts a multiple of the gradient so large that the new parameters give it with small rounding errors.
RATE = 100.0
PLAIN = dict(optimizer__name="sgd", optimizer__learning_rate=RATE, optimizer__weight_decay=0.0, optimizer__momentum=0.0)
PLAIN |= dict(optimizer__gradient_clip=0.0, schedule__name="constant", schedule__warmup="0 steps")


def planned(config, devices):
    """The plan of a step on the first devices; raises ConfigError if the config is refused."""
    return plan(config, DataFacts(VOCABULARY, num_classes=3), jax.devices()[:devices])


def step_of(config, devices, seed=0):
    """(loss, gradients) of a config with the fields PLAIN, with random parameters and a random batch."""
    made = planned(config, devices)
    trainer, training, draw = made.trainer, config.training, np.random.default_rng(seed)

    def drawn(x):
        return draw.normal(0, 0.3, x.shape).astype(x.dtype)

    params = jax.tree.map(drawn, made.abstract_state.params)
    companions = jax.tree.map(lambda x: jax.device_put(drawn(x), x.sharding), trainer.companions)
    batch = random_batch(trainer.objective.row_fields(), training.batch_size, draw)
    rows = local_rows(made.mesh, training.batch_size, training.gradient_accumulation_steps)
    with jax.set_mesh(made.mesh):
        compiled = trainer.compile_train_step(made.abstract_batch)
        placed = put_batch(made.mesh, batch, rows, training.batch_size, training.gradient_accumulation_steps)
        state, metrics = compiled(trainer.init(params), placed, **companions)
        gradients = jax.tree.map(lambda old, new: (old - new) / RATE, params, jax.device_get(state.params))
    return float(metrics["train/loss"]), gradients


def random_batch(row_fields, rows, draw):
    """Rows of very different lengths; packed rows have two documents or pairs each, and padding."""
    batch = {}
    for name, field in row_fields.items():
        shape = (rows, *field.shape)
        if name.endswith("weights"):
            batch[name] = draw.integers(0, 2, shape)
        elif name == "logprobs":
            batch[name] = draw.normal(-3.5, 0.3, shape)
        elif name == "rewards":
            batch[name] = draw.integers(0, 2, shape)
        elif name == "labels":
            batch[name] = draw.integers(0, 3, shape)
        elif name.endswith(("segments", "positions")):
            kind = name.rpartition("_")[2]
            places, second = np.arange(shape[1]), np.arange(rows)[:, None] % (shape[1] - 2) + 1
            segments = np.where(places < second, 1, np.where(places < shape[1] - 1, 2, 0))
            if "labels" in row_fields:
                segments %= 2
            batch[name] = segments if kind == "segments" else places - np.where(segments == 2, second, 0)
        else:
            batch[name] = draw.integers(0, VOCABULARY, shape)
    return {name: array.astype(row_fields[name].dtype) for name, array in batch.items()}


def assert_same(one, other, tolerance=1e-4):
    """tolerance: the largest difference in a gradient, as a share of its largest number."""
    np.testing.assert_allclose(one[0], other[0], rtol=tolerance / 10)

    def same(a, b):
        np.testing.assert_allclose(a, b, atol=tolerance * max(np.abs(a).max(), 1e-3), rtol=0)

    jax.tree.map(same, one[1], other[1])
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(one[1])) > 1e-2
