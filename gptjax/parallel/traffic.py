"""What a compiled program sends between devices: its collectives, their bytes, and how often loops repeat them.

    sent = sum(each.times * each.bytes_sent() for each in collectives_of(compiled.as_text(), num_devices))

The text is what XLA's compiler made of the program (HLO), so this counts what will run, including what the partitioner
added, moved and merged.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16, "s32": 32}
_BITS |= {"u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "f8e4m3fn": 8, "f8e5m2": 8}
_INSTRUCTION = re.compile(rf" = (?P<type>.*?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_CALLED = re.compile(r"\b(?:body|condition|calls|to_apply|called_computations|branch_computations)=\{?([^,}\s][^}\s]*)")


class Collective(NamedTuple):
    """One collective of a program.

    Attributes:
      kind: one of KINDS.
      bytes: of the whole array that a group of devices has together: what an all-gather makes, what a reduce-scatter
        or an all-reduce sums, what the device of an all-to-all or a permute gives away.
      group: numbers of the devices of the first group; of a permute, a device and the one to which it sends.
      times: how often a step runs it.
    """

    kind: str
    bytes: int
    group: tuple[int, ...]
    times: int

    def bytes_sent(self) -> float:
        """By one device, each time, if the group is a ring."""
        if self.kind == "collective-permute":
            return float(self.bytes)
        passes = 2 if self.kind == "all-reduce" else 1
        return passes * self.bytes * (len(self.group) - 1) / len(self.group)

    def nodes(self, devices_per_node: int) -> int:
        """The number of nodes over which the group spreads, if neighbours in the numbering share a node."""
        return len({device // devices_per_node for device in self.group})


def collectives_of(text: str, num_devices: int) -> list[Collective]:
    """The collectives of a compiled program of `num_devices` devices, those of one device left out.

    Raises:
      ValueError: a loop around a collective does not say how often it runs, or the text has an unknown form.
    """
    lines_of, entry = _computations(text)

    def walk(name: str, times: int) -> Iterator[Collective]:
        for line in lines_of[name]:
            if found := _INSTRUCTION.search(line):
                made = _collective(line, found, num_devices, times)
                if len(made.group) > 1:
                    yield made
                continue
            for called in _called(line):
                if has_collectives[called]:
                    yield from walk(called, times * _trips(line))

    has_collectives = _where_collectives_are(lines_of)
    return list(walk(entry, 1))


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Name → instructions, and the name of the computation that the program starts with."""
    lines_of: dict[str, list[str]] = defaultdict(list)
    name, entry = "", ""
    for line in text.splitlines():
        if found := re.match(r"(ENTRY )?%?([\w.-]+) .*\{$", line):
            name = found[2]
            lines_of[name] = []
            entry = name if found[1] else entry
        elif name and line.startswith(" "):
            lines_of[name].append(line)
    return lines_of, entry


def _called(line: str) -> list[str]:
    return [name.strip().lstrip("%") for names in _CALLED.findall(line) for name in names.split(",")]


def _where_collectives_are(lines_of: dict[str, list[str]]) -> dict[str, bool]:
    known: dict[str, bool] = {}

    def has(name: str) -> bool:
        if name not in known:
            known[name] = False
            known[name] = any(
                _INSTRUCTION.search(line) or any(has(called) for called in _called(line) if called in lines_of)
                for line in lines_of[name]
            )
        return known[name]

    for name in lines_of:
        has(name)
    return defaultdict(bool, known)


def _trips(line: str) -> int:
    if " while(" not in line:
        return 1
    found = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
    if not found:
        raise ValueError(f"a loop with collectives does not say how often it runs: {line.strip()[:200]}")
    return int(found[1])


def _collective(line: str, found: re.Match, num_devices: int, times: int) -> Collective:
    kind, size = found["kind"], _bytes(found["type"])
    if kind == "collective-permute":
        first = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", line)
        pair = (int(first[1]), int(first[2])) if first else (0,)
        return Collective(kind, size // 2 if found["start"] else size, pair, times)
    group = _first_group(line, num_devices)
    n = len(group)
    if found["start"] and kind in ("all-gather", "reduce-scatter"):  # its type names what goes in and what comes out
        size = size * n // (n + 1)
    elif found["start"] and kind == "all-to-all":
        size //= 2
    elif kind == "reduce-scatter":
        size *= n
    return Collective(kind, size, group, times)


def _bytes(type_: str) -> int:
    """The bytes of all arrays of a type, such as '(bf16[8,256]{1,0}, bf16[64,256]{1,0})'."""
    return sum(
        math.prod(int(size) for size in sizes.split(",") if size) * _BITS[kind] // 8
        for kind, sizes in re.findall(r"\b([a-z]+\d*\w*)\[([\d,]*)\]", type_)
    )


def _first_group(line: str, num_devices: int) -> tuple[int, ...]:
    """Of `replica_groups`: {{0,1},{2,3}}, or [2,2]<=[2,2]T(1,0), or mesh['a'=2,'b'=2] {'b'}."""
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return tuple(int(number) for number in found[1].split(","))
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
        shape, source, order = (([int(n) for n in part.split(",")] if part else None) for part in found.groups())
        return tuple(np.arange(num_devices).reshape(source).transpose(order).reshape(shape)[0].tolist())
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\S+)? ?\{([^}]*)\}", line):
        axes = dict((name, int(size)) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1]))
        along = re.findall(r"'(\w+)'", found[2])
        numbers = np.arange(num_devices).reshape(tuple(axes.values()))
        return tuple(numbers[tuple(slice(None) if name in along else 0 for name in axes)].reshape(-1).tolist())
    if re.search(r"replica_groups=\{\}", line):
        return tuple(range(num_devices))
    raise ValueError(f"replica_groups of an unknown form: {line.strip()[:200]}")
