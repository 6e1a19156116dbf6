"""The matrix products of a program compiled for GPUs, read from its text; loops count as often as they run."""

from __future__ import annotations

import collections
import math
import re

ARRAY = re.compile(r"\b(?:f|bf|s|u|c)\w+\[([\d,]*)\]")


def products_of(text: str) -> tuple[float, float]:
    """FLOPs of matrix products in a step, and of those among them whose operands are 8-bit floats. Attention's kernels
    are not among them."""
    computations, known = _computations(text), dict[str, collections.Counter[str]]()

    def total(name: str) -> collections.Counter[str]:
        if name not in known:
            lines = computations[name]
            types = dict(
                found.groups() for line in lines if (found := re.match(r"\s*(?:ROOT )?%([\w.-]+) = (.*)", line))
            )
            count = collections.Counter[str]()
            for line in lines:
                count.update(_own(line, types))
                trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', line) if " while(" in line else None
                for called in re.findall(r"(?:body|calls|to_apply)=%([\w.-]+)", line):
                    times = int(trips[1]) if trips else 1
                    count.update({what: times * number for what, number in total(called).items()})
            known[name] = count
        return known[name]

    made = total("ENTRY")
    return made["all"], made["float8"]


def _computations(text: str) -> dict[str, list[str]]:
    """Name → lines; the program's own is 'ENTRY'."""
    computations: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if found := re.match(r"(ENTRY )?%([\w.-]+) .*\{$", line):
            name = "ENTRY" if found[1] else found[2]
            computations[name] = []
        elif name and line.startswith(" "):
            computations[name].append(line)
    return computations


def _own(line: str, types: dict[str, str]) -> dict[str, float]:
    """The product of one instruction: XLA's own, or a call of cuBLAS."""
    found = re.search(r" = (.*?) (?:dot|custom-call)\(%([\w.-]+)", line)
    summed = re.search(r'lhs_contracting_dim(?:ension)?s"?[=:][{\[]([\d,"]*)[}\]]', line)
    if not found or not summed:
        return {}
    left = _shape(types[found[2]])
    axes = [int(number) for number in re.findall(r"\d+", summed[1])]
    flops = 2.0 * math.prod(_shape(found[1])) * math.prod(left[axis] for axis in axes)
    return {"all": flops} | ({"float8": flops} if types[found[2]].startswith("f8") else {})


def _shape(text: str) -> list[int]:
    """Of the first array in a type such as (bf16[2,3]{1,0}, u8[7]{0})."""
    found = ARRAY.search(text)
    assert found is not None, text
    return [int(number) for number in found[1].split(",") if number]
