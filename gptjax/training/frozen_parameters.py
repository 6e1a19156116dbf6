"""Parameters that no step of a run changes: written once, and shared by all checkpoints of the run.

A run that trains adapters changes few of its parameters. Its checkpoints hold these, and the base lies beside them in
`checkpoints/frozen-<hash>/`, so that the run's folder is complete without the run that it started from. The hash is
that of the arrays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import unflatten_dict

from gptjax.model.tree import leaves_by_path
from gptjax.training.state import TrainState

PREFIX = "frozen-"  # begins the folder's name


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


def split(state: TrainState, frozen: Iterable[str]) -> tuple[TrainState, dict[str, jax.Array]]:
    """The state without the parameters of these paths, and these: 'params/…' → array.

    Parameters of several arrays, such as 8-bit ones, are named by the path of what holds these.
    """
    params = leaves_by_path(state.params)
    still = {name for name in params if any(name == path or name.startswith(f"{path}/") for path in frozen)}
    trained = nested({name: array for name, array in params.items() if name not in still})
    return state.replace(params=trained), {f"params/{name}": params[name] for name in sorted(still)}


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
