"""The mean of a run's last checkpoints, as one model."""

from __future__ import annotations

import functools
import operator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from gptjax.errors import ConfigError
from gptjax.settings import Settings
from gptjax.training.checkpoints.loading import load_for_inference, saved_steps


def load_average(
    run: Path, count: int, ema: bool | None = None, own_functions: bool = False, mesh: Mesh | None = None
) -> tuple[Any, Settings, list[dict]]:
    """Reads the last `count` checkpoints of the run, one after another.

    mesh: see `load_for_inference`.

    Returns:
      the mean of their parameters, the run's config, and the metadata of each checkpoint, ascending by step.

    Raises:
      ConfigError: the run has fewer checkpoints, or as `load_for_inference` raises.
    """
    steps = saved_steps(run)
    if len(steps) < count:
        raise ConfigError(f"--average={count}: must be at most the number of checkpoints in {run}, {len(steps)}")
    total, all_metadata = None, []
    for step in steps[-count:]:
        params, config, metadata = load_for_inference(run, step, ema, own_functions, mesh)
        total = params if total is None else jax.tree.map(operator.add, total, params)
        all_metadata.append(metadata)
    return jax.tree.map(functools.partial(operator.mul, 1 / count), total), config, all_metadata
