"""Running means of an optimizer stored in fewer bits: bfloat16, or int8 with a scale for each tile of 16 x 16 numbers.

`stored(transformation, parameters, mu="int8")` wraps an Optax transformation: before an update, the named fields of its
state are converted to float32, and after it they are rounded again. Every optimizer therefore computes in float32,
whatever it stores.

    float32    4 bytes per number
    bfloat16   2 bytes: eight significant bits
    int8       1 byte and 1/64 for the scale: the logarithm of the number relative to the largest of its tile, eight
               levels per factor of two and a sign for a first moment (down to 2^-15.75 of the largest, then zero),
               twelve levels for a second moment (down to 2^-21; the lowest level also stands for all smaller numbers,
               since a second moment of zero would make an infinite step)

Blocks of numbers with their own scale are from Dettmers et al. (arXiv:2110.02861), who take 2,048 consecutive numbers
of the flattened array. Here a block is a tile of one matrix, so that scales are split over a mesh like the parameter,
without communication, if each device has whole tiles. The few vectors stay in float32.

Numbers are rounded up or down at random, with the probabilities that keep their mean. If it were rounded to the nearest
bfloat16, a second moment that decays by a thousandth per step would never decay: each change is smaller than half of
the distance between two numbers. (After gradients become ten times smaller, its root stays four times too large.)
The random bits are a hash of the number and of the count of updates, so that a restored run draws the same bits as an
uninterrupted one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gptjax.model.parameters import Parameter
from gptjax.model.tree import map_with_path
from gptjax.parallel.sharding import TILE

SIGNED = (127, 8)  # number of levels besides zero, and levels per factor of two
UNSIGNED = (255, 12)


class Tiles(NamedTuple):
    """codes: int8, in the parameter's shape. scales: float32, the largest absolute value in each tile."""

    codes: jax.Array
    scales: jax.Array


class Stored(NamedTuple):
    """count: updates so far. inner: the state of the wrapped transformation, with rounded fields."""

    count: jax.Array  # type: ignore[assignment]  # hides the tuple's unused method
    inner: Any


class Format(NamedTuple):
    """write: (float32 array, parameter, whether it has a sign, count) → what is stored. read: the inverse."""

    write: Callable[[jax.Array, Parameter, bool, jax.Array], Any]
    read: Callable[[Any, Parameter, bool], jax.Array]


def stored(
    transformation: optax.GradientTransformation, parameters: Mapping[str, Parameter], **formats: str
) -> optax.GradientTransformation:
    """Wraps `transformation` so that some fields of its state are stored in another format.

    Args:
      parameters: path → declaration.
      formats: name of a field with the shapes of the parameters → its format. Only the field `nu`, a mean of squares,
        is stored without signs.
    """
    formats = {field: name for field, name in formats.items() if name != "float32"}
    if not formats:
        return transformation

    def written(state: Any, count: jax.Array) -> Stored:
        def leaf(field: str, path: str, x: jax.Array) -> Any:
            return FORMATS[formats[field]].write(x, parameters[path], field != "nu", count)

        trees = {field: map_with_path(functools.partial(leaf, field), getattr(state, field)) for field in formats}
        return Stored(count, state._replace(**trees))

    def read(state: Stored, like: Any) -> Any:
        def leaf(field: str, path: str, _: Any, x: Any) -> jax.Array:
            return FORMATS[formats[field]].read(x, parameters[path], field != "nu")

        trees = {
            field: map_with_path(functools.partial(leaf, field), like, getattr(state.inner, field)) for field in formats
        }
        return state.inner._replace(**trees)

    def init(params: Any) -> Stored:
        return written(transformation.init(params), jnp.zeros((), jnp.int32))

    def update(gradients: Any, state: Stored, params: Any = None) -> tuple[Any, Stored]:
        updates, new = transformation.update(gradients, read(state, gradients), params)
        return updates, written(new, state.count + 1)

    return optax.GradientTransformation(init, update)


# --- bfloat16 ---------------------------------------------------------------------------------------------------------


def _write_bfloat16(x: jax.Array, parameter: Parameter, signed: bool, count: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    up = jax.lax.bitcast_convert_type((bits + (_random_bits(x, count) >> 16)) & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), up, x).astype(jnp.bfloat16)


def _read_bfloat16(x: jax.Array, parameter: Parameter, signed: bool) -> jax.Array:
    return x.astype(jnp.float32)


# --- int8 -------------------------------------------------------------------------------------------------------------


def _write_int8(x: jax.Array, parameter: Parameter, signed: bool, count: jax.Array) -> Any:
    if parameter.kind == "vector":
        return x
    scales = _largest_of_tiles(jnp.abs(x), _tiled_axes(parameter))
    whole = _over_tiles(jnp.where(scales > 0, scales, 1.0), x.shape, _tiled_axes(parameter))
    levels, per_octave = SIGNED if signed else UNSIGNED
    level = levels + per_octave * jnp.log2(jnp.abs(x) / whole)  # -inf for zero
    below = jnp.floor(level)
    # Random rounding keeps the mean.
    chance = (jnp.exp2((level - below) / per_octave) - 1) / (2 ** (1 / per_octave) - 1)
    uniform = _random_bits(x, count).astype(jnp.float32) * 2.0**-32
    level = below + (uniform < chance)
    if signed:
        codes = jnp.sign(x) * jnp.clip(level, 0, levels)
    else:
        codes = jnp.where(x > 0, jnp.clip(level, 1, levels), 0) - 128
    return Tiles(codes.astype(jnp.int8), scales)


def _read_int8(stored: Any, parameter: Parameter, signed: bool) -> jax.Array:
    if parameter.kind == "vector":
        return stored
    levels, per_octave = SIGNED if signed else UNSIGNED
    codes = stored.codes.astype(jnp.float32)
    level = jnp.abs(codes) if signed else codes + 128
    size = jnp.where(level > 0, jnp.exp2((level - levels) / per_octave), 0.0)
    size = size * _over_tiles(stored.scales, codes.shape, _tiled_axes(parameter))
    return jnp.sign(codes) * size if signed else size


def _tiled_axes(parameter: Parameter) -> tuple[int, int]:
    """The last axis of a matrix's inputs and the last axis of its outputs."""
    first = len(parameter.stack) + len(parameter.inputs) - 1
    return first, len(parameter.shape) - 1


def _largest_of_tiles(x: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """The largest number of each tile; the last tiles of an axis may be smaller."""
    x = jnp.pad(x, [(0, -size % TILE if axis in axes else 0) for axis, size in enumerate(x.shape)])
    for axis in axes:
        x = jnp.max(x.reshape(*x.shape[:axis], -1, TILE, *x.shape[axis + 1 :]), axis=axis + 1)
    return x


def _over_tiles(scales: jax.Array, shape: tuple[int, ...], axes: tuple[int, int]) -> jax.Array:
    """The scale of each number."""
    for axis in axes:
        scales = jnp.repeat(scales, TILE, axis=axis)
    return scales[tuple(slice(size) for size in shape)]


def _random_bits(x: jax.Array, count: jax.Array) -> jax.Array:
    """32 bits for each float32 number, computed with the final steps of MurmurHash3."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + count.astype(jnp.uint32) * jnp.uint32(0x9E3779B9)
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


FORMATS = {"bfloat16": Format(_write_bfloat16, _read_bfloat16), "int8": Format(_write_int8, _read_int8)}
