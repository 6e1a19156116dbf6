"""Errors for too little device memory: before anything is allocated, and when a device runs out of memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import jax

from gptjax.config import ConfigError, RunError
from gptjax.settings import Settings
from gptjax.training.hardware import bytes_per_device


@contextlib.contextmanager
def explained_memory(config: Settings) -> Iterator[None]:
    """Turns an out-of-memory error into a message that names settings that need less memory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        training = config.training
        raise RunError(
            f"out of device memory: {str(error).splitlines()[0]}. These need less memory: a larger "
            f"training.gradient_accumulation_steps (now {training.gradient_accumulation_steps}), "
            f"training.loss_chunk=8192 (now {training.loss_chunk}), model.remat=dots, full or "
            f"offload_inputs (now {config.model.remat}), optimizer.memory=host (now {config.optimizer.memory}), or "
            "more devices on mesh.fsdp"
        ) from error


def check_fits(state: Any, batch: Any, limit: int | None = None) -> None:
    """Raises ConfigError if the state and a batch alone do not fit into the memory of the devices.

    Args:
      state, batch: arrays as shapes, with their shardings.
      limit: bytes per device; None: the memory that the devices report.
    """
    limit = bytes_per_device() if limit is None else limit
    of_state, of_batch = (
        sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(tree)
            if leaf.sharding.memory_kind != "pinned_host"
        )
        for tree in (state, batch)
    )
    if limit is not None and of_state + of_batch > limit:
        raise ConfigError(
            f"the training state takes {_gigabytes(of_state)} per device and a batch {_gigabytes(of_batch)}, but a "
            f"device has {_gigabytes(limit)}: choose a smaller model.width, model.num_layers, model.vocab_size or "
            "training.batch_size, or more devices on mesh.fsdp"
        )


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
