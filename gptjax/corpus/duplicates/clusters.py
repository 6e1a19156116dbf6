"""Which documents are copies of one another, and which of them stays.

Documents are numbered by the rule that says who stays, so that the representative of a cluster is its smallest
number, and nothing depends on the order in which documents were read.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse

from gptjax.corpus.duplicates.join import unpack


def precedence(earlier: np.ndarray, source_ranks: np.ndarray, lengths: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """int64 [documents]: documents in the order in which they have a right to stay.

    What an earlier corpus has kept comes first, then the sources in their order, then the longest, then the smallest
    id. All arguments are [documents]; `earlier` is 0 for documents kept earlier, 1 for new ones, 2 for those dropped
    earlier.
    """
    return np.lexsort((ids, -lengths.astype(np.int64), source_ranks, earlier))


def components(edges: np.ndarray, nodes: int) -> np.ndarray:
    """uint32 [nodes]: the smallest node of each node's connected component; its own number where it has no edge."""
    found = np.arange(nodes, dtype=np.uint32)
    if not len(edges):
        return found
    first, second = unpack(edges)
    linked = np.zeros(nodes, bool)
    linked[first] = linked[second] = True
    dense = (np.cumsum(linked) - 1).astype(np.int32)  # numbers of the linked nodes alone: the graph stays small
    members = np.flatnonzero(linked).astype(np.uint32)
    graph = scipy.sparse.coo_array(
        (np.ones(len(edges), bool), (dense[first], dense[second])), shape=(len(members), len(members))
    )
    count, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    least = np.full(count, nodes, np.uint32)
    np.minimum.at(least, labels, members)
    found[members] = least[labels]
    return found
