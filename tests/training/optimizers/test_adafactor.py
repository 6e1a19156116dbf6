"""Adafactor against a NumPy implementation of the formulas in its papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import default
from gptjax.model.parameters import Parameter
from gptjax.model.tree import leaves_by_path
from gptjax.training.optimizers.adafactor import LARGEST_DECAY, decay_of
from gptjax.training.optimizers.optimizer import make_optimizer

# path → its declaration and its matrices' [layers, rows, columns]; None: each entry has its own second moment
PARAMETERS = {
    "embedding": (("lookup", {}, {"vocab": 70}, {"embed": 40}), (1, 70, 40)),
    "head": (("matrix", {}, {"embed": 31}, {"vocab": 40}), None),
    "other": (("matrix", {}, {"embed": 32}, {"mlp": 33}), (1, 32, 33)),  # the smallest matrix that is factored
    # more layers than rows, and heads are not separate matrices
    "layers/query": (("matrix", {"layers": 50}, {"embed": 36}, {"heads": 4, "head": 10}), (50, 36, 40)),
    "layers/output": (("matrix", {"layers": 50}, {"heads": 4, "head": 10}, {"embed": 36}), (50, 40, 36)),
    "layers/experts": (("matrix", {"layers": 2, "experts": 3}, {"embed": 36}, {"mlp": 33}), (6, 36, 33)),
    "layers/query_bias": (("vector", {"layers": 50}, {}, {"heads": 33, "head": 35}), None),
    "layers/scale": (("vector", {"layers": 50}, {}, {"embed": 64}), None),  # fifty vectors are not a matrix
    "final_scale": (("vector", {}, {}, {"embed": 64}), None),
}


def declared():
    nested = {"layers": {}}
    for path, ((kind, stack, inputs, outputs), _) in PARAMETERS.items():
        inside = nested["layers"] if path.startswith("layers/") else nested
        inside[path.split("/")[-1]] = Parameter(kind, inputs, outputs, jax.nn.initializers.zeros, stack)
    return nested


def tree(generator):
    def draw(parameter):
        scales = generator.choice([1e-3, 1.0, 30.0], parameter.shape[-1:])
        return (generator.normal(size=parameter.shape) * scales).astype(np.float32)

    return jax.tree.map(draw, declared())


def replay(path, gradients, momentum):
    """Directions of descent by Shazeer and Stern's algorithm 4 with Zhai et al.'s changes, in float64."""
    (_, stack, inputs, outputs), matrices = PARAMETERS[path]
    shape = (*stack.values(), *inputs.values(), *outputs.values())
    rows = columns = whole = moment = 0.0
    layer_axes = tuple(range(len(stack), len(shape)))
    directions = []
    for t, gradient in enumerate(gradients, start=1):
        decay = min(1 - t**-0.8, 0.999)
        if matrices is None:
            whole = decay * whole + (1 - decay) * (gradient**2 + 1e-30)
            update = gradient / np.sqrt(whole)
        else:
            g = gradient.reshape(matrices)  # per layer and expert
            rows = decay * rows + (1 - decay) * np.mean(g**2 + 1e-30, axis=2, keepdims=True)
            columns = decay * columns + (1 - decay) * np.mean(g**2 + 1e-30, axis=1, keepdims=True)
            update = (g / np.sqrt(rows * columns / rows.mean(axis=1, keepdims=True))).reshape(shape)
        update = update / np.maximum(1.0, np.sqrt(np.mean(update**2, axis=layer_axes, keepdims=True)))
        moment = momentum * moment + (1 - momentum) * update
        directions.append(moment)
    return directions


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_equals_the_papers_formulas(momentum):
    generator = np.random.default_rng(0)
    params, series = tree(generator), [tree(generator) for _ in range(4)]
    config = default().optimizer
    config.update(name="adafactor", beta1=momentum, weight_decay=0.0)
    optimizer = make_optimizer(config, lambda peak: lambda step: jnp.float32(1.0), declared())
    state, update_of = jax.jit(optimizer.init)(params), jax.jit(optimizer.update)
    for step, gradients in enumerate(series):
        updates, state = update_of(gradients, state, params)
        for path, update in leaves_by_path(updates).items():
            past = [np.asarray(leaves_by_path(g)[path], np.float64) for g in series[: step + 1]]
            np.testing.assert_allclose(-update, replay(path, past, momentum)[-1], rtol=2e-5, atol=1e-7, err_msg=path)


def test_a_zero_gradient_changes_nothing():
    params = tree(np.random.default_rng(0))
    config = default().optimizer
    config.update(name="adafactor", weight_decay=0.0)
    optimizer = make_optimizer(config, lambda peak: lambda step: jnp.float32(1.0), declared())
    state = jax.jit(optimizer.init)(params)
    updates, _ = jax.jit(optimizer.update)(jax.tree.map(np.zeros_like, params), state, params)
    assert all(not np.asarray(update).any() for update in jax.tree.leaves(updates))


def test_the_decay_of_second_moments_is_limited():
    decays = [float(decay_of(jnp.int32(count))) for count in (0, 1, 9, 999, 10**6)]
    np.testing.assert_allclose(decays[:3], [0.0, 1 - 2**-0.8, 1 - 10**-0.8], rtol=1e-6)
    assert LARGEST_DECAY == 0.999 and decays[3:] == pytest.approx([1 - 1000**-0.8, 0.999], rel=1e-6)
