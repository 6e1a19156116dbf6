"""The work, reads and writes of each kernel of a compiled program, counted once per iteration of the loops around
it."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from gptjax.forecast.parts import parts_of
from gptjax.forecast.program import Array, Operation, Program, arrays_of, bytes_of
from gptjax.parallel.compiled import known, product_flops
from gptjax.parallel.traffic import KINDS

# Instructions without their own kernel: views of arrays, control flow, transfers between devices.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
_FREE |= {"optimization-barrier", "while", "conditional", "call", *KINDS, *(f"{kind}-start" for kind in KINDS)}
_SLICES = {"dynamic-slice", "slice", "gather"}
# The data decide how often a loop over the rows' experts runs. It skips the blocks that are all padding, which are a
# tenth of all: four blocks per expert are full, and the last one is there or not (model/grouped_products.py).
FILLED = 0.9
BACKWARD_ATTENTION = 2.5  # products of flash attention's backward pass per product of its forward pass


class Kernel(NamedTuple):
    """Equal kernels.

    Attributes:
      kind: 'product' (of matrices), 'attention' (a library's fused attention) or 'other'.
      flops: FLOPs of its products per run.
      float8: whether its operands are 8-bit floats.
      bytes: bytes that it reads from and writes to the device's memory per run.
      times: runs per step.
      parts: parts that can run at once on cores of a processor; 0: any number.
    """

    kind: str
    flops: float
    float8: bool
    bytes: float
    times: int
    parts: int = 0


def kernels_of(program: Program, on_processors: bool = False) -> list[Kernel]:
    """All kernels of a step on one device.

    Raises:
      ValueError: a loop neither says how often it runs, nor writes rows one after another.
    """
    every: collections.Counter[Kernel] = collections.Counter()
    for operation, peers, times in _run(program, program.entry, 1):
        flops, float8 = _products(program, operation, peers)
        attention = _attention(operation, peers)
        kind = "attention" if attention else "product" if flops else "other"
        moved = _bytes(program, operation, peers)
        if flops or attention or moved:
            parts = parts_of(program, operation, peers) if on_processors else 0
            every[Kernel(kind, flops + attention, float8, moved, 1, parts)] += times
    return [kernel._replace(times=times) for kernel, times in every.items()]


def _run(program: Program, name: str, times: int) -> Iterator[tuple[Operation, Mapping[str, Operation], int]]:
    """The operations that run kernels, with the operations of their computation by name, and their number of runs."""
    operations = program.computations[name]
    peers = {operation.name: operation for operation in operations}
    for operation in operations:
        if operation.kind in ("while", "conditional", "call"):
            inner = times * known(_trips(program, operation), operation.line)
            for called in operation.called:
                yield from _run(program, called, inner)
        elif operation.kind not in _FREE and not operation.kind.endswith("-done"):
            yield operation, peers, times


def _trips(program: Program, operation: Operation) -> int | None:
    """The number of iterations; where the data decide it, a share of the rows that the loop can write."""
    if operation.trips is not None:
        return operation.trips
    rows = max((_rows_written(program, name) for name in operation.called), default=0)
    return max(round(FILLED * rows), 1) if rows else None


def _rows_written(program: Program, name: str) -> int:
    """How many updates fit into an array that a computation writes row by row, of the longest; 0: it writes none."""
    operations = program.computations.get(name, ())
    shapes = {each.name: each.shape for each in operations}
    most = 0
    for each in operations:
        if each.kind == "dynamic-update-slice":
            whole, part = (next(arrays_of(shape)).shape for shape in (each.shape, shapes[each.operands[1]]))
            most = max(most, whole[0] // part[0] if whole else 0)
        most = max([most, *(_rows_written(program, called) for called in each.called)])
    return most


def _products(program: Program, operation: Operation, peers: Mapping[str, Operation]) -> tuple[float, bool]:
    """FLOPs of an operation's matrix products, including those inside a fusion, and whether their operands are fp8."""
    flops = _product(operation, peers)
    float8 = flops > 0 and _is_float8(operation, peers)
    for name in operation.called:
        inner = {each.name: each for each in program.computations.get(name, ())}
        for each in inner.values():
            more, eight = _products(program, each, inner)
            flops, float8 = flops + more, float8 or eight
    return flops, float8


def _product(operation: Operation, peers: Mapping[str, Operation]) -> float:
    left = peers.get(operation.operands[0]) if operation.operands else None
    if operation.kind not in ("dot", "custom-call") or left is None or not isinstance(left.shape, Array):
        return 0.0
    return product_flops(operation.line, next(arrays_of(operation.shape)).shape, left.shape.shape)


def _is_float8(operation: Operation, peers: Mapping[str, Operation]) -> bool:
    return any(array.dtype.startswith("f8") for array in arrays_of(peers[operation.operands[0]].shape))


def _attention(operation: Operation, peers: Mapping[str, Operation]) -> float:
    """FLOPs of cuDNN's attention, or 0 for other operations. Masked scores are neither computed nor counted."""
    if "__cudnn$fmha" not in operation.line:
        return 0.0
    scores = re.search(r'"intermediate_tensor_shape":.*?"dimensions": ?\[([^\]]*)\]', operation.line)
    assert scores is not None, operation.line[:200]
    width = next(arrays_of(peers[operation.operands[0]].shape)).shape[-1]
    size = math.prod(int(number) for number in re.findall(r"\d+", scores[1]))
    seen = 0.5 if "CAUSAL" in operation.line else 1.0
    passes = BACKWARD_ATTENTION if "Backward" in operation.line else 1.0
    return 4.0 * size * width * seen * passes


def _bytes(program: Program, operation: Operation, peers: Mapping[str, Operation]) -> int:
    """The bytes that an operation reads and writes. For a slice, only its bytes count, not those of the whole array."""
    kind = operation.kind
    operands = [bytes_of(peers[name].shape) for name in operation.operands if name in peers]
    result = bytes_of(operation.shape)
    if kind in _SLICES:
        return 2 * result
    if kind == "dynamic-update-slice":
        return 2 * operands[1]
    if kind == "scatter":
        return 3 * operands[-1]
    if kind != "fusion":
        return sum(operands) + result
    return sum(_read(program, operation, operands)) + _written(program, operation)


def _read(program: Program, fusion: Operation, operands: list[int]) -> Iterator[int]:
    inner = program.computations[fusion.called[0]]
    users: dict[str, list[Operation]] = collections.defaultdict(list)
    for operation in inner:
        for name in operation.operands:
            users[name].append(operation)
    for parameter in (each for each in inner if each.kind == "parameter"):
        whole = operands[parameter.index()]
        yield min(whole, sum(_used(parameter, user, users, whole) for user in users[parameter.name]))


def _used(made: Operation, user: Operation, users: Mapping[str, list[Operation]], whole: int) -> int:
    """The bytes of an array that an operation inside a fusion reads."""
    if user.kind == "bitcast":
        return sum(_used(user, each, users, whole) for each in users[user.name])
    if user.kind in _SLICES and user.operands[0] == made.name:
        return bytes_of(user.shape)
    if user.kind == "dynamic-update-slice" and user.operands[0] == made.name:
        return 0  # its result uses the same memory
    return whole


def _written(program: Program, fusion: Operation) -> int:
    inner = program.computations[fusion.called[0]]
    named = {operation.name: operation for operation in inner}

    def written(operation: Operation) -> int:
        if operation.kind == "tuple":
            return sum(written(named[name]) for name in operation.operands)
        if operation.kind == "bitcast":
            return written(named[operation.operands[0]])
        if operation.kind == "dynamic-update-slice":
            return bytes_of(named[operation.operands[1]].shape)
        return bytes_of(operation.shape)

    return written(inner[-1])
