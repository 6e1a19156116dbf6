"""One optimizer step, and one validation step, as pure functions of (state, batch)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gptjax.model.decoder import Decoder
from gptjax.model.dropout import row_keys
from gptjax.parallel.mesh import BATCH_AXES
from gptjax.training.metrics import update_monitor
from gptjax.training.objective import next_token_loss
from gptjax.training.optimizer import clip_by_global_norm, plan, zero_frozen
from gptjax.training.state import TrainState

Batch = Mapping[str, jax.Array]
P = jax.sharding.PartitionSpec


def make_train_step(
    model: Decoder, optimizer: optax.GradientTransformation, learning_rates: Mapping[str, Callable], config: Any
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """The step of a run: batch [A, B/A, T] → gradients → update, with the scalars to report.

    The loss of every micro-batch is divided by the supervised tokens of the *whole* batch before it is differentiated,
    so A micro-batches, any padding and any mesh give the gradient of one big batch.

    learning_rates: name of the metric → step → rate.

    An update is dropped when the loss or the gradient is not finite and `training.on_nonfinite` is 'skip', or when a
    z-score exceeds `training.outlier_zscore`: parameters and statistics of the optimizer stay as they were. Counters go
    on, so that the schedule stays a function of the step; so does the monitor, or a lasting change of the loss would
    drop every update from then on.
    """
    training = config.training
    dropout = config.model.dropout > 0 or config.model.attention_dropout > 0

    def loss_share(params, micro: Batch, key, first_row, total_weight):
        loss_sum, aux = next_token_loss(
            model,
            params,
            micro,
            dropout_keys_B=row_keys(key, first_row, micro["tokens"].shape[0]) if dropout else None,
            loss_chunk=training.loss_chunk,
            z_loss=training.z_loss,
        )
        return loss_sum / total_weight, aux["nll_sum"] / total_weight

    def gradients_of(params, batch: Batch, key, total_weight):
        """(loss, gradients) of the whole batch; one micro-batch after the other when there are several."""
        differentiate = jax.value_and_grad(loss_share, has_aux=True)
        num_micro = batch["tokens"].shape[0]
        if num_micro == 1:
            (_, nll), gradients = differentiate(params, jax.tree.map(lambda a: a[0], batch), key, 0, total_weight)
            return nll, gradients

        def add(carry, numbered):
            i, micro = numbered
            micro = jax.tree.map(_split_rows, micro)
            (_, nll), gradients = differentiate(params, micro, key, i * micro["tokens"].shape[0], total_weight)
            return jax.tree.map(jnp.add, carry, (nll, gradients)), None

        zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
        return jax.lax.scan(add, zeros, (jnp.arange(num_micro), batch))[0]

    def train_step(state: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        total_weight = batch["weights"].sum()
        loss, gradients = gradients_of(state.params, batch, key, total_weight)
        gradients = zero_frozen(gradients, plan(config.optimizer, gradients))
        gradient_norm = optax.tree.norm(gradients)
        gradients = clip_by_global_norm(gradients, gradient_norm, config.optimizer.gradient_clip)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        monitor, zscores = update_monitor(state.monitor, loss, gradient_norm)
        metrics = {
            "train/loss": loss,
            "train/gradient_norm": gradient_norm,
            "train/loss_zscore": zscores["loss"],
            "train/gradient_norm_zscore": zscores["gradient_norm"],
            "train/supervised_tokens": total_weight,
            **{name: rate(state.step) for name, rate in learning_rates.items()},
        }
        new = TrainState(state.step + 1, params, opt_state, state.ema, monitor)
        if training.on_nonfinite == "skip" or training.outlier_zscore:
            keep = _is_sound(loss, gradient_norm, zscores, training)
            metrics["train/skipped"] = 1.0 - keep
            new = jax.tree.map(functools.partial(_unless_dropped, keep), new, state).replace(monitor=monitor)
        if state.ema is not None:  # of the parameters as they now are, also where the update was dropped
            new = new.replace(ema=update_average(state.ema, new.params, new.step, training.ema_decay))
        return new, metrics

    return train_step


def update_average(average: Any, params: Any, steps: jax.typing.ArrayLike, decay: float) -> Any:
    """The exponential moving average of `params` after `steps` steps, these included, from that after the one before.

    It is Σ decay^(t-i) params_i / Σ decay^(t-i) over the steps i = 1 … t: the bias correction of Adam (Kingma and Ba,
    arXiv:1412.6980, section 3) is part of the weight of the newest parameters, which is 1 at the first step. What is
    kept needs no correction where it is used, and the initial parameters have no part in it.
    """
    weight = (1 - decay) / -jnp.expm1(jnp.float32(steps) * math.log(decay))
    return jax.tree.map(lambda old, new: old + weight * (new - old), average, params)


def _split_rows(array: jax.Array) -> jax.Array:
    """Pins a micro-batch's rows to the batch axes.

    Batches come placed like this already. Were they not, the partitioner could move the split onto the micro-batch axis
    of the scan: then every device computes every micro-batch, with the right loss at a fraction of the speed.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return array
    return jax.lax.with_sharding_constraint(array, P(BATCH_AXES))


def _unless_dropped(keep: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """A select costs nothing where the old values are being read for the update anyway; integers count steps."""
    return jnp.where(keep, new, old) if jnp.issubdtype(new.dtype, jnp.inexact) else new


def _is_sound(loss, gradient_norm, zscores, training) -> jax.Array:
    sound = jnp.array(True)
    if training.on_nonfinite == "skip":
        sound &= jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
    if training.outlier_zscore:
        # a z-score of a number that is not finite is not finite either: only what is finite is judged here
        worst = jnp.maximum(zscores["loss"], zscores["gradient_norm"])
        sound &= ~(jnp.isfinite(worst) & (worst > training.outlier_zscore))
    return sound


def make_evaluation_step(model: Decoder, config: Any, token_bytes_V: jax.Array) -> Callable:
    """(params, batch [1, B, T]) → float32 sums over the supervised tokens: nll (nats), tokens, bytes of text."""

    def evaluation_step(params, batch: Batch) -> dict[str, jax.Array]:
        batch = jax.tree.map(lambda a: a[0], batch)
        _, aux = next_token_loss(model, params, batch, loss_chunk=config.training.loss_chunk)
        weights = batch["weights"]
        return {
            "nll": aux["nll_sum"],
            "tokens": weights.sum(),
            "bytes": (token_bytes_V[batch["targets"]] * weights).sum(),
        }

    return evaluation_step
