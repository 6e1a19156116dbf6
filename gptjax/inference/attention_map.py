"""The cross-attention of an encoder–decoder for a pair of texts, as numbers and as a figure."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.config import ConfigError
from gptjax.files import write_aside
from gptjax.model.decoder import Block
from gptjax.model.encoder_decoder import EncoderDecoder
from gptjax.settings import ModelSettings


class _WatchedBlock(Block):
    """A layer that reports its cross-attention among its statistics."""

    def apply(self, variables: Any, *args: Any, **options: Any) -> Any:
        made, seen = super().apply(variables, *args, mutable=["intermediates"], **options)
        x_BTD, cache, statistics = made
        (weights_BNTS,) = seen["intermediates"]["cross_attention"]["weights"]
        return x_BTD, cache, statistics | {"cross_attention": weights_BNTS}


def cross_attention(params: Any, config: ModelSettings, source: Sequence[int], target: Sequence[int]) -> np.ndarray:
    """The cross-attention of each token of the target to each token of the source, float32 [L, N, T, S].

    The weights of a token of the target sum to 1 over S.

    Args:
      params: trained parameters of a model with an encoder and a decoder.
      source: the tokens that the encoder reads, including EOS (`Family.framed` without its last token).
      target: the tokens that the decoder reads: the begin token, then the target. Row t belongs to the step that reads
        token t and predicts token t + 1.

    Raises:
      ConfigError: the model is of another family, or one side is empty or longer than the model's positions.
    """
    if config.family != "encoder_decoder":
        raise ConfigError(
            f"model.family = {config.family!r}: only encoder_decoder has cross-attention from a target to a source"
        )
    for side, tokens, most in (
        ("source", source, config.max_source_positions),
        ("target", target, config.max_positions),
    ):
        if not 0 < len(tokens) <= most:
            raise ConfigError(f"{side} = {len(tokens)} tokens: must be from 1 to {most}, the positions of the model")
    statistics = _statistics(config, params, jnp.asarray([source], jnp.int32), jnp.asarray([target], jnp.int32))
    return np.asarray(statistics["cross_attention"][:, 0])


@functools.partial(jax.jit, static_argnums=0)
def _statistics(config: ModelSettings, params: Any, source_BS: jax.Array, target_BT: jax.Array) -> dict[str, jax.Array]:
    model: Any = EncoderDecoder(config, block=functools.partial(_WatchedBlock, cross=True))
    _, statistics = model.apply({"params": params}, target_BT, source_BS=source_BS, method="hidden")
    return statistics


def plot_attention(path: Path, weights_LTS: np.ndarray, source: Sequence[str], written: Sequence[str]) -> None:
    """Draws a panel for each layer, with a row for each generated token and a column for each token of the source.

    Args:
      weights_LTS: for example the mean over the heads of `cross_attention`.
      source: S names of tokens; written: T names of the tokens that the rows' steps predict.
    """
    from matplotlib.figure import Figure  # imported late because matplotlib is slow to import

    layers, size = len(weights_LTS), (0.32 * len(source) + 1.2, 0.3 * len(written) + 1.6)
    figure = Figure(figsize=(layers * size[0], size[1]), layout="constrained")
    for layer, axes in enumerate(figure.subplots(1, layers, squeeze=False)[0]):
        axes.imshow(weights_LTS[layer], cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_title(f"layer {layer + 1}")
        axes.set_xticks(range(len(source)), source, rotation=90)
        axes.set_yticks(range(len(written)), written)
    with write_aside(path) as file:
        figure.savefig(file, format="png", dpi=150)  # type: ignore[arg-type]
