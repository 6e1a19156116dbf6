"""A mixture of experts: a feed-forward layer whose experts each process some of the tokens (arXiv:1701.06538).

    scores = softmax(x · router), or sigmoid            [E], one for each expert
    chosen = the k experts with the highest scores      (with `router_bias`, of scores + bias: DeepSeek-V3)
    y      = Σ over chosen: weight · expert(x)  [+ shared(x), an expert that every token uses]

Tokens are sorted by expert (`grouped_products`), so that no token has to be dropped. With `expert_capacity` c > 0, an
expert takes at most c · T k / E, rounded up, of the T tokens of a row. It takes the earliest ones, so that no token
depends on later tokens; the others get no output from this expert. Rows are independent of each other on any mesh.
Nothing is dropped during generation.

The router's choices are reported as statistics of the block, from which training/routing.py computes losses, metrics
and the bias.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gptjax.model import lora
from gptjax.model.feedforward import FeedForward, activation_of
from gptjax.model.grouped_products import blocks_of, grouped_product
from gptjax.model.initialization import input_init, output_init
from gptjax.model.parameters import matrix, vector
from gptjax.model.placement import ONE_DEVICE, Placement
from gptjax.model.rematerialization import from_arguments
from gptjax.settings import ModelSettings

ROUTER_BIAS = "router_bias"
EXPERT_MATRICES = ("gate", "up", "down")
ADAPTER_PARTS = (lora.A, lora.B)


class Group:
    """The devices that share rows and experts. This class is for one device, which has all (see parallel/expert.py for
    several)."""

    def earlier(self, count_BE: jax.Array) -> jax.typing.ArrayLike:
        """Sums these counts over the devices that have earlier tokens of the same rows."""
        return 0

    def row_length(self, real_BT: jax.Array) -> int:
        """The length T of a whole row."""
        return real_BT.shape[1]

    def outputs(
        self, config: ModelSettings, x_BTD: jax.Array, chosen_BTk: jax.Array, share_BTk: jax.Array, weights: dict
    ) -> jax.Array:
        """The combined output of all experts for this device's tokens; `chosen_BTk` is E where a choice is dropped."""
        x_ND, chosen_Nk, share_Nk = (each.reshape(-1, each.shape[-1]) for each in (x_BTD, chosen_BTk, share_BTk))
        return expert_outputs(config, x_ND, chosen_Nk, share_Nk, weights).reshape(x_BTD.shape)


ALONE = Group()


class MixtureOfExperts(nn.Module):
    """`FeedForward` with `num_experts` experts, each `feedforward_width` wide."""

    config: ModelSettings
    placement: Placement = ONE_DEVICE

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        segments_BT: jax.Array | None = None,
        *,
        drops: bool = True,
        dropout_keys_B: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[B, T, D], and statistics, each a sum over the tokens of a row that are not padding (segment 0):

        expert_tokens [B, E]: number of tokens that chose each expert. router_probability [B, E]: scores that sum to
        one. router_z [B]: squared log of the softmax denominator. router_entropy [B], in nats. router_tokens [B]: 1.
        expert_drops [B], with a capacity: number of choices whose expert was full.

        Args:
          drops: if False, no token is dropped, whatever capacity the config sets.
          dropout_keys_B: for the dropout of the shared experts' adapters.
        """
        config = self.config if drops else dataclasses.replace(self.config, expert_capacity=0.0)
        width, inner = {"embed": config.width}, {"mlp": config.feedforward_width}
        experts, used = {"experts": config.num_experts}, config.experts_per_token
        into, out = input_init(config), output_init(config)
        weights = {
            "router": matrix(self, "router", width, {"router": config.num_experts}, into),
            "up": matrix(self, "up", width, inner, into, stack=experts, active=used, adaptable=True),
            "down": matrix(self, "down", inner, width, out, stack=experts, active=used, adaptable=True),
        }
        if activation_of(config.feedforward)[1]:
            weights["gate"] = matrix(self, "gate", width, inner, into, stack=experts, active=used, adaptable=True)
        for name in EXPERT_MATRICES:
            adapter: Any = self.get_variable("params", name + lora.SUFFIX)
            weights |= {} if adapter is None else {adapter_name(name, part): adapter[part] for part in ADAPTER_PARTS}
        if config.router_bias:
            weights[ROUTER_BIAS] = vector(self, ROUTER_BIAS, {"router": config.num_experts}, trained=False)
        shared_BTD: Any = 0
        if config.shared_experts:
            wider = dataclasses.replace(config, feedforward_width=config.shared_experts * config.feedforward_width)
            shared_BTD = FeedForward(wider, name="shared")(x_BTD, dropout_keys_B)
        if self.is_initializing():
            return x_BTD, {}
        real_BT = jnp.ones(x_BTD.shape[:2], bool) if segments_BT is None else segments_BT != 0
        y_BTD, statistics = self.placement.experts(functools.partial(mixture, config), x_BTD, real_BT, weights)
        return y_BTD + shared_BTD, statistics


def mixture(
    config: ModelSettings, x_BTD: jax.Array, real_BT: jax.Array, weights: dict[str, Any], group: Group = ALONE
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The routed experts' output and the statistics for a device's own rows.

    Args:
      weights: the router's, and those of the experts that this device has.
    """
    chosen_BTk, share_BTk, statistics = route(config, x_BTD, real_BT, weights)
    if config.expert_capacity:
        chosen_BTk, statistics["expert_drops"] = _within_capacity(config, chosen_BTk, real_BT, group)
    return group.outputs(config, x_BTD, chosen_BTk, share_BTk, weights), statistics


