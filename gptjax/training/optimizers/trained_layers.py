"""The optimizer's statistics of a stack of which some layers are frozen: only the trained layers have them.

A stack [L, …] with K trained layers has statistics [K, …]. `on_trained_layers` gives an Optax transformation these
layers of the gradients and the parameters, and puts zeros into the updates of the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gptjax.model.parameters import LAYERS, Parameter
from gptjax.model.tree import map_with_path
from gptjax.training.optimizers.treatments import Treatment


def trained_layers(treatments: Mapping[str, Treatment]) -> dict[str, np.ndarray]:
    """Path of a stack of which some layers are frozen → the numbers of its trained layers."""
    layers = {path: [each.method != "frozen" for each in treatment.per_layer] for path, treatment in treatments.items()}
    return {path: np.flatnonzero(trained) for path, trained in layers.items() if not all(trained)}


def declared_for_updates(declared: Any, kept: Mapping[str, np.ndarray]) -> Any:
    """The declarations of what the optimizer updates. Of a stack, these are only its trained layers.

    kept: as `trained_layers` returns it.
    """

    def shortened(path: str, parameter: Parameter) -> Parameter:
        if path not in kept:
            return parameter
        stack = {axis: len(kept[path]) if axis in LAYERS else size for axis, size in parameter.stack.items()}
        return dataclasses.replace(parameter, stack=stack)

    return map_with_path(shortened, declared)


def on_trained_layers(
    transformation: optax.GradientTransformation, kept: Mapping[str, np.ndarray]
) -> optax.GradientTransformation:
    """The transformation of whole stacks that applies `transformation` to their trained layers."""
    if not kept:
        return transformation

    def of_trained(tree: Any) -> Any:
        return map_with_path(lambda path, x: _taken(x, kept[path]) if path in kept else x, tree)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        given = None if params is None else of_trained(params)
        updates, state = transformation.update(of_trained(gradients), state, given)

        def whole(path: str, update: jax.Array, gradient: jax.Array) -> jax.Array:
            return _put_back(update, kept[path], len(gradient)) if path in kept else update

        return map_with_path(whole, updates, gradients), state

    return optax.GradientTransformation(lambda params: transformation.init(of_trained(params)), update)


def _taken(x: jax.Array, layers: np.ndarray) -> jax.Array:
    return x[layers[0] : layers[-1] + 1] if _are_consecutive(layers) else x[layers]


def _put_back(x: jax.Array, layers: np.ndarray, num_layers: int) -> jax.Array:
    if _are_consecutive(layers):
        around = (int(layers[0]), num_layers - 1 - int(layers[-1]))
        return jnp.pad(x, (around, *((0, 0),) * (x.ndim - 1)))
    return jnp.zeros((num_layers, *x.shape[1:]), x.dtype).at[layers].set(x)


def _are_consecutive(layers: np.ndarray) -> bool:
    """Whether the layers are a slice of the stack, which costs less than a choice of rows."""
    return len(layers) == layers[-1] + 1 - layers[0]
