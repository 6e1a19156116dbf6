"""One optimizer step and one validation step, as pure functions of (state, batch)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gptjax.model.dropout import has_dropout, row_keys
from gptjax.model.families import family_of
from gptjax.parallel.accumulation import on_each_replica
from gptjax.parallel.mesh import BATCH_AXES, compiler_axes
from gptjax.parallel.sharding import pinned_for_update, rows_spec
from gptjax.settings import Settings, TrainingSettings
from gptjax.tokenizer import Tokenizer
from gptjax.training.metrics import update_monitor
from gptjax.training.objectives.objective import Batch, Objective
from gptjax.training.optimizers.optimizer import clip_by_global_norm
from gptjax.training.optimizers.trained import completed, stop_at_frozen_layers, trained_only, zero_in_frozen_layers
from gptjax.training.optimizers.treatments import treatments_of
from gptjax.training.state import TrainState

Companions = Mapping[str, Any]  # name → `Companion` of the objective


def make_train_step(
    model: nn.Module,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    learning_rates: Mapping[str, Callable],
    config: Settings,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Makes the training step (state, batch, **companions) → (state, metrics): the gradients of a batch [A, B/A, T],
    the update, and the metrics to report. The companions are those of the objective.

    The loss of every micro-batch is divided by the weight of the *whole* batch, such as its supervised tokens, before
    differentiation. A micro-batches, any padding and any mesh therefore give the gradient of one big batch.

    Args:
      learning_rates: name of the metric → step → rate.

    An update is dropped if the loss or the gradient is not finite and `training.on_nonfinite` is 'skip', or if a
    z-score exceeds `training.outlier_zscore`: parameters and optimizer statistics do not change. Counters still
    advance, so that the schedule stays a function of the step. The monitor is still updated; otherwise a lasting change
    of the loss would drop every later update.
    """
    training = config.training
    declared = family_of(config.model).declarations
    treatments = treatments_of(config.optimizer, declared, objective.trains)
    dropout = has_dropout(config.model)
    as_read = stop_at_frozen_layers(config, declared, treatments)
    gradients_of = _make_gradients(model, objective, dropout, as_read)

    def train_step(state: TrainState, batch: Batch, **companions: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        total_weight = objective.weight(batch)
        trained = trained_only(state.params, treatments)
        figures, gradients = gradients_of(trained, (state.params, companions), batch, key, total_weight)
        loss = figures["loss"]
        if config.mesh.zero1:
            gradients = pinned_for_update(gradients, trained_only(declared, treatments))
        gradients = zero_in_frozen_layers(gradients, treatments)
        gradient_norm = optax.tree.norm(gradients)
        gradients = clip_by_global_norm(gradients, gradient_norm, config.optimizer.gradient_clip)
        if config.optimizer.memory == "host":
            state = state.replace(opt_state=moved(state.opt_state, jax.memory.Space.Device))
        updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
        params = completed(optax.apply_updates(trained, updates), state.params)
        params = objective.adjusted(params, figures)
        monitor, zscores = update_monitor(state.monitor, loss, gradient_norm)
        metrics = {
            **{f"train/{name}": figure for name, figure in objective.metrics(figures).items()},
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
        if state.ema is not None:  # averages the current parameters, even if the update was dropped
            new = new.replace(ema=update_average(state.ema, new.params, new.step, training.ema_decay))
        if config.optimizer.memory == "host":  # also for a compiler without devices, which ignores shardings' memories
            new = new.replace(opt_state=moved(new.opt_state, jax.memory.Space.Host))
        return new, metrics

    return train_step


def _make_gradients(
    model: nn.Module, objective: Objective, dropout: bool, as_read: Callable[[Any], Any]
) -> Callable[[Any, Any, Batch, jax.Array, jax.Array], tuple[dict[str, jax.Array], Any]]:
    """Makes the function (trained parameters, what is read, batch, key, total weight) → (figures, gradients).

    What is read are all parameters of the model, and the companions of the objective.

    Args:
      as_read: from all parameters to those that the model is applied to.
    """

    def loss_share(
        trained: Any,
        read: tuple[Any, Companions],
        micro: Batch,
        key: jax.Array,
        first_row: jax.typing.ArrayLike,
        total_weight: jax.Array,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        dropout_keys_B = row_keys(key, first_row, num_rows(micro)) if dropout else None
        params, companions = read
        params = as_read(completed(trained, params))
        loss_sum, figures = objective.loss(model, params, micro, dropout_keys_B, **companions)
        return loss_sum / total_weight, {name: figure / total_weight for name, figure in figures.items()}

    def gradients_of(
        trained: Any, read: tuple[Any, Companions], batch: Batch, key: jax.Array, total_weight: jax.Array
    ) -> tuple[dict[str, jax.Array], Any]:
        """(figures, gradients) of the whole batch. Several micro-batches run one after another."""
        differentiate = jax.value_and_grad(loss_share, has_aux=True)
        num_micro = num_rows(batch)
        first = jax.tree.map(lambda a: a[0], batch)
        if num_micro == 1:
            (_, figures), gradients = differentiate(trained, read, first, key, 0, total_weight)
            return figures, gradients

        def of_replica(
            replica: jax.typing.ArrayLike, both: tuple[Any, Any], batch: Batch, key: jax.Array, total_weight: jax.Array
        ) -> tuple[dict[str, jax.Array], Any]:
            def add(carry: Any, numbered: tuple[jax.Array, Batch]) -> tuple[Any, None]:
                i, micro = numbered
                micro = jax.tree.map(_split_rows, micro)
                first_row = i * num_rows(first) + replica * num_rows(micro)
                (_, figures), gradients = differentiate(*both, micro, key, first_row, total_weight)
                return jax.tree.map(jnp.add, carry, (figures, gradients)), None

            zeros = (figures, jax.tree.map(jnp.zeros_like, both[0]))
            return jax.lax.scan(add, zeros, (jnp.arange(num_micro), batch))[0]

        _, figures = jax.eval_shape(loss_share, trained, read, first, key, 0, total_weight)
        figures = {name: jnp.zeros(figure.shape, figure.dtype) for name, figure in figures.items()}
        return on_each_replica(of_replica)((trained, read), batch, key, total_weight)

    return gradients_of


def moved(opt_state: Any, space: Any) -> Any:
    """Moves the arrays of an optimizer's state to a memory (`optimizer.memory`). Counters are always on the devices."""
    return jax.tree.map(lambda x: jax.device_put(x, space) if x.ndim else x, opt_state)


def update_average(average: Any, params: Any, steps: jax.typing.ArrayLike, decay: float) -> Any:
    """The exponential moving average after `steps` steps, from the previous average and the new `params`.

    It is Σ decay^(t-i) params_i / Σ decay^(t-i) over the steps i = 1 … t: the bias correction of Adam (Kingma and Ba,
    arXiv:1412.6980, section 3) is part of the weight of the newest parameters, which is 1 at the first step. The stored
    average needs no correction when it is used, and excludes the initial parameters. Where it has None, it stays so.
    """
    weight = (1 - decay) / -jnp.expm1(jnp.float32(steps) * math.log(decay))

    def update(old: jax.Array | None, new: jax.Array) -> jax.Array | None:
        return None if old is None else old + weight * (new - old)

    return jax.tree.map(update, average, params, is_leaf=lambda x: x is None)


def num_rows(batch: Batch) -> int:
    """The size of the leading axis of a batch's arrays."""
    return jax.tree.leaves(batch)[0].shape[0]


def _split_rows(array: jax.Array) -> jax.Array:
    """Pins a micro-batch's rows to the batch axes.

    Batches already have this sharding. Without the constraint, the partitioner could move the split onto the
    micro-batch axis of the scan: every device would compute every micro-batch, with the right loss at a fraction of the
    speed.
    """
    axes = compiler_axes(BATCH_AXES)
    return jax.lax.with_sharding_constraint(array, rows_spec(array.ndim - 1, axes)) if axes else array


def _unless_dropped(keep: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Selects the new or the old values, which is free since the update reads the old values anyway. Integer scalars
    count steps, so they always advance."""
    counts = new.ndim == 0 and jnp.issubdtype(new.dtype, jnp.integer)
    return new if counts else jnp.where(keep, new, old)


def _is_sound(
    loss: jax.Array, gradient_norm: jax.Array, zscores: Mapping[str, jax.Array], training: TrainingSettings
) -> jax.Array:
    sound = jnp.array(True)
    if training.on_nonfinite == "skip":
        sound &= jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
    if training.outlier_zscore:
        # a non-finite value has a non-finite z-score, which on_nonfinite handles
        worst = jnp.maximum(zscores["loss"], zscores["gradient_norm"])
        sound &= ~(jnp.isfinite(worst) & (worst > training.outlier_zscore))
    return sound


def make_evaluation_step(model: nn.Module, objective: Objective, tokenizer: Tokenizer) -> Callable:
    """(params, batch [1, B, …], **companions) → the objective's float32 sums over the batch."""
    sums = objective.evaluation(model, tokenizer)

    def evaluation_step(params: Any, batch: Batch, **companions: Any) -> dict[str, jax.Array]:
        return sums(params, jax.tree.map(lambda a: a[0], batch), **companions)

    return evaluation_step
