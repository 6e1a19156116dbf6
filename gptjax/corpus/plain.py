"""A corpus's config, or a part of it, as JSON types, for manifests and for the inputs of tasks."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict


def plain(value: Any) -> Any:
    """A config as JSON types."""
    if isinstance(value, ConfigDict | FrozenConfigDict):
        return {name: plain(inner) for name, inner in sorted(value.items())}
    if hasattr(value, "to_json"):  # a stage of the user
        return value.to_json()
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in sorted(value.items())}
    if isinstance(value, tuple | list):
        return [plain(inner) for inner in value]
    return value
