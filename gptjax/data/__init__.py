"""Reads batches from prepared folders: `open_dataset`. It is imported lazily, because it imports Grain and JAX."""

from __future__ import annotations

from typing import Any

__all__ = ["Dataset", "open_dataset"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from gptjax.data import dataset

        return getattr(dataset, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
