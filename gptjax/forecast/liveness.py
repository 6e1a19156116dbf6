"""The arrays of a compiled program that are in memory at its peak.

The program's text is in the order of execution, so an array is live from the instruction that makes it to the last one
that reads it. Arrays that share memory are treated as one: tuples and bitcasts, what a loop carries, results that use
the memory of a donated argument, and results of element-wise kernels that overwrite an operand that is not read later.
The compiler also pads and packs arrays, so its own total differs slightly (see `memory.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from gptjax.forecast.program import Array, Operation, Program, Shape

Value = "Buffer | tuple[Value, ...]"

# Results of these are their operands, or parts of them.
_SAME = {"bitcast", "optimization-barrier", "get-tuple-element", "tuple", "while", "parameter"}
_SMALL = 1024  # bytes; constants and counters below this are left out


@dataclasses.dataclass(eq=False)
class Buffer:
    """The memory of an array. size: its bytes, 0 if it is not the program's own; maker: the operation that wrote it
    first."""

    size: int
    array: Array
    maker: Operation


@dataclasses.dataclass(frozen=True)
class Live:
    """An array that is live at the peak, and the description of its maker."""

    array: Array
    kind: str
    scope: str


def live_at_peak(program: Program) -> list[Live]:
    """The arrays that are live at the peak, without arguments and results."""
    _, buffers = _peak(program, program.entry, (), program.donated)
    return [Live(each.array, each.maker.kind, each.maker.scope) for each in buffers if each.size > _SMALL]


def _peak(
    program: Program, name: str, arguments: tuple, free_results: frozenset[int] | None
) -> tuple[int, list[Buffer]]:
    """The peak bytes of a computation, and the buffers that are live then.

    arguments: the values of its parameters; free_results: numbers of the results whose memory is not its own; None:
      all.
    """
    operations = program.computations[name]
    values: dict[str, object] = {}
    for operation in operations:
        values[operation.name] = _value(operation, values, arguments)
    last = _last_uses(operations, values)
    root = values[operations[-1].name]
    results = list(root) if isinstance(root, tuple) else [root]
    for number, result in enumerate(results):
        if free_results is None or number in free_results:
            for buffer in _leaves(result):
                buffer.size = 0
    best, best_live = 0, []  # type: int, list[Buffer]
    live: dict[Buffer, None] = {}
    total = 0
    given = set(_leaves(arguments))
    for number, operation in enumerate(operations):
        made = [] if operation.kind in _SAME else [b for b in _leaves(values[operation.name]) if b not in given]
        for buffer in made:
            if buffer not in live and buffer.size:
                live[buffer] = None
                total += buffer.size
        inner, inner_live = _inside(program, operation, values)
        if total + inner > best:
            best, best_live = total + inner, [*live, *inner_live]
        for buffer in [buffer for buffer in live if last[buffer] <= number]:
            del live[buffer]
            total -= buffer.size
    return best, best_live


def _inside(program: Program, operation: Operation, values: Mapping) -> tuple[int, list[Buffer]]:
    """The peak bytes of the computations that a loop or a branch runs, without those of its arguments."""
    if operation.kind not in ("while", "conditional", "call"):
        return 0, []
    given = values[operation.operands[0]] if operation.kind == "while" else None
    found = [
        _peak(program, name, (given,) if given is not None else (), None)
        for name in operation.called
        if program.computations.get(name)
    ]
    return max(found, key=lambda each: each[0], default=(0, []))


def _value(operation: Operation, values: Mapping, arguments: tuple) -> object:
    """The buffers of an operation's result, in tuples of the same structure as its type."""
    kind, operands = operation.kind, [values[name] for name in operation.operands if name in values]
    if kind == "parameter":
        number = operation.index()
        if number < len(arguments):
            return arguments[number]
        return _new(operation, operation.shape, free=True)
    if kind == "tuple":
        return tuple(operands)
    if kind == "get-tuple-element" and isinstance(operands[0], tuple):
        return operands[0][operation.index()]
    if kind in ("bitcast", "optimization-barrier"):
        return operands[0]
    if kind == "while":
        for buffer in _leaves(operands[0]):
            if not buffer.maker.scope.startswith("jit("):  # an empty array that the loop fills
                buffer.maker = operation
        return operands[0]
    if kind.endswith("-done") and isinstance(operands[0], tuple):
        return operands[0][1]
    if kind.endswith("-start") and isinstance(operation.shape, tuple) and len(operation.shape) > 1:
        given = operands[0] if len(operands) == 1 else tuple(operands)
        return (given, *(_new(operation, part) for part in operation.shape[1:]))
    if kind == "constant":
        return _new(operation, operation.shape, free=True)
    return _new(operation, operation.shape)


def _new(operation: Operation, shape: Shape, free: bool = False) -> object:
    if isinstance(shape, Array):
        return Buffer(0 if free else shape.bytes, shape, operation)
    return tuple(_new(operation, part, free) for part in shape)


def _leaves(value: object) -> Iterator[Buffer]:
    if isinstance(value, Buffer):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _leaves(part)


def _last_uses(operations: Iterable[Operation], values: Mapping) -> dict[Buffer, int]:
    last: dict[Buffer, int] = {}
    for number, operation in enumerate(operations):
        for name in (operation.name, *operation.operands):
            if name in values and (operation.kind not in _SAME or operation.kind == "while"):
                last.update((buffer, number) for buffer in _leaves(values[name]))
    final = number
    last.update((buffer, final) for buffer in _leaves(values[operations[-1].name]))  # type: ignore[index]
    return last
