"""Initial values of matrices: rules for the embedding, the head, and projections from and to the residual stream."""

from __future__ import annotations

import flax.linen as nn

from gptjax.config import ConfigError
from gptjax.settings import ModelSettings


def embedding_init(config: ModelSettings) -> nn.initializers.Initializer:
    """Embeddings of tokens and positions: normal with `embedding_std`."""
    return nn.initializers.normal(config.embedding_std or config.initialization_std)


def head_init(config: ModelSettings) -> nn.initializers.Initializer:
    """The output matrix: normal with `head_std`."""
    return nn.initializers.normal(config.head_std or config.initialization_std)


def input_init(config: ModelSettings) -> nn.initializers.Initializer:
    """Projections out of the residual stream: normal with `initialization_std`."""
    return nn.initializers.normal(config.initialization_std)


def output_init(config: ModelSettings) -> nn.initializers.Initializer:
    """Projections back into the residual stream (attention output, feed-forward down).

    `residual_scaled` divides by sqrt(2 L), so that the sum of the 2 L outputs has the same variance at any depth
    (GPT-2); `zero` makes every block the identity at the start.
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
