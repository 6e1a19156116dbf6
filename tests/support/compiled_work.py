"""What a compiled program does, read from its text, with every loop counted as often as it runs."""

import collections
import math
import re

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_SHAPE = r"(?:\()?\w+\[([\d,]*)\]"


def work_of(compiled):
    """Counts one device's work: 'products', the FLOPs of matrix products; and how often it does each collective."""
    computations = _computations(compiled.as_text())
    known = {}

    def total(name):
        if name not in known:
            lines = computations[name]
            shapes = {}
            for line in lines:
                if found := re.match(rf"\s*(?:ROOT )?%([\w.-]+) = {_SHAPE}", line):
                    shapes[found[1]] = _dimensions(found[2])
            count = collections.Counter()
            for line in lines:
                count.update(_own(line, shapes))
                times = _trips(line)
                for called in re.findall(r"(?:body|condition|calls|to_apply)=%([\w.-]+)", line):
                    count.update({what: times * number for what, number in total(called).items()})
            known[name] = count
        return known[name]

    return total("ENTRY")


def _computations(text):
    """Name → lines; the program's own is 'ENTRY'."""
    computations, name = {}, None
    for line in text.splitlines():
        if found := re.match(r"(ENTRY )?%([\w.-]+) .*\{$", line):
            name = "ENTRY" if found[1] else found[2]
            computations[name] = []
        elif name and line.startswith(" "):
            computations[name].append(line)
    return computations


def _trips(line):
    if " while(" not in line:
        return 1
    return int(re.search(r'"known_trip_count":\{"n":"(\d+)"', line)[1])


def _own(line, shapes):
    """The work of one instruction, without what it calls."""
    if found := re.search(rf"= {_SHAPE}\S* dot\(%([\w.-]+), .*lhs_contracting_dims={{([\d,]*)}}", line):
        left = shapes[found[2]]
        return {"products": 2 * math.prod(_dimensions(found[1])) * math.prod(left[i] for i in _dimensions(found[3]))}
    found = re.search(r" ([\w-]+?)(?:-start)?\(", line)
    return {found[1]: 1} if found and found[1] in COLLECTIVES else {}


def _dimensions(text):
    return [int(number) for number in text.split(",") if number]
