"""What a compiled program sends between devices: its collectives, their bytes, and how often loops repeat them.

    sent = sum(each.times * each.bytes_sent() for each in collectives_of(compiled.as_text(), num_devices))

XLA writes the text after compilation (`parallel/compiled.py`), so collectives that the partitioner added, moved or
merged are counted as they will run.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np

from gptjax.parallel.compiled import instructions, known

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16, "s32": 32}
_BITS |= {"u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "f8e4m3fn": 8, "f8e5m2": 8}
_INSTRUCTION = re.compile(rf" = (?P<type>.*?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")


class Collective(NamedTuple):
    """One collective of a program.

    Attributes:
      kind: one of KINDS.
      bytes: size of the whole array of a group of devices: the result of an all-gather, the operand of a reduce-scatter
        or an all-reduce, or what one device of an all-to-all or a permute sends.
      group: numbers of the devices in the first group; for a permute, a device and the one to which it sends.
      times: runs per step.
    """

    kind: str
    bytes: int
    group: tuple[int, ...]
    times: int

    def bytes_sent(self) -> float:
        """The bytes that one device sends per run, if the group forms a ring."""
        if self.kind == "collective-permute":
            return float(self.bytes)
        passes = 2 if self.kind == "all-reduce" else 1
        return passes * self.bytes * (len(self.group) - 1) / len(self.group)

    def nodes(self, devices_per_node: int) -> int:
        """The number of nodes over which the group spreads, if neighbours in the numbering share a node."""
        return len({device // devices_per_node for device in self.group})


def collectives_of(text: str, num_devices: int) -> list[Collective]:
    """The collectives of a program that was compiled for `num_devices` devices. Groups of one device are left out.

    Raises:
      ValueError: a loop around a collective does not say how often it runs, or the text has an unknown form.
    """
    every = []
    for line, times, _ in instructions(text):
        if found := _INSTRUCTION.search(line):
            every.append(_collective(line, found, num_devices, known(times, line)))
    return [each for each in every if len(each.group) > 1]


def _collective(line: str, found: re.Match, num_devices: int, times: int) -> Collective:
    kind, size = found["kind"], _bytes(found["type"])
    if kind == "collective-permute":
        first = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", line)
        pair = (int(first[1]), int(first[2])) if first else (0,)
        return Collective(kind, size // 2 if found["start"] else size, pair, times)
    group = _first_group(line, num_devices)
    n = len(group)
    if found["start"] and kind in ("all-gather", "reduce-scatter"):  # its type names inputs and outputs
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
    """The first group of `replica_groups`: {{0,1},{2,3}}, or [2,2]<=[2,2]T(1,0), or mesh['a'=2,'b'=2] {'b'}.

    A mesh may say how devices are arranged on it: mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}.
    """
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return tuple(int(number) for number in found[1].split(","))
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
        return tuple(_numbered(num_devices, found[2], found[3]).reshape(_integers(found[1]))[0].tolist())
    arranged = r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?"
    if found := re.search(rf"replica_groups=mesh\[([^\]]*)\]{arranged} ?\{{('\w+'(?:,'\w+')*)\}}", line):
        axes = dict((name, int(size)) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1]))
        along = re.findall(r"'(\w+)'", found[4])
        numbers = _numbered(num_devices, found[2] or str(num_devices), found[3]).reshape(tuple(axes.values()))
        return tuple(numbers[tuple(slice(None) if name in along else 0 for name in axes)].reshape(-1).tolist())
    if re.search(r"replica_groups=\{\}", line):
        return tuple(range(num_devices))
    raise ValueError(f"replica_groups of an unknown form: {line.strip()[:200]}")


def _numbered(num_devices: int, shape: str, order: str | None) -> np.ndarray:
    """The numbers of all devices, arranged in a shape whose axes are then put in another order."""
    return np.arange(num_devices).reshape(_integers(shape)).transpose(_integers(order) if order else None)


def _integers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
