"""Which parameters are trained. Only these have gradients and an optimizer's state.

If only some layers of a stack are trained, trained_layers.py gives the optimizer these layers of it.

A tree of the trained parameters is the tree of all parameters with None in place of the frozen ones, which JAX reads as
an empty tree. A loss that is differentiated with respect to it keeps nothing for the gradients of frozen parameters: no
array of their size, and none of the activations that only these gradients need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from gptjax.model.parameters import LAYERS, unstack
from gptjax.model.tree import map_with_path
from gptjax.settings import Settings
from gptjax.training.treatments import Treatment, each_treatment


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


class Untrained(NamedTuple):
    """Parameters that a token is multiplied with, for which a step computes less because rules freeze them.

    Attributes:
      frozen: those without a gradient, each of which saves 2 FLOPs per token.
      below: those below every trained parameter. No gradient flows through them either, so each saves another 2.
      layers_below: the share of the layers that are below.
    """

    frozen: int
    below: int
    layers_below: float


AFTER_LAYERS = ("final_norm", "head", "head_bias")  # what a token reaches after the layers


def untrained(declared: Any, treatments: Mapping[str, Treatment]) -> Untrained:
    """The parameters for which the backward pass computes less, or nothing.

    Which layers lie below all trained ones is known for models that are one stack of layers, or two in sequence.
    """
    frozen = 0
    trained_layers: dict[tuple[str, ...], list[bool]] = {}  # of each stack
    sizes: dict[tuple[str, ...], int] = {}
    starts_trained = False
    for path, parameter in flatten_dict(declared).items():
        treatment = treatments["/".join(path)]
        count = parameter.num_layers
        layers = [each.method != "frozen" for each in treatment.per_layer or [treatment] * max(count, 1)]
        is_multiplied = parameter.kind == "matrix" or parameter.tied
        if path[0] == "body" and "vocab" in parameter.axes:  # a classifier has no output layer
            is_multiplied = False
        if is_multiplied and parameter.trained:  # others are known to be frozen (model/flops.py)
            frozen += parameter.active_size * layers.count(False) // len(layers)
        if count:
            stack = path[: path.index(parameter.stacked_as) + 1]
            before = trained_layers.get(stack, [False] * count)
            trained_layers[stack] = [one or other for one, other in zip(before, layers)]
            sizes[stack] = sizes.get(stack, 0) + parameter.active_size * is_multiplied // count
        elif path[-1] not in AFTER_LAYERS and "final_norm" not in path:
            starts_trained |= layers[0]
    stacks = sorted(trained_layers, key=lambda stack: stack[-1] != "first_layers")
    if starts_trained or len({stack[:-1] for stack in stacks}) != 1 or not {stack[-1] for stack in stacks} <= {*LAYERS}:
        return Untrained(frozen, 0, 0.0)
    in_order = [(stack, is_trained) for stack in stacks for is_trained in trained_layers[stack]]
    first = next((number for number, (_, is_trained) in enumerate(in_order) if is_trained), len(in_order))
    return Untrained(frozen, sum(sizes[stack] for stack, _ in in_order[:first]), first / len(in_order))
