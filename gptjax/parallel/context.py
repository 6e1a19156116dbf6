"""Sequences divided over the mesh axis `context`: each device holds a contiguous part of each row.

Norms, projections and the feed-forward layer treat every token by itself and need no data from other devices. Only
attention needs other devices' tokens. It gets them in one of two ways.

`all_to_all` (DeepSpeed Ulysses, arXiv:2309.14509): before attention, devices exchange queries, keys and values, so that
each device holds all tokens for some of the heads. The unchanged attention backend then runs on whole sequences. After
attention, the outputs go back. The heads are divided over `context` and `tensor` together, so there must be enough
heads. If there are fewer key/value heads than devices, they are repeated so that each device has one.

`ring` (gptjax/parallel/ring.py): queries stay where they are, and keys and values pass from device to device. It works
for any number of heads. It has its own implementation of attention and ignores `model.attention`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from gptjax.config import ConfigError
from gptjax.model.attention_scores import PLAIN, Scores
from gptjax.parallel.mesh import AXES, BATCH_AXES, compiler_axes
from gptjax.parallel.nested import as_one
from gptjax.parallel.ring import Ring, attended, gradients
from gptjax.settings import MeshSettings, Settings

AXIS = "context"
PADDING = -1  # the segment of keys beyond their number
HEAD_AXES = ("tensor", AXIS)  # the axes over which heads are divided during attention


def check_context(config: Settings, mesh: Mesh | AbstractMesh) -> None:
    """Raises ConfigError unless sequences and heads divide over the devices.

    config: resolved.
    """
    size, wanted = mesh.shape[AXIS], config.mesh.context_attention
    if size == 1:
        if wanted != "auto":
            raise ConfigError(f"mesh.context_attention = {wanted!r}: must be 'auto' where mesh.context is 1")
        return
    for field in ("sequence_length", "source_length"):
        length = config.data[field]
        if length % size:
            raise ConfigError(f"data.{field} = {length}: must be divisible by mesh.context = {size}")
    heads, ways = config.model.num_heads, math.prod(mesh.shape[axis] for axis in HEAD_AXES)
    if wanted == "all_to_all" and heads % ways:
        raise ConfigError(
            f"mesh.context_attention = 'all_to_all' with model.num_heads = {heads}: heads must be divisible by {ways}, "
            "the product of mesh.context and mesh.tensor; or use 'ring'"
        )
    if way_of(config.mesh, mesh, heads) == "ring":
        why = f"mesh.context_attention = {wanted!r}"
        if wanted == "auto":
            why += (
                f", which is 'ring': model.num_heads = {heads} is not divisible by mesh.context x mesh.tensor = {ways}"
            )
        if config.model.attention_dropout:
            raise ConfigError(f"model.attention_dropout = {config.model.attention_dropout}: must be 0 with {why}")


def way_of(config_mesh: MeshSettings, mesh: Mesh | AbstractMesh, num_heads: int) -> str:
    """'all_to_all' or 'ring': `mesh.context_attention`, where auto is all_to_all if there are enough heads."""
    if config_mesh.context_attention != "auto":
        return config_mesh.context_attention
    return "ring" if num_heads % math.prod(mesh.shape[axis] for axis in HEAD_AXES) else "all_to_all"


def over_heads(
    function: Callable[..., jax.Array], q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, **options: Any
) -> jax.Array:
    """`function(q, k, v, **options)` over whole sequences, with the heads divided over HEAD_AXES."""
    mesh = jax.sharding.get_abstract_mesh()
    rows, ways = compiler_axes(BATCH_AXES), math.prod(mesh.shape[axis] for axis in HEAD_AXES)
    tokens, heads = P(rows, AXIS, "tensor", None), P(rows, None, HEAD_AXES, None)
    divided = functools.partial(jax.shard_map, axis_names=set(compiler_axes(AXES)))

    def send(x_btnh: jax.Array, split: int, concatenate: int) -> jax.Array:
        return jax.lax.all_to_all(x_btnh, AXIS, split, concatenate, tiled=True)

    repeats = ways // math.gcd(ways, k_BSKH.shape[2])
    k_BSKH, v_BSKH = (jnp.repeat(x, repeats, axis=2) for x in (k_BSKH, v_BSKH))
    to_heads = divided(functools.partial(send, split=2, concatenate=1), in_specs=tokens, out_specs=heads)
    to_tokens = divided(functools.partial(send, split=1, concatenate=2), in_specs=heads, out_specs=tokens)
    return to_tokens(function(*(to_heads(x) for x in (q_BTNH, k_BSKH, v_BSKH)), **options))


def in_ring(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    *,
    causal: bool = True,
    window: int = 0,
    segments_BT: jax.Array | None = None,
    key_segments_BS: jax.Array | None = None,
    key_lengths_B: jax.Array | None = None,
    block: int = 64,
    scores: Scores = PLAIN,
    dropout_keys_B: jax.Array | None = None,
    dropout: float = 0.0,
    backend: str = "",
    **others: Any,
) -> jax.Array:
    """Attention without dropout. It uses none of the attention backends."""
    unknown = [name for name, value in others.items() if value is not None]
    if unknown or (dropout and dropout_keys_B is not None):
        raise ValueError(f"ring attention does not support {', '.join(unknown) or 'dropout'}")
    size = jax.sharding.get_abstract_mesh().shape[AXIS]
    ring = Ring(AXIS, size, q_BTNH.shape[1] // size, causal, window, block, scores.scale, scores.softcap, None)
    if k_BSKH.shape[1] != q_BTNH.shape[1]:
        ring = dataclasses.replace(ring, of_keys=k_BSKH.shape[1] // size)
    segments = segments_BT, key_segments_BS
    if key_lengths_B is not None:  # padding is one more segment, which no query has
        of_queries = jnp.zeros(q_BTNH.shape[:2], jnp.int32) if segments_BT is None else segments_BT
        of_keys = of_queries if key_segments_BS is None else key_segments_BS
        if segments_BT is None:
            of_keys = jnp.zeros(k_BSKH.shape[:2], jnp.int32)
        segments = of_queries, jnp.where(jnp.arange(k_BSKH.shape[1]) < key_lengths_B[:, None], of_keys, PADDING)
    if scores.bias is not None:
        ring = dataclasses.replace(ring, bias=functools.partial(_bias_of_local_heads, scores.bias, q_BTNH.shape[2]))
    return _ringed(ring, q_BTNH, k_BSKH, v_BSKH, segments, scores.sinks_N)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ringed(ring: Ring, *arrays: Any) -> jax.Array:
    """Attention by a `shard_map` for the values and another one for the gradients (see nested.py)."""
    return _ringed_forward(ring, *arrays)[0]


def _ringed_forward(ring: Ring, *arrays: Any) -> tuple[jax.Array, Any]:
    tokens, segments, sinks = _specs()
    inputs, kept = (tokens, tokens, tokens, segments, sinks), (tokens, tokens, tokens, segments, tokens, tokens)
    out_BTNH, kept = _on_each_device(functools.partial(attended, ring), inputs, (tokens, kept))(*arrays)
    return out_BTNH, (kept, arrays[-1])


def _ringed_backward(ring: Ring, residuals: Any, gradient_BTNH: jax.Array) -> tuple[Any, ...]:
    tokens, segments, sinks = _specs()
    copied = tuple(axis for axis in compiler_axes(AXES) if axis not in sinks)

    def of_device(kept: Any, sinks_n: Any, gradient_btnh: jax.Array) -> tuple[Any, ...]:
        *of_sequence, of_sinks = gradients(ring, kept, sinks_n, gradient_btnh)
        return (*of_sequence, jax.lax.psum(of_sinks, copied))

    inputs = ((tokens, tokens, tokens, segments, tokens, tokens), sinks, tokens)
    made = _on_each_device(of_device, inputs, (tokens, tokens, tokens, sinks))(*residuals, gradient_BTNH)
    return (*made[:3], None, made[3])


_ringed.defvjp(_ringed_forward, _ringed_backward)


def _on_each_device(function: Callable, inputs: Any, outputs: Any) -> Callable:
    axes = set(compiler_axes(AXES))
    return jax.shard_map(as_one(function), in_specs=inputs, out_specs=outputs, axis_names=axes)


def _specs() -> tuple[P, P, P]:
    """How arrays [B, T, N, H], the segments and the sinks are divided."""
    rows = compiler_axes(BATCH_AXES)
    return P(rows, AXIS, "tensor", None), P(rows, AXIS), P("tensor")


def _bias_of_local_heads(bias: Callable, num_heads: int, distance_BTS: jax.Array) -> jax.Array:
    local = num_heads // jax.lax.axis_size("tensor")
    first = jax.lax.axis_index("tensor") * local
    return jax.lax.dynamic_slice_in_dim(bias(distance_BTS), first, local, axis=1)
