"""The memory that XLA's libraries of products take on processors, beside the arrays of the program.

A compiled program's own figures leave it out: a library allocates these bytes while a product runs, and frees them
afterwards. XLA gives the products to two libraries. What they take follows from how they work, and was compared with
products of many sizes (experiments/plan/products.py):

  YNNPACK, for fusions of products with other operations. It merges the loops of operations that follow each other, and
  then holds only a tile of what passes between them. What it cannot merge, it holds whole: a value whose axes a bitcast
  changes; the second operand of a product; and the first, if the product has loops of its own and several tiles of
  columns, each of which reads it again. A product with loops of its own packs some columns of its second operand at a
  time. If it runs in the loops of a later operation, the whole operand is packed before, together with those of the
  other products in these loops.

  Eigen, for products outside of fusions. It packs both operands along a part of the summed axis, and holds two such
  slices: it packs one while it multiplies the other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from gptjax.forecast.program import BITS, Array, Operation, Program, arrays_of

FUSION = '"__ynn_fusion"'  # in the text of a fusion that YNNPACK computes
SLICES = 2
SLICE = 320  # Eigen's longest slice of the summed axis, if a core's first cache has at least 26 kB
_MULTIPLE = 8  # a slice's length is a multiple of this
SIDE, SMALLEST, LARGEST = 64, 256, 2**16  # sides of YNNPACK's smallest tile, and elements of the smallest and largest
READ, LONGEST = 2**16, 1024  # elements that a tile reads at least, along at most so many
ROWS, TALLER = 16, 4  # a tile starts with so many rows, and grows to so many times as many rows as columns
PACKED = 2**15  # elements of the second operand that are packed at once
_NOT_MADE = ("parameter", "constant", "broadcast", "iota", "bitcast")  # operations that need no array of their own


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
    readers: dict[str, list[Operation]] = {each.name: [] for each in operations}
    for each in operations:
        for name in each.operands:
            readers[name].append(each)
    own = {result.name}  # values that are made whole, in loops of their own
    last: dict[str, str] = {}  # value → the one in whose loops it is made
    for each in reversed(operations[: operations.index(result)]):
        whole = any(_reads_whole(reader, each.name, named, own) for reader in readers[each.name])
        if whole and each.kind not in _NOT_MADE:
            own.add(each.name)
        else:
            last[each.name] = next((last.get(one.name, one.name) for one in readers[each.name]), result.name)
    packed: dict[str, int] = {}
    for each in operations:
        if each.kind == "dot" and each.name not in own:
            of_second = _array(named[each.operands[1]]).bytes
            packed[last[each.name]] = packed.get(last[each.name], 0) + of_second
    held = own - {result.name} if any(each.kind == "dot" for each in operations) else ()
    return sum(_array(named[name]).bytes for name in held) + max(packed.values(), default=0)


def _reads_whole(reader: Operation, name: str, named: Mapping[str, Operation], own: Collection[str]) -> bool:
    """Whether an operation needs this value whole. own: later values that are made in loops of their own."""
    if reader.kind != "dot":
        return reader.kind == "bitcast"
    if reader.operands[1] == name:
        return True
    product = product_of(reader, named)
    return reader.name in own and product.n > tile(product)[1]


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


def tile(product: Product) -> tuple[int, int]:
    """(rows, columns) of the tiles into which YNNPACK divides a product's result."""
    m, n, length = product.m, product.n, min(product.summed, LONGEST)
    least = max(min(m, SIDE) * min(n, SIDE), SMALLEST)
    rows, columns = min(m, ROWS), min(n, SIDE * max(PACKED // (SIDE * product.summed), 1))
    while rows * columns < least or ((rows + columns) * length < READ and rows * columns < LARGEST):
        if columns < n and (rows >= m or rows >= TALLER * columns):
            columns *= 2
        elif rows < m:
            rows *= 2
        else:
            break
    return rows, columns


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
