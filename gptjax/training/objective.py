"""batch → loss: what a run optimizes, apart from how. A sum over supervised tokens, so that parts add up exactly."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import PartitionSpec as P

from gptjax.model.decoder import Decoder
from gptjax.model.parameters import head_DV
from gptjax.parallel.mesh import BATCH_AXES
from gptjax.training.cross_entropy import cross_entropy


def next_token_loss(
    model: Decoder,
    params: Any,
    batch: Mapping[str, jax.Array],
    *,
    dropout_keys_B: jax.Array | None = None,
    loss_chunk: int = 0,
    z_loss: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross-entropy of the next token, summed over the supervised tokens of a batch.

    Args:
      batch: tokens, targets [B, T] int32, weights [B, T] float32; segments and positions [B, T] when packed.
      dropout_keys_B: of each row (model/dropout.py); None switches dropout off.
      loss_chunk: tokens whose logits exist at once on a device; 0 for all.
      z_loss: weight of the squared log-partition function (PaLM, arXiv:2204.02311, section 5).

    Returns:
      The summed loss in nats (z-loss included), and {'nll_sum': without z-loss}. Both float32.
    """
    x_BTD = model.apply(
        {"params": params},
        batch["tokens"],
        segments_BT=batch.get("segments"),
        positions_BT=batch.get("positions"),
        dropout_keys_B=dropout_keys_B,
        method="hidden",
    )
    loss = functools.partial(cross_entropy, chunk=loss_chunk, z_loss=z_loss, logit_softcap=model.config.logit_softcap)
    if loss_chunk:
        loss = _on_each_device(loss)
    return loss(x_BTD, head_DV(params), batch["targets"], batch["weights"])


def _on_each_device(loss: Callable) -> Callable:
    """`loss` of each device's own rows, summed over the batch axes of the mesh in force.

    Left to the partitioner, a loop over chunks would gather the head and sum its gradient over the devices at every
    turn; here that happens once, outside.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or all(mesh.shape[axis] == 1 for axis in BATCH_AXES):
        return loss

    def local(x_BTD, head_DV, targets_BT, weights_BT):
        head_DV = jax.lax.pcast(head_DV, BATCH_AXES, to="varying")
        return jax.lax.psum(loss(x_BTD, head_DV, targets_BT, weights_BT), BATCH_AXES)

    rows = P(BATCH_AXES)
    return jax.shard_map(local, in_specs=(rows, P(), rows, rows), out_specs=P(), axis_names=set(BATCH_AXES))
