"""batch → loss: what a run optimizes, apart from how. A sum over supervised tokens, so that parts add up exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from gptjax.model.decoder import Decoder
from gptjax.model.parameters import head_DV
from gptjax.training.cross_entropy import cross_entropy


def next_token_loss(
    model: Decoder,
    params: Any,
    batch: Mapping[str, jax.Array],
    *,
    dropout_key: jax.Array | None = None,
    loss_chunk: int = 0,
    z_loss: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross-entropy of the next token, summed over the supervised tokens of a batch.

    Args:
      batch: tokens, targets [B, T] int32, weights [B, T] float32; segments and positions [B, T] when packed.
      dropout_key: None switches dropout off.
      loss_chunk: tokens whose logits exist at once; 0 for all.
      z_loss: weight of the squared log-partition function (PaLM, arXiv:2204.02311, section 5).

    Returns:
      The summed loss in nats (z-loss included), and {'nll_sum': without z-loss}. Both float32.
    """
    x_BTD = model.apply(
        {"params": params},
        batch["tokens"],
        segments_BT=batch.get("segments"),
        positions_BT=batch.get("positions"),
        deterministic=dropout_key is None,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
        method="hidden",
    )
    return cross_entropy(
        x_BTD,
        head_DV(params),
        batch["targets"],
        batch["weights"],
        chunk=loss_chunk,
        z_loss=z_loss,
        logit_softcap=model.config.logit_softcap,
    )
