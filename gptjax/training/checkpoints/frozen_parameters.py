"""Parameters that no step of a run changes: written once, and shared by all checkpoints of the run.

A run that trains adapters changes few of its parameters. Its checkpoints hold these, and the base lies beside them in
`checkpoints/frozen-<hash>/`, so that the run's folder is complete without the run that it started from. The hash is
that of the arrays.

Such parameters are their own moving average. The average of a run has None in their place, which JAX reads as an empty
tree, so they take no memory a second time and are computed in no step.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict

from gptjax.model.tree import leaves_by_path, map_with_path
from gptjax.training.state import TrainState

PREFIX = "frozen-"  # begins the folder's name
_FOLDER = re.compile(PREFIX + "[0-9a-f]{12}")


@dataclasses.dataclass
class Frozen:
    """What the checkpoints of a run share.

    Attributes:
      arrays: 'params/…' → shape, dtype and checksum, as in a checkpoint's metadata.
    """

    arrays: dict[str, dict]

    @property
    def folder(self) -> str:
        """The name of the folder beside the checkpoints."""
        return PREFIX + hashlib.sha256(json.dumps(self.arrays, sort_keys=True).encode()).hexdigest()[:12]


def first_average(params: Any, frozen: Iterable[str]) -> Any:
    """The moving average of the parameters before the first step: a copy, with None in place of the frozen ones."""
    still = frozenset(frozen)
    return map_with_path(lambda path, leaf: None if _is_of(path, still) else jnp.copy(leaf), params)


def split(state: TrainState, frozen: Iterable[str]) -> tuple[TrainState, dict[str, jax.Array]]:
    """The state without the parameters of these paths, and these: 'params/…' → array.

    Parameters of several arrays, such as 8-bit ones, are named by the path of what holds these.
    """
    params = leaves_by_path(state.params)
    paths = frozenset(frozen)
    still = {name for name in params if _is_of(name, paths)}
    trained = nested({name: array for name, array in params.items() if name not in still})
    return state.replace(params=trained), {f"params/{name}": params[name] for name in sorted(still)}


def _is_of(name: str, paths: frozenset[str]) -> bool:
    """Whether an array belongs to one of the parameters with these paths."""
    return name in paths or any(name.startswith(f"{path}/") for path in paths)


def is_folder_of_frozen(name: str) -> bool:
    """Whether a folder beside checkpoints has this module's name for it, and is not one that a user has put there."""
    return _FOLDER.fullmatch(name) is not None


def nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """'a/b' → array as a nested dict."""
    return unflatten_dict(dict(arrays), sep="/")


def folder_of(path: Path, metadata: Mapping[str, Any]) -> Path | None:
    """The folder that the checkpoint at `path` shares with others; None if it has all of its parameters itself.

    Raises:
      ValueError: the metadata name a folder elsewhere.
    """
    if "frozen" not in metadata:
        return None
    name = metadata["frozen"]["folder"]
    if Path(name).name != name or not name.startswith(PREFIX):
        raise ValueError(f"it shares {name!r}, which is not a folder beside it")
    return path.parent / name
