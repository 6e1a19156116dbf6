"""The error for a device that runs out of memory. Before that, forecast/fits.py refuses a run that cannot fit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

from gptjax.config import RunError
from gptjax.settings import Settings


@contextlib.contextmanager
def explained_memory(config: Settings) -> Iterator[None]:
    """Turns an out-of-memory error into a message that names settings that need less memory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        training, model = config.training, config.model
        raise RunError(
            f"out of device memory: {str(error).splitlines()[0]}. These need less memory: {_smaller(config)}, "
            f"training.loss_chunk=8192 (now {training.loss_chunk}), model.remat=dots, full or "
            f"offload_inputs (now {model.remat}), optimizer.memory=host (now {config.optimizer.memory}), or "
            "more devices on mesh.fsdp"
        ) from error


def _smaller(config: Settings) -> str:
    """The setting that makes micro-batches smaller: fewer sequences per device if their number is set, otherwise more
    micro-batches."""
    training = config.training
    now = int(training.batch_per_device or 1)
    if now > 1:
        following = max(rows for rows in range(1, now) if now % rows == 0)
        return f"training.batch_per_device={following} (now {now})"
    steps = training.gradient_accumulation_steps
    return f"a larger training.gradient_accumulation_steps (now {steps}; training.batch_per_device=auto chooses it)"
