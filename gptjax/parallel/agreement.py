"""Facts that must be the same in all processes of a run, and a message that names those that differ."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from gptjax import __version__
from gptjax.config import flatten
from gptjax.settings import Settings

# The path of the data, and how a process reads it, may differ as long as the fingerprint is the same.
_MAY_DIFFER = {"data.path", "data.workers", "data.prefetch", "data.verify"}
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
_JAX_SETTINGS = (
    "jax_default_matmul_precision",
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
)
_MOST_SHOWN = 4
_LONGEST_VALUE = 80  # characters


def settings(config: Settings) -> dict[str, Any]:
    """What a run's results depend on besides its data, namely its config and its code, as name → JSON value."""
    package = Path(__file__).parents[1]
    return {
        "gptjax": __version__,
        **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        **{name: str(getattr(jax.config, name)) for name in _JAX_SETTINGS},
        **{f"config.{field}": value for field, value in flatten(config).items() if field not in _MAY_DIFFER},
        # Last, since a version number that differs says more than the files that differ.
        **{
            f"the file {path.relative_to(package.parent)} (hash)": hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            for path in sorted(package.rglob("*.py"))
        },
    }


def named(name: str, tree: Any) -> dict[str, Any]:
    """Flattens a JSON tree below `name` into dotted name → value."""
    items: Iterable[tuple[Any, Any]]
    if isinstance(tree, Mapping):
        items = tree.items()
    elif isinstance(tree, list | tuple) and any(isinstance(item, Mapping) for item in tree):
        items = enumerate(tree)
    else:
        return {name: tree}
    return {field: value for key, part in items for field, value in named(f"{name}.{key}", part).items()}


def difference(facts: Mapping[int, Mapping[str, Any]]) -> str:
    """'config.seed = 0 in process 0, 1 in process 1: must be …', or '' if every process has the facts of process 0.

    facts: process → name → JSON value.
    """
    found: dict[str, str] = {}
    for process, theirs in sorted(facts.items()):
        for name in {**facts[0], **theirs}:
            ours, value = facts[0].get(name), theirs.get(name)
            if ours != value:
                found.setdefault(name, f"{name} = {_show(ours)} in process 0, {_show(value)} in process {process}")
    if not found:
        return ""
    order = list(facts[0])
    shown = sorted(found, key=lambda name: order.index(name) if name in order else len(order))[:_MOST_SHOWN]
    more = f"; and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    return f"{'; '.join(found[name] for name in shown)}{more}: must be the same in all processes of a run"


def _show(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
