"""The state of a training run: one pytree, saved and restored as a whole."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax

from gptjax.training.optimizers.trained import completed


class TrainState(flax.struct.PyTreeNode):
    """Everything the next step depends on, besides the config and the data.

    There is no random state: keys are folded from the config's seed and `step`, so a restored run draws the same
    numbers as an uninterrupted one.

    Attributes:
      step: int32 scalar, the optimizer steps taken.
      params: float32 tree, the layers stacked on their first axis.
      opt_state: the state of the Optax transformation.
      ema: bias-corrected exponential moving average of `params`, with None in place of those that no step changes
        (frozen_parameters.py); None if it is off.
      monitor: float32 scalars, the running statistics behind the z-scores of loss and gradient norm.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any
    monitor: dict[str, jax.Array]

    @property
    def best_params(self) -> Any:
        """The parameters to evaluate and sample from: the moving average if there is one."""
        return self.params if self.ema is None else completed(self.ema, self.params)
