"""Words for a device that is out of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
from ml_collections import FrozenConfigDict

from gptjax.config import RunError


@contextlib.contextmanager
def explained_memory(config: FrozenConfigDict) -> Iterator[None]:
    """Turns a device that is out of memory into a sentence that says what would need less."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        training = config.training
        raise RunError(
            f"out of device memory: {str(error).splitlines()[0]}. What needs less: a larger "
            f"training.gradient_accumulation_steps (now {training.gradient_accumulation_steps}), "
            f"training.loss_chunk=8192 (now {training.loss_chunk}), model.remat=dots or full (now "
            f"{config.model.remat}), more devices on mesh.fsdp"
        ) from error