def route(
    config: ModelSettings, x_BTD: jax.Array, real_BT: jax.Array, weights: dict[str, Any]
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """The experts that each token uses, the share of each in its output, both [B, T, k], and the statistics.

    Scores are computed in float32: in bfloat16, experts with close scores could swap ranks.
    """
    dtype = jnp.promote_types(x_BTD.dtype, jnp.float32)
    logits_BTE = jnp.einsum("BTD,DE->BTE", x_BTD.astype(dtype), weights["router"].astype(dtype))
    if config.router_scores == "softmax":
        scores_BTE = probability_BTE = jax.nn.softmax(logits_BTE, axis=-1)
    else:
        scores_BTE = jax.nn.sigmoid(logits_BTE)
        probability_BTE = scores_BTE / jnp.sum(scores_BTE, axis=-1, keepdims=True)
    bias_E = jax.lax.stop_gradient(weights[ROUTER_BIAS]) if ROUTER_BIAS in weights else 0.0
    chosen_BTk = jax.lax.top_k(jax.lax.stop_gradient(scores_BTE) + bias_E, config.experts_per_token)[1]
    share_BTk = jnp.take_along_axis(scores_BTE, chosen_BTk, axis=-1)
    if config.router_normalized:
        share_BTk = share_BTk / (jnp.sum(share_BTk, axis=-1, keepdims=True) + 1e-20)
    share_BTk = (share_BTk * config.router_scale).astype(x_BTD.dtype)

    is_chosen_BTE = jnp.sum(jax.nn.one_hot(chosen_BTk, config.num_experts, dtype=dtype), axis=2)
    real_BT = real_BT.astype(dtype)
    entropy_BT = jnp.sum(jax.scipy.special.entr(probability_BTE), axis=-1)
    statistics = {
        "expert_tokens": jnp.einsum("BT,BTE->BE", real_BT, is_chosen_BTE),
        "router_probability": jnp.einsum("BT,BTE->BE", real_BT, probability_BTE),
        "router_z": jnp.sum(real_BT * jnp.square(jax.nn.logsumexp(logits_BTE, axis=-1)), axis=1),
        "router_entropy": jnp.sum(real_BT * entropy_BT, axis=1),
        "router_tokens": jnp.sum(real_BT, axis=1),
    }
    return chosen_BTk, share_BTk, statistics


def capacity(config: ModelSettings, num_tokens: int) -> int:
    """The maximum number of tokens of a row that an expert takes."""
    mean = num_tokens * config.experts_per_token / config.num_experts
    return min(num_tokens, math.ceil(config.expert_capacity * mean))


def _within_capacity(
    config: ModelSettings, chosen_BTk: jax.Array, real_BT: jax.Array, group: Group
) -> tuple[jax.Array, jax.Array]:
    """The choices, with E in place of dropped choices and of padding; and the number of dropped choices, [B]."""
    num_experts = config.num_experts
    chosen_BTk = jnp.where(real_BT[..., None], chosen_BTk, num_experts)
    places_BTk, count_BE = places(chosen_BTk, num_experts)
    before_BE = group.earlier(count_BE) + jnp.zeros_like(count_BE)
    before_BTk = jnp.take_along_axis(before_BE[:, None], jnp.minimum(chosen_BTk, num_experts - 1), axis=-1)
    late_BTk = (places_BTk + before_BTk >= capacity(config, group.row_length(real_BT))) & (chosen_BTk < num_experts)
    return jnp.where(late_BTk, num_experts, chosen_BTk), jnp.sum(late_BTk, axis=(1, 2)).astype(jnp.float32)


def places(chosen_BTk: jax.Array, num_experts: int) -> tuple[jax.Array, jax.Array]:
    """The number of earlier tokens of the row with the same choice, [B, T, k]; and the number of each choice in a row,
    [B, E].

    E as a choice stands for no expert, and its place has no meaning.
    """
    is_chosen_BTE = jnp.sum(jax.nn.one_hot(chosen_BTk, num_experts, dtype=jnp.int32), axis=2)
    until_BTE = jnp.cumsum(is_chosen_BTE, axis=1)
    earlier_BTE = until_BTE - is_chosen_BTE
    return jnp.take_along_axis(earlier_BTE, jnp.minimum(chosen_BTk, num_experts - 1), axis=-1), until_BTE[:, -1]


def expert_outputs(
    config: ModelSettings,
    x_ND: jax.Array,
    chosen_Nk: jax.Array,
    share_Nk: jax.Array,
    weights: dict[str, Any],
    first: jax.typing.ArrayLike = 0,
) -> jax.Array:
    """The combined output of these experts for each of the N tokens, [N, D].

    Args:
      weights: the matrices of some experts.
      first: the number of the first of these experts.
    """
    num_mine, num_used = weights["up"].shape[0], config.experts_per_token
    mine_R = chosen_Nk.reshape(-1) - first
    mine_R = jnp.where((mine_R >= 0) & (mine_R < num_mine), mine_R, num_mine)
    blocks = blocks_of(mine_R, num_mine)
    x_SD = x_ND.at[blocks.rows_S // num_used].get(mode="fill", fill_value=0)  # row R = N · k is out of range

    def product(x_SI: jax.Array, weight: Any) -> jax.Array:
        return grouped_product(x_SI, weight, blocks, config.expert_products)

    y_SD = feedforward(config, x_SD, weights, product)
    y_RD = y_SD.at[blocks.slots_R].get(mode="fill", fill_value=0)
    return jnp.einsum("NkD,Nk->ND", y_RD.reshape(*chosen_Nk.shape, -1), share_Nk)


def feedforward(config: ModelSettings, x: jax.Array, weights: dict[str, Any], product: Callable) -> jax.Array:
    """down(activation([gate x,] up x), by `product(x, weight)`; each matrix with its adapter, if there is one."""

    def multiplied(name: str, x: jax.Array) -> jax.Array:
        y = product(x, weights[name])
        a, b = (weights.get(adapter_name(name, part)) for part in ADAPTER_PARTS)
        return y if a is None else y + product(product(x, a), b) * lora.scale_of(config)

    gate = [multiplied("gate", x)] if "gate" in weights else []
    activation = from_arguments(activation_of(config.feedforward)[0], config)
    return multiplied("down", activation(*gate, multiplied("up", x)))


def adapter_name(name: str, part: str) -> str:
    """The key of a part of an adapter beside the matrices: 'up_lora/a'."""
    return f"{name}{lora.SUFFIX}/{part}"


def is_of_experts(key: str) -> bool:
    """Whether each expert has its own array of this key, as opposed to the router's."""
    return key.partition(lora.SUFFIX)[0] in EXPERT_MATRICES
