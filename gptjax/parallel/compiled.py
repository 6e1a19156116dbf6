"""The text of a compiled program (HLO): its instructions, and how often loops repeat them.

XLA writes this text after compilation, so it describes what will run. A program can be compiled for GPUs that this
machine does not have. `products_of` counts matrix products; `parallel/traffic.py` reads what devices send.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_CALLED = re.compile(r"\b(?:body|condition|calls|to_apply|called_computations|branch_computations)=(\{[^}]*\}|[^,\s]+)")
_PRODUCT = re.compile(r" = (.*?) (?:dot|custom-call)\(%([\w.-]+)")
_ARRAY = re.compile(r"\b(?:f|bf|s|u|c)\w+\[([\d,]*)\]")


class Instruction(NamedTuple):
    """One instruction of the program.

    Attributes:
      line: its text.
      times: how often the program runs it; None: a loop around it does not say how often it runs.
      types: for each instruction of the same computation, its name → its type and the rest of its line.
    """

    line: str
    times: int | None
    types: dict[str, str]


def instructions(text: str) -> Iterator[Instruction]:
    """All instructions of a program, including those inside loops and fusions."""
    lines_of, entry = computations(text)
    types_of = {name: _types(lines) for name, lines in lines_of.items()}

    def walk(name: str, times: int | None) -> Iterator[Instruction]:
        for line in lines_of[name]:
            yield Instruction(line, times, types_of[name])
            trips = trips_of(line)
            for called in called_in(line):
                if called in lines_of:
                    yield from walk(called, None if times is None or trips is None else times * trips)

    return walk(entry, 1)


def products_of(text: str) -> tuple[float, float]:
    """FLOPs of a step's matrix products on one device: of all of them, and of those whose operands are 8-bit floats.

    Products of XLA and of cuBLAS are counted, but not those inside attention kernels.

    Raises:
      ValueError: a loop around a product does not say how often it runs.
    """
    every = float8 = 0.0
    for line, times, types in instructions(text):
        found = _PRODUCT.search(line)
        if not found or found[2] not in types:
            continue
        flops = product_flops(line, _shape(found[1]), _shape(types[found[2]])) * known(times, line)
        every += flops
        float8 += flops if types[found[2]].startswith("f8") else 0.0
    return every, float8


def product_flops(line: str, result: Sequence[int], left: Sequence[int]) -> float:
    """FLOPs of an instruction if it is a matrix product; of others 0.

    result, left: the shapes of what it makes and of its first operand.
    """
    summed = re.search(r'lhs_contracting_dim(?:ension)?s"?[=:][{\[]([\d,"]*)[}\]]', line)
    if not summed or not _PRODUCT.search(line):
        return 0.0
    return 2.0 * math.prod(result) * math.prod(left[int(axis)] for axis in re.findall(r"\d+", summed[1]))


class UncountedLoop(ValueError):
    """A loop of a program does not say how often it runs, since that depends on the data."""


def known(times: int | None, line: str) -> int:
    """Raises UncountedLoop if it is not known how often an instruction runs."""
    if times is None:
        raise UncountedLoop(f"a loop does not say how often it runs: {line.strip()[:200]}")
    return times


def computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Name → lines, and the name of the computation that the program starts with."""
    lines_of: dict[str, list[str]] = {}
    name, entry = "", ""
    for line in text.splitlines():
        if found := re.match(r"(ENTRY )?%?([\w.-]+) .*\{$", line):
            name = found[2]
            lines_of[name] = []
            entry = name if found[1] else entry
        elif name and line.startswith(" "):
            lines_of[name].append(line)
    return lines_of, entry


def _types(lines: list[str]) -> dict[str, str]:
    made = (re.match(r"\s*(?:ROOT )?%([\w.-]+) = (.*)", line) for line in lines)
    return {found[1]: found[2] for found in made if found}


def called_in(line: str) -> list[str]:
    """The computations that an instruction runs: the body of a loop, all branches of a condition, …"""
    return [name for names in _CALLED.findall(line) for name in re.findall(r"[\w.-]+", names)]


def trips_of(line: str) -> int | None:
    if " while(" not in line:
        return 1
    found = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
    return int(found[1]) if found else None


def _shape(text: str) -> list[int]:
    """The shape of the first array in a type such as (bf16[2,3]{1,0}, u8[7]{0})."""
    found = _ARRAY.search(text)
    assert found is not None, text
    return [int(number) for number in found[1].split(",") if number]
