"""Prepared folders → batches of training, as a function of the seed and the step.

dataset.py              `open_dataset`, and the batches of a run (start here); order.py: the order of windows
prepared.py             the format of a prepared folder; tokens.py: its token stream; facts.py: what a plan needs of it
mixture.py              several folders as one; loaders.py: the processes that load
manifest_check.py, verified.py, watched.py    a folder is what its manifest says, and stays so while a run reads it
windows.py, packing.py  rows of running text: contiguous windows, or whole documents
pairs.py, conversations.py, labelled.py, preferences.py, prompts.py    rows of the other forms of data
masking.py              which tokens of a row are hidden
packed_index.py, pair_index.py    which pieces stand in which row; stored_index.py: computed once, then read from files
keys.py                 the names of a batch's arrays
traced.py               where a row of a batch comes from
splitmix.py             random numbers that depend only on their purpose

`Dataset` and `open_dataset` are imported lazily, because they import Grain and JAX.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Dataset", "open_dataset"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from gptjax.data import dataset

        return getattr(dataset, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
