"""How matrices start: one rule for those that read the residual stream, one for those that write to it."""

from __future__ import annotations

import flax.linen as nn

from gptjax.config import ConfigError
from gptjax.settings import ModelSettings


def input_init(config: ModelSettings) -> nn.initializers.Initializer:
    """Embeddings, head and projections out of the residual stream: normal with `initialization_std`."""
    return nn.initializers.normal(config.initialization_std)


def output_init(config: ModelSettings) -> nn.initializers.Initializer:
    """Projections back into the residual stream (attention output, feed-forward down).

    `residual_scaled` divides by sqrt(2 L), so that the sum of the 2 L writes keeps its variance at any depth (GPT-2);
    `zero` makes every block the identity at the start.
    """
    if config.initialization == "normal":
        return nn.initializers.normal(config.initialization_std)
    if config.initialization == "residual_scaled":
        return nn.initializers.normal(config.initialization_std / (2 * config.num_layers) ** 0.5)
    if config.initialization == "zero":
        return nn.initializers.zeros
    raise ConfigError(
        f"model.initialization = {config.initialization!r}: expected one of normal, residual_scaled, zero"
    )
