"""Which parameters are trained. Only these have gradients and an optimizer's state.

A tree of the trained parameters is the tree of all parameters with None in place of the frozen ones, which JAX reads as
an empty tree. A loss that is differentiated with respect to it keeps nothing for the gradients of frozen parameters: no
array of their size, and none of the activations that only these gradients need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict

from gptjax.model.parameters import unstack
from gptjax.settings import Settings
from gptjax.training.optimizer import Treatment, each_treatment
from gptjax.tree import map_with_path


def trained_only(tree: Any, treatments: Mapping[str, Treatment]) -> Any:
    """The tree with None in place of every parameter that is frozen in all layers of its stack."""
    frozen = {tuple(path.split("/")): treatment.method == "frozen" for path, treatment in treatments.items()}
    return jax.tree.map(lambda still, leaf: None if still else leaf, unflatten_dict(frozen), tree)


def completed(trained: Any, params: Any) -> Any:
    """The parameters with those of `trained` in their places."""
    return jax.tree.map(lambda new, old: old if new is None else new, trained, params, is_leaf=lambda x: x is None)


def zero_in_frozen_layers(gradients: Any, treatments: Mapping[str, Treatment]) -> Any:
    """Zeroes the gradients of frozen layers in a stack of which other layers are trained, so that no norm includes
    them."""

    def unless_frozen(path: str, gradient: jax.Array) -> jax.Array:
        if not (layers := treatments[path].per_layer):
            return gradient
        keep = jnp.asarray([layer.method != "frozen" for layer in layers], gradient.dtype)
        return gradient * keep.reshape(-1, *(1,) * (gradient.ndim - 1))

    return map_with_path(unless_frozen, gradients)


def stop_at_frozen_layers(config: Settings, declared: Any, treatments: Mapping[str, Treatment]) -> Callable[[Any], Any]:
    """Makes the function from parameters to those that the model is applied to while its loss is differentiated.

    If some layers of a stack are frozen, and layers run unrolled, the stack becomes a list of layers, and the frozen
    ones stop the gradient. Nothing is then computed backwards below the first trained layer. A scan treats its layers
    alike, and so do the stages of a pipeline: there, `zero_in_frozen_layers` is all that freezes single layers.
    """
    frozen = {path for path, treatment in each_treatment(treatments) if treatment.method == "frozen"} - set(treatments)
    if not frozen or config.model.layers != "unroll" or config.mesh.pipeline > 1:
        return lambda params: params

    def stopped(params: Any) -> Any:
        _, by_layer = unstack(declared, params)
        return map_with_path(lambda path, x: jax.lax.stop_gradient(x) if path in frozen else x, by_layer)

    return stopped
