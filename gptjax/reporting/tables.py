"""Tables of a report, from rows or from tables that the console shows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rich.table import Table as RichTable

from gptjax.reporting.document import Table, plain

_NUMBER = re.compile(r"[-+]?[\d.,]+(\s?(%|[KMGT]?B|[kMBT]))?(\s?±\s?[\d.]+)?( of [\d,]+)?|–|")


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> Table:
    """A table whose columns of numbers are aligned to the right. Whole numbers get separators of thousands."""
    cells = tuple(tuple(f"{c:,}" if isinstance(c, int) else plain(c) for c in row) for row in rows)
    columns = range(len(head))
    right = frozenset(
        i for i in columns if all(_NUMBER.fullmatch(row[i]) for row in cells) and any(r[i] for r in cells)
    )
    return Table(tuple(plain(each) for each in head), cells, right, plain(caption))


def shown(rich: RichTable) -> Table:
    """The same table as the console shows."""
    columns = [[plain(str(cell).replace("\n", "; ")) for cell in column.cells] for column in rich.columns]
    right = frozenset(i for i, column in enumerate(rich.columns) if column.justify == "right")
    heads = tuple(plain(column.header) for column in rich.columns)
    made = table(heads, list(zip(*columns)), str(rich.title or ""))
    return Table(made.head, made.rows, made.right | right, made.caption)
