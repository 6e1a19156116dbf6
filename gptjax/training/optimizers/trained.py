"""Which parameters are trained. Only these have gradients and an optimizer's state.

If only some layers of a stack are trained, trained_layers.py gives the optimizer these layers of it.

A tree of the trained parameters is the tree of all parameters with None in place of the frozen ones, which JAX reads as
an empty tree. A loss that is differentiated with respect to it keeps nothing for the gradients of frozen parameters: no
array of their size, and none of the activations that only these gradients need.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from gptjax.model.lora import SUFFIX, A
from gptjax.model.parameters import LAYERS, Parameter, unstack
from gptjax.model.tree import map_with_path
from gptjax.settings import Settings
from gptjax.training.optimizers.treatments import Treatment, each_treatment


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
    """Parameters that a token is multiplied with, for which a step computes less because they are frozen, or because
    all that they read is.

    Attributes:
      frozen: those that rules freeze. They have no gradient, so each saves 2 FLOPs per token.
      below: those that read nothing trained. No gradient flows through them, so each saves another 2. These are all in
        layers below the first trained one; and this layer's queries, keys and values, if its norm is frozen.
      layers_below: the share of the layers that are below.
    """

    frozen: int
    below: int
    layers_below: float


class Backward(NamedTuple):
    """What the backward pass of a step computes for a parameter, as shares of its layers (of 1 without layers).

    Attributes:
      own: those whose gradient is computed.
      through: those through which a gradient flows on to what is below them.
    """

    own: float
    through: float


AFTER_LAYERS = ("final_norm", "head", "head_bias")  # what a token reaches after the layers
FIRST_OF_LAYER = re.compile(rf"attention/(query|key|value)({SUFFIX}/{A})?")  # what reads the input of a layer


def untrained(declared: Any, treatments: Mapping[str, Treatment]) -> Untrained:
    """The parameters for which the backward pass computes less, or nothing."""
    frozen = below = 0
    layers_below = _layers_below(declared, treatments)
    first = _reads_untrained(declared, treatments, layers_below)
    sizes: dict[tuple[str, ...], int] = {}
    for path, parameter in flatten_dict(declared).items():
        trained = _trained_layers(treatments["/".join(path)], parameter)
        stack, count = _stack_of(path, parameter), parameter.num_layers
        is_multiplied = parameter.kind == "matrix" or parameter.tied
        if path[0] == "body" and "vocab" in parameter.axes:  # a classifier has no output layer
            is_multiplied = False
        if is_multiplied and parameter.trained:  # others are known to be frozen (model/flops.py)
            frozen += parameter.active_size * trained.count(False) // len(trained)
        if count:
            sizes[stack] = count
            layers = layers_below.get(stack, 0) + _is_first_read(path, stack, first)
            below += parameter.active_size * is_multiplied // count * layers
    return Untrained(frozen, below, sum(layers_below.values()) / max(sum(sizes.values()), 1))


def backward_of(declared: Any, treatments: Mapping[str, Treatment], stops: bool) -> dict[str, Backward]:
    """What a step computes backwards for each parameter, by its path.

    stops: whether gradients stop at frozen layers (`stop_at_frozen_layers`). If not, all layers of a stack are alike.
    """
    layers_below = _layers_below(declared, treatments)
    first = _reads_untrained(declared, treatments, layers_below)
    found = {}
    for path, parameter in flatten_dict(declared).items():
        name, stack, count = "/".join(path), _stack_of(path, parameter), max(parameter.num_layers, 1)
        trained = _trained_layers(treatments[name], parameter)
        own, through = trained.count(True), count
        if not stops:
            own = count if own else 0
        else:
            through -= layers_below.get(stack, 0)
            through -= _is_first_read(path, stack, first)
        found[name] = Backward(own / count, max(through, 0) / count)
    return found


def _is_first_read(path: tuple[str, ...], stack: tuple[str, ...], first: tuple[str, ...]) -> bool:
    """Whether one layer of this parameter reads what is not trained. first: from `_reads_untrained`."""
    return bool(stack) and stack == first and bool(FIRST_OF_LAYER.fullmatch("/".join(path[len(stack) :])))


def _reads_untrained(
    declared: Any, treatments: Mapping[str, Treatment], layers_below: Mapping[tuple[str, ...], int]
) -> tuple[str, ...]:
    """The stack with the first trained layer, if nothing that this layer's attention reads is trained; else ()."""
    flat = flatten_dict(declared)
    for stack, below in layers_below.items():
        count = next(each.num_layers for path, each in flat.items() if _stack_of(path, each) == stack)
        if below < count:
            norms = [path for path in flat if path[:-1] == (*stack, "attention_norm")]
            trained = (_trained_layers(treatments["/".join(path)], flat[path])[below] for path in norms)
            return () if any(trained) else stack
    return ()


def _trained_layers(treatment: Treatment, parameter: Parameter) -> list[bool]:
    """Whether each layer of a parameter is trained."""
    return [each.method != "frozen" for each in treatment.per_layer or [treatment] * max(parameter.num_layers, 1)]


def _stack_of(path: tuple[str, ...], parameter: Parameter) -> tuple[str, ...]:
    """The path of the stack of layers to which a parameter belongs; (): none."""
    return path[: path.index(parameter.stacked_as) + 1] if parameter.num_layers else ()


def _layers_below(declared: Any, treatments: Mapping[str, Treatment]) -> dict[tuple[str, ...], int]:
    """How many layers of each stack are below every trained parameter, in the order of the stacks.

    This is known for models that are one stack of layers, or two in sequence; for others, none are.
    """
    trained_layers: dict[tuple[str, ...], list[bool]] = {}  # of each stack
    starts_trained = False
    for path, parameter in flatten_dict(declared).items():
        trained = _trained_layers(treatments["/".join(path)], parameter)
        if stack := _stack_of(path, parameter):
            before = trained_layers.get(stack, [False] * len(trained))
            trained_layers[stack] = [one or other for one, other in zip(before, trained)]
        elif path[-1] not in AFTER_LAYERS and "final_norm" not in path:
            starts_trained |= trained[0]
    stacks = sorted(trained_layers, key=lambda stack: stack[-1] != "first_layers")
    if starts_trained or len({stack[:-1] for stack in stacks}) != 1 or not {stack[-1] for stack in stacks} <= {*LAYERS}:
        return {}
    below = dict.fromkeys(stacks, 0)
    for stack in stacks:
        trained = trained_layers[stack]
        below[stack] = trained.index(True) if True in trained else len(trained)
        if True in trained:
            break
    return below
