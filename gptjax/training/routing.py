"""Computes losses, metrics and bias updates from the statistics of routers (model/mixture_of_experts.py).

The load balance loss (Switch Transformer, arXiv:2101.03961) is E Σ_e f_e P_e, with each expert's fraction f of the
choices and mean probability P; it is 1 if balanced. With `load_balance_over = 'sequence'`, both are computed per row
(as in DeepSeek-V2), so the loss of a batch is a sum over rows and does not depend on micro-batches or the mesh. With
'batch', they are computed over all rows, which lets experts specialize on some texts (arXiv:2501.11873). That is not a
sum over micro-batches, so it requires a single micro-batch. The router's z-loss is the mean squared log of its softmax
denominator (ST-MoE, arXiv:2202.08906). Both are means over layers.

The bias (`model.router_bias`; DeepSeek-V3, arXiv:2412.19437, section 2.1.2) is a parameter without a gradient: after
each step it rises by `training.router_bias_rate` for experts with fewer choices than the mean in the whole batch, and
falls for those with more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptjax.model.mixture_of_experts import ROUTER_BIAS
from gptjax.model.tree import map_with_path
from gptjax.settings import TrainingSettings

LOAD = "expert_tokens"  # [L, E]: number of choices of each expert, divided by the weight of the batch
STATISTICS = (LOAD, "router_probability", "router_z", "router_entropy", "router_tokens", "expert_drops")
REPORTED_LOAD = "expert_load"
MOST_LOADS = 1024  # maximum number of loads in a row of metrics.jsonl: 16 layers of 64 experts
PREFIXES = ("", "encoder_")  # prefixes of statistics: the model's own stack, and its encoder's


def router_losses(
    statistics: Mapping[str, jax.Array], weight_B: jax.Array, training: TrainingSettings
) -> tuple[jax.Array | None, dict[str, jax.Array]]:
    """The auxiliary loss of a batch and its figures, as sums over the batch; (None, {}) without routers.

    Args:
      statistics: [L, B, …].
      weight_B: the weight of each row in the loss.
    """
    total: jax.Array | None = None
    figures: dict[str, jax.Array] = {}
    for prefix in PREFIXES:
        if prefix + LOAD in statistics:
            of_stack = {name: statistics[prefix + name] for name in STATISTICS if prefix + name in statistics}
            loss, of_routers = _losses_of_stack(of_stack, weight_B, training)
            total = loss if total is None else total + loss
            figures |= {prefix + name: figure for name, figure in of_routers.items()}
    return total, figures


def _losses_of_stack(
    statistics: Mapping[str, jax.Array], weight_B: jax.Array, training: TrainingSettings
) -> tuple[jax.Array, dict[str, jax.Array]]:
    load_LBE, probability_LBE = statistics[LOAD], statistics["router_probability"]
    tokens_LB1 = statistics["router_tokens"][..., None]
    if training.load_balance_over == "sequence":
        balance = jnp.sum(_balance(load_LBE, probability_LBE, tokens_LB1).mean(0) * weight_B)
    else:
        of_all = _balance(load_LBE.sum(1), probability_LBE.sum(1), tokens_LB1.sum(1))
        balance = of_all.mean() * weight_B.sum()

    def mean(name: str) -> jax.Array:
        """The mean over layers and tokens, times the weight of the batch."""
        mean_LB = statistics[name] / jnp.maximum(statistics["router_tokens"], 1.0)
        return jnp.sum(mean_LB.mean(0) * weight_B)

    z, entropy = mean("router_z"), mean("router_entropy")
    figures = {"load_balance_loss": balance, "router_z_loss": z, "router_entropy": entropy, LOAD: load_LBE.sum(1)}
    if "expert_drops" in statistics:  # only with a capacity
        choices = jnp.maximum(load_LBE.sum(-1), 1.0)
        figures["expert_drops"] = jnp.sum((statistics["expert_drops"] / choices).mean(0) * weight_B)
    return training.load_balance_loss * balance + training.router_z_loss * z, figures


def _balance(load: jax.Array, probability: jax.Array, tokens: jax.Array) -> jax.Array:
    """E Σ f P over the last axis, from sums over `tokens` tokens; 0 without tokens."""
    share = load / jnp.maximum(load.sum(-1, keepdims=True), 1.0)
    return load.shape[-1] * jnp.sum(share * probability / jnp.maximum(tokens, 1.0), axis=-1)


def router_metrics(figures: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Metrics of a whole batch: the largest load of an expert as a multiple of its layer's mean, and the fraction of
    experts that no token chose. 'expert_load', the array [L, E] of loads as multiples of the mean, is included unless
    it is large."""
    reported = {}
    for name, figure in figures.items():
        if not name.endswith(LOAD):
            reported[name] = figure
            continue
        prefix = name.removesuffix(LOAD)
        mean_L = jnp.maximum(figure.mean(-1), jnp.finfo(figure.dtype).tiny)
        reported[f"{prefix}expert_load_max"] = jnp.max(figure.max(-1) / mean_L)
        reported[f"{prefix}experts_unused"] = jnp.mean(figure == 0)
        if figure.size <= MOST_LOADS:
            reported[prefix + REPORTED_LOAD] = figure / mean_L[:, None]
    return reported


def balanced(params: Any, figures: Mapping[str, jax.Array], rate: float) -> Any:
    """The parameters with the routers' biases moved against the load imbalance of a whole batch."""

    if not any(prefix + LOAD in figures for prefix in PREFIXES):
        return params

    def moved(path: str, param: jax.Array) -> jax.Array:
        if path.rsplit("/", 1)[-1] != ROUTER_BIAS:
            return param
        load_LE = figures[("encoder_" if path.startswith("encoder/") else "") + LOAD]
        return param + rate * jnp.sign(load_LE.mean(-1, keepdims=True) - load_LE).astype(param.dtype)

    return map_with_path(moved, params)
