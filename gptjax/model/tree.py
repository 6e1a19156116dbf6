"""Names for the leaves of a nested dict: a parameter's *path* is its keys joined by '/', 'layers/attention/query'.

Everything that selects parameters by name (sharding, weight decay, rules, freezing, weight import) uses these paths, so
they are made in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def path_of(key_path: tuple) -> str:
    """Joins one of JAX's key paths (dict keys, sequence indices, attribute names) with '/'."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """Returns path → leaf for every leaf of `tree`, in the tree's own (sorted) order."""
    return {path_of(key_path): leaf for key_path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_with_path(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Like `jax.tree.map`, but calls function(path, leaf, *leaves of rest)."""
    return jax.tree_util.tree_map_with_path(lambda keys, *leaves: function(path_of(keys), *leaves), tree, *rest)
