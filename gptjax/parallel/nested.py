"""One `shard_map` inside another, that of a pipeline.

JAX cannot pass intermediate results of the inner `shard_map` on to its backward pass. Values and gradients are
therefore computed by separate functions, each with its own `shard_map`, and the first returns what the second needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def as_one(function: Callable) -> Callable:
    """Makes `function` a single operation, which JAX does not split and which has no gradient.

    Without `jax.checkpoint`, JAX would compute parts that do not change in a loop before the loop. Without the rule for
    gradients, which is never called, the policy of a surrounding `jax.checkpoint` could save values from inside.
    """
    whole = jax.custom_jvp(function)
    whole.defjvp(_no_gradient)
    return jax.checkpoint(whole)


def _no_gradient(primals: Any, tangents: Any) -> Any:
    raise TypeError("values and gradients must be functions of their own")
