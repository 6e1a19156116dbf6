"""The memory that XLA's libraries of products take on processors, beside the arrays of the program.

A compiled program's own figures leave it out: a library allocates these bytes while a product runs, and frees them
afterwards. XLA gives the products to two libraries. What they take follows from how they work, and was compared with
products of many sizes (experiments/plan/products.py):

  YNNPACK, for fusions of products with other operations. A product alone packs some columns of its second operand at a
  time. If other operations of the fusion follow it, their loops are the outer ones, and the whole operand is packed
  first. Results of products that the fusion reads again are counted whole. The library holds half of them to all of
  them: it divides products into blocks, and runs two in one loop if their blocks match.

  Eigen, for products outside of fusions. It packs both operands along a part of the summed axis, and holds two such
  slices: it packs one while it multiplies the other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gptjax.forecast.program import BITS, Array, Operation, Program, arrays_of

FUSION = '"__ynn_fusion"'  # in the text of a fusion that YNNPACK computes
SLICES = 2
SLICE = 320  # Eigen's longest slice of the summed axis, if a core's first cache has at least 26 kB
_MULTIPLE = 8  # a slice's length is a multiple of this


def product_buffers(program: Program) -> int:
    """The most bytes that the libraries take at once for a product or a fusion of a program for processors."""
    most = 0
    every = [each for operations in program.computations.values() for each in operations]
    fused = {name for each in every if each.kind == "fusion" for name in each.called}
    for name, operations in program.computations.items():
        peers = {each.name: each for each in operations}
        for operation in operations if name not in fused else ():
            if operation.kind == "fusion" and FUSION in operation.line:
                most = max(most, _of_fusion(program.computations[operation.called[0]]))
            elif operation.kind == "dot":
                most = max(most, _of_product(product_of(operation, peers)))
    return most


def _of_fusion(operations: Sequence[Operation]) -> int:
    """Bytes that YNNPACK takes for a fusion with these operations."""
    named = {each.name: each for each in operations}
    result = operations[-1]
    while result.kind == "bitcast":
        result = named[result.operands[0]]
    products = [each for each in operations if each.kind == "dot"]
    packed = [_array(named[each.operands[1]]).bytes for each in products if each is not result]
    return sum(_array(each).bytes for each in products[:-1]) + max(packed, default=0)


class Product(NamedTuple):
    """A stack of products of the matrices [m, summed] and [summed, n]. left, right: the operands."""

    stacked: int
    m: int
    summed: int
    n: int
    left: Array
    right: Array


def product_of(operation: Operation, peers: Mapping[str, Operation]) -> Product:
    """The sizes of a product. peers: the operations of its computation by name."""
    left, right = (_array(peers[name]) for name in operation.operands)
    stacked, summed = (_size(left, _axes(operation, f"lhs_{kind}_dims")) for kind in ("batch", "contracting"))
    m, n = (math.prod(each.shape) // (stacked * summed) for each in (left, right))
    return Product(stacked, m, summed, n, left, right)


def _of_product(product: Product) -> int:
    """Bytes that Eigen takes for a product, or for one of a stack of them."""
    m, n, summed = product.m, product.n, product.summed
    if min(m, n) == 1:  # a vector is not packed
        return 0
    slices = math.ceil(summed / SLICE)
    length = min(math.ceil(summed // slices / _MULTIPLE) * _MULTIPLE, summed)
    held = min(SLICES, math.ceil(summed / length))
    of_left, of_right = (BITS[each.dtype] // 8 for each in (product.left, product.right))
    return held * length * (m * of_left + n * of_right)


def _size(array: Array, axes: list[int]) -> int:
    return math.prod(array.shape[axis] for axis in axes)


def _axes(product: Operation, name: str) -> list[int]:
    found = re.search(name + r"=\{([\d,]*)\}", product.line)
    return [int(axis) for axis in found[1].split(",") if axis] if found else []


def _array(operation: Operation) -> Array:
    return next(arrays_of(operation.shape))
