"""Into how many parts XLA divides the work of a kernel on processors. A kernel of one part uses one core.

  XLA's own kernels     The compiler decides, and writes the number of parts into the program; without it, it is one.
  Products, YNNPACK     The result is divided into tiles: of at least 64 × 64 elements, and so large that the rows and
                        columns that a tile reads, along at most 1,024 elements, are 65,536 elements.
  Products, Eigen       a part for each 100,000 cycles of a core, besides 100,000 to start
  Reductions, YNNPACK   a part for each 128 KiB

The rules are those of the libraries' sources (XNNPACK's ynnpack/subgraph/dot.cc, Eigen's TensorCostModel). Nothing in
them is fitted; experiments/plan has the times of steps that are planned with them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from gptjax.forecast.product_buffers import FUSION, SLICE, Product, product_of, tile
from gptjax.forecast.program import Operation, Program, bytes_of

CYCLES = 100_000  # of Eigen's parts
PER_CYCLE = 8  # products of elements that Eigen expects to multiply per cycle
REDUCED = 2**17  # bytes


def parts_of(program: Program, operation: Operation, peers: Mapping[str, Operation]) -> int:
    """The number of parts of a kernel. peers: the operations of its computation by name."""
    if operation.kind == "fusion" and FUSION in operation.line:
        inner = {each.name: each for each in program.computations[operation.called[0]]}
        products = [product_of(each, inner) for each in inner.values() if each.kind == "dot"]
        if products:
            return min(map(tiles, products))
        moved = bytes_of(operation.shape) + sum(bytes_of(peers[name].shape) for name in operation.operands)
        return max(moved // REDUCED, 1)
    if operation.kind == "dot":
        return threads(product_of(operation, peers))
    found = re.search(r'"outer_dimension_partitions":\[([^\]]*)\]', operation.line)
    return math.prod(int(number) for number in re.findall(r"\d+", found[1])) if found else 1


def tiles(product: Product) -> int:
    """The tiles into which YNNPACK divides a product."""
    rows, columns = tile(product)
    return product.stacked * math.ceil(product.m / rows) * math.ceil(product.n / columns)


def threads(product: Product) -> int:
    """The threads that Eigen uses for a product. Those of a stack run one after another."""
    cycles = product.m * product.n * min(product.summed, SLICE) / PER_CYCLE
    return max(math.floor((cycles - CYCLES) / CYCLES + 0.9), 1)
