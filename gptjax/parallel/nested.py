"""A `shard_map` inside of another one, a pipeline's: JAX cannot hand intermediate results out of it.

So its values and its gradients are a `shard_map` each, and what the first leaves for the second is among its results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def as_one(function: Callable) -> Callable:
    """`function` as one operation, which JAX does not take apart and which has no gradient.

    JAX would take it apart to compute before a loop what does not change in it (`jax.checkpoint` prevents that), and
    to keep what the policy of a `jax.checkpoint` around it names (the rule for gradients, never called, prevents that).
    """
    whole = jax.custom_jvp(function)
    whole.defjvp(_no_gradient)
    return jax.checkpoint(whole)


def _no_gradient(primals: Any, tangents: Any) -> Any:
    raise TypeError("values and gradients must be functions of their own")
