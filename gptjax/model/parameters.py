"""Views of a parameter tree."""

from __future__ import annotations

import operator
from typing import Any

import jax


def head_DV(params: dict[str, Any]) -> jax.Array:
    """The output matrix [D, V]: the head, or the embedding where they are tied."""
    return params["head"] if "head" in params else params["embedding"].T


def unstack_layers(layers: Any, num_layers: int) -> list[Any]:
    """Per-layer dicts of the stacked tree params['layers'].

    A list passes through: a loop over tokens unstacks once before it starts, or every step copies each slice again.
    """
    if isinstance(layers, list | tuple):
        return list(layers)
    return [jax.tree.map(operator.itemgetter(index), layers) for index in range(num_layers)]
