"""Columns: values that a loss needs from its companions, computed for each row of the data before the first step.

Row i of the data has value i of every column, whatever the order and the number of epochs (`Dataset.with_columns`). The
values are kept in a file of the run's folder, with their hash and the hash of everything that they depend on. A run
that continues reads the file. If the file is missing, damaged or made from other data, the values are computed again.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
import xxhash
from jax.sharding import Mesh
from safetensors import SafetensorError, safe_open

from gptjax.data import Dataset
from gptjax.files import write_aside
from gptjax.parallel.distributed import local_rows, of_process_0, put_batch
from gptjax.parallel.sharding import replicated
from gptjax.training.companions import Companions, identities, load_companions
from gptjax.training.trainer import Trainer

FILE = "companion_columns.safetensors"
IDENTITY = "identity"  # key in the file's metadata
Columns = dict[str, np.ndarray]  # 'SPLIT/NAME' → [windows of the split]


def with_columns(
    trainer: Trainer,
    workdir: Path,
    splits: Mapping[str, Dataset],
    saved: Mapping[str, Any] | None,
    tokenizer_hash: str,
    batch_size: int,
) -> tuple[dict[str, Dataset], Companions]:
    """The splits with the columns of the objective, and the identities of the companions, whose parameters are free.

    All processes call this together.

    Args:
      saved: the metadata of this run's checkpoint; None: the run has none yet.
      batch_size: rows that go through the companions at once, over all devices.

    Raises:
      ConfigError, CheckpointError: as `load_companions`.
    """
    identity_of = identities(trainer.config, trainer.objective.companions, saved)
    made_from = {
        "companions": identity_of,
        "dtype": trainer.config.model.dtype,
        "data": {split: data.identity() for split, data in splits.items()},
    }
    path = workdir / FILE
    columns = _read(path, made_from) if of_process_0(_read(path, made_from) is not None) else None
    if columns is None:
        fields, models = trainer.objective.companions, trainer.read_once
        companions = load_companions(trainer.config, fields, models, saved, tokenizer_hash)
        columns = {
            f"{split}/{name}": values
            for split, data in splits.items()
            for name, values in _computed(trainer, data, companions, batch_size).items()
        }
        if jax.process_index() == 0:
            _write(path, columns, made_from)

    def of_split(split: str) -> Columns:
        return {name.removeprefix(f"{split}/"): x for name, x in columns.items() if name.startswith(f"{split}/")}

    return (
        {split: data.with_columns(of_split(split)) for split, data in splits.items()},
        Companions(identities=identity_of),
    )


def _computed(trainer: Trainer, data: Dataset, companions: Companions, batch_size: int) -> Columns:
    """The columns of all rows of a split, in every process."""
    mesh = trainer.mesh
    assert isinstance(mesh, Mesh)

    @functools.partial(jax.jit, out_shardings=replicated(mesh))
    def columns_of(batch: Any, **models: Any) -> dict[str, jax.Array]:
        return trainer.objective.columns(jax.tree.map(lambda a: a[0], batch), **models)

    rows, parts = local_rows(mesh, batch_size, 1), []
    for start in range(0, data.num_stored, batch_size):
        batch = put_batch(mesh, data.stored(start + rows), rows, batch_size, 1)
        parts.append(jax.device_get(columns_of(batch, **companions.models)))
    return {name: np.concatenate([part[name] for part in parts])[: data.num_stored] for name in parts[0]}


def _write(path: Path, columns: Columns, made_from: Mapping[str, Any]) -> None:
    with write_aside(path) as file:
        file.write(safetensors.numpy.save(columns, {IDENTITY: _identity(columns, made_from)}))


def _read(path: Path, made_from: Mapping[str, Any]) -> Columns | None:
    """The columns of a file; None if there is none, it is damaged, or it was made from something else."""
    try:
        with safe_open(path, "numpy") as file:
            identity = (file.metadata() or {}).get(IDENTITY)
            columns = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError):
        return None
    return columns if identity == _identity(columns, made_from) else None


def _identity(columns: Columns, made_from: Mapping[str, Any]) -> str:
    """What the columns were made from, and their hash."""
    digest = xxhash.xxh3_128()
    for name, values in sorted(columns.items()):
        digest.update(f"{name} {values.dtype} {values.shape} ".encode() + values.tobytes())
    return json.dumps({**made_from, "hash": digest.hexdigest()}, sort_keys=True)
