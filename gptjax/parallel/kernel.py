"""Attention kernels that the compiler cannot divide inside of a `shard_map`: each device calls them on its own part."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from gptjax.model.rematerialization import ATTENTION_OUTPUT
from gptjax.parallel import pipeline
from gptjax.parallel.mesh import AXES, BATCH_AXES, compiler_axes
from gptjax.parallel.nested import as_one


def divided(function: Callable[..., Array], q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, **options: Any) -> Array:
    """Calls `function(q, k, v, **options)`, attention without dropout, on each device's own rows and heads.

    cuDNN's kernel tells the compiler how to divide it, which fails in a `shard_map` over some of the axes. In a
    `shard_map` over all of them, nothing is left to divide.
    """
    function = functools.partial(function, **options | {"dropout_keys_B": None})
    if pipeline.AXIS in jax.sharding.get_abstract_mesh().manual_axes:
        return _in_pipeline(function, q_BTNH, k_BSKH, v_BSKH)
    return _on_each_device(function, (_part(),) * 3, _part())(q_BTNH, k_BSKH, v_BSKH)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _in_pipeline(function: Callable[..., Array], *operands: Array) -> Array:
    """A `shard_map` for the values and another one for the gradients (see nested.py)."""
    return _forward(function, *operands)[0]


def _forward(function: Callable[..., Array], *operands: Array) -> tuple[Array, Any]:
    """Everything that the kernel computes gets the name of its output, so that a policy saves all of it or nothing."""

    def values(*operands: Array) -> tuple[Array, list[Array]]:
        output, kept, _ = _differentiated(function, operands)
        return output, [x[None] for x in kept]  # the additional axis goes over the devices

    each = _on_each_device(as_one(values), (_part(),) * len(operands), (_part(), P(compiler_axes(AXES))))
    output, kept = checkpoint_name(each(*operands), ATTENTION_OUTPUT)
    return output, (operands, output, kept)


def _backward(function: Callable[..., Array], residuals: Any, cotangent: Array) -> Any:
    def gradients(operands: tuple[Array, ...], output: Array, kept: list[Array], cotangent: Array) -> Any:
        _, _, pull = _differentiated(function, operands)  # this value is not read, so it is not computed
        return pull(output, [x[0] for x in kept], cotangent)

    of_operands = (_part(),) * len(residuals[0])
    inputs = (of_operands, _part(), P(compiler_axes(AXES)), _part())
    return _on_each_device(as_one(gradients), inputs, of_operands)(*residuals, cotangent)


_in_pipeline.defvjp(_forward, _backward)


def _differentiated(
    function: Callable[..., Array], operands: Sequence[Array]
) -> tuple[Array, list[Array], Callable[..., Any]]:
    """The function's value; what its gradients read besides operands and value; and (value, this, cotangent) →
    gradients."""
    output, pull = jax.vjp(function, *operands)
    leaves, tree = jax.tree.flatten(pull)  # all arrays that the gradients read

    def is_kept(leaf: Array) -> bool:
        return all(leaf is not known for known in (*operands, output))

    def pull_from(output_now: Array, kept: Sequence[Array], cotangent: Array) -> Any:
        rest = iter(kept)
        found = [next(rest) if is_kept(leaf) else output_now if leaf is output else leaf for leaf in leaves]
        return jax.tree.unflatten(tree, found)(cotangent)

    return output, [leaf for leaf in leaves if is_kept(leaf)], pull_from


def _on_each_device(function: Callable[..., Any], inputs: Any, outputs: Any) -> Callable[..., Any]:
    return jax.shard_map(function, in_specs=inputs, out_specs=outputs, axis_names=set(compiler_axes(AXES)))


def _part() -> P:
    """How arrays [B, T, N, H] are divided: rows and heads."""
    return P(compiler_axes(BATCH_AXES), None, compiler_axes(("tensor", "context")), None)
