"""Parses a compiled program's text (HLO) into instructions with shapes and operands, in the order of execution.

`parallel/compiled.py` reads single lines of the same text. Following data between instructions needs this form: to find
the arrays that are live at once (liveness.py), and what each kernel reads and writes (kernels.py).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

from gptjax.parallel.compiled import called_in, computations, trips_of

BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16, "s32": 32}
BITS |= {"u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "f8e4m3fn": 8, "f8e5m2": 8, "c64": 64, "token": 0}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{[^{}]*\})?")


@dataclasses.dataclass(frozen=True)
class Array:
    """The type of an array."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * BITS.get(self.dtype, 32) // 8


Shape = Array | tuple["Shape", ...]  # the type of a value: an array, or a tuple of values


@dataclasses.dataclass(frozen=True)
class Operation:
    """An instruction: `name = shape kind(operands)`. line: its whole text. scope: the JAX operation to which it
    belongs."""

    name: str
    shape: Shape
    kind: str
    operands: tuple[str, ...]
    line: str

    @functools.cached_property
    def scope(self) -> str:
        found = re.search(r'op_name="([^"]*)"', self.line)
        return found[1] if found else ""

    @property
    def called(self) -> list[str]:
        return called_in(self.line)

    @property
    def trips(self) -> int | None:
        """The number of iterations of a loop, or 1 for other instructions; None: the program does not say."""
        return trips_of(self.line)

    def index(self) -> int:
        """The index of a get-tuple-element or a parameter."""
        found = re.search(r"(?:index=| parameter\()(\d+)", self.line)
        assert found is not None, self.line
        return int(found[1])


@dataclasses.dataclass(frozen=True)
class Program:
    """Name of a computation → its operations, the last of which gives its result; and the entry computation."""

    computations: Mapping[str, list[Operation]]
    entry: str
    donated: frozenset[int]  # numbers of the results that use an argument's memory

    def inner(self, operation: Operation) -> Iterator[Operation]:
        """The operations of all computations that an operation calls, such as those of a fusion."""
        for name in operation.called:
            for each in self.computations.get(name, ()):
                yield each
                yield from self.inner(each)


def parse_program(text: str) -> Program:
    """Reads `compiled.as_text()`."""
    lines_of, entry = computations(text)
    aliases = re.search(r"input_output_alias=\{(.*?)\}, \w+=", text[: text.find("\n")])
    donated = re.findall(r"\{(\d+)\}: \(", aliases[1]) if aliases else ()
    parsed = {name: [one for line in lines if (one := _operation(line))] for name, lines in lines_of.items()}
    return Program(parsed, entry, frozenset(map(int, donated)))


def arrays_of(shape: Shape) -> Iterator[Array]:
    if isinstance(shape, Array):
        yield shape
    else:
        for part in shape:
            yield from arrays_of(part)


def bytes_of(shape: Shape) -> int:
    return sum(array.bytes for array in arrays_of(shape))


def _operation(line: str) -> Operation | None:
    found = re.match(r"\s*(?:ROOT )?%([\w.-]+) = ", line)
    if not found:
        return None
    shape: Shape
    if line[found.end()] == "(":
        end = _closing(line, found.end())
        shape, rest = _tuple(line[found.end() + 1 : end]), line[end + 1 :]
    else:
        end = line.index(" ", found.end())
        shape, rest = _array(line[found.end() : end]), line[end:]
    kind, _, _ = rest.lstrip().partition("(")
    start = rest.index("(")
    operands = re.findall(r"%([\w.-]+)", rest[start : _closing(rest, start)])
    return Operation(found[1], shape, kind, tuple(operands), line)


def _closing(text: str, start: int) -> int:
    """The index of the parenthesis that closes the one at `start`."""
    depth = 0
    for found in re.finditer(r"[()]", text[start:]):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return start + found.start()
    raise ValueError(f"no closing parenthesis: {text[:200]}")


def _array(text: str) -> Array:
    found = _ARRAY.match(text)
    if not found:  # token[]
        return Array("token", ())
    return Array(found[1], tuple(int(size) for size in found[2].split(",") if size))


def _tuple(text: str) -> tuple[Shape, ...]:
    """'f32[2], (s32[], pred[3])' → its parts."""
    parts: list[Shape] = []
    at = 0
    while at < len(text):
        if text[at] == "(":
            end = _closing(text, at)
            parts.append(_tuple(text[at + 1 : end]))
            at = end + 1
        elif found := _ARRAY.match(text, at):
            parts.append(_array(found[0]))
            at = found.end()
        elif text.startswith("/*", at):
            at = text.index("*/", at) + 2
        else:
            at += 1
    return tuple(parts)
