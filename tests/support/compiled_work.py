"""Counts the work of a compiled program, with every loop counted as often as it runs."""

import collections
import re

from gptjax.parallel.compiled import products_of
from gptjax.parallel.traffic import collectives_of


def work_of(compiled):
    """Counts one device's work: 'products', the FLOPs of matrix products, and how often each collective runs."""
    text = compiled.as_text()
    found = re.search(r"num_partitions=(\d+)", text)
    count = collections.Counter(products=products_of(text)[0])
    for each in collectives_of(text, int(found[1]) if found else 1):
        count[each.kind] += each.times
    return count
