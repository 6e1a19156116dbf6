"""Reinforcement of texts with a high reward: group relative policy optimization (GRPO, arXiv:2402.03300)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptjax.data.keys import LOGPROBS, REWARDS, TARGETS, WEIGHTS
from gptjax.training.logits import log_probabilities
from gptjax.training.objectives.objective import Batch
from gptjax.training.objectives.on_policy import OnPolicy
from gptjax.training.objectives.reference import companions_of, is_own_base, reference_of


class GRPO(OnPolicy):
    """The loss of a token of text g, with ratio = p_model(token) / p_when_it_was_written(token):

        A_g = reward_g - mean reward of the group
        -min(ratio · A_g, clip(ratio, 1 - clip_low, 1 + clip_high) · A_g) + kl_weight · KL(model ‖ reference)

    It differs from the original in what later work has found better:
    - The sum over all tokens is divided by their number (DAPO, arXiv:2503.14476). Dividing by each text's length first
      would favour long wrong texts.
    - The advantage A is not divided by the deviation of a group's rewards, which would favour prompts that are almost
      always or almost never solved (Dr. GRPO, arXiv:2503.20783).
    - Groups whose rewards are all equal, and thus have A = 0, are left out of the number of tokens as well.
    - The upper limit of the ratio may be further from 1 than the lower one (DAPO's "clip higher").
    - The divergence from a reference (`training.reference`, or the run of `training.init_from`) is optional. It is
      estimated as r - log r - 1, where r = p_reference / p_model (Schulman's k3).

    The ratio differs from 1, beyond rounding, only if texts are used for several updates
    (`training.updates_per_rollout`).
    """

    @property
    def companions(self) -> Mapping[str, str]:
        return companions_of(self.config) if self.config.training.kl_weight else {}

    @property
    def reads_own_base(self) -> bool:
        return bool(self.config.training.kl_weight) and is_own_base(self.config)

    def weight(self, batch: Batch) -> jax.Array:
        """The number of written tokens in groups with different rewards; at least 1."""
        return jnp.maximum(jnp.sum(batch[WEIGHTS].sum(axis=-1) * _is_used(batch[REWARDS])), 1.0)

    def loss_of_texts(
        self, model: Any, params: Any, x_RTD: jax.Array, batch: Batch, companions: Mapping[str, Any]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        training, rewards_BG = self.config.training, batch[REWARDS]
        logs_RT = log_probabilities(model, params, x_RTD, batch[TARGETS], training.loss_chunk)
        advantage_R1 = (rewards_BG - rewards_BG.mean(axis=-1, keepdims=True)).reshape(-1, 1)
        weights_RT = batch[WEIGHTS] * _is_used(rewards_BG).reshape(-1, 1)
        gain_RT, clipped_RT = clipped_gain(
            logs_RT - batch[LOGPROBS], advantage_R1, training.clip_low, training.clip_high
        )
        loss = -jnp.sum(weights_RT * gain_RT)
        figures = {
            "clipped": jnp.sum(weights_RT * clipped_RT),
            "used_texts": jnp.sum(_is_used(rewards_BG)),
            "surprise": -jnp.sum(weights_RT * logs_RT),
        }
        if training.kl_weight:
            reference, reference_params = reference_of(self.config, model, params, companions)
            other_RTD, _ = self.hidden(reference, reference_params, batch)
            other_RT = log_probabilities(reference, reference_params, other_RTD, batch[TARGETS], training.loss_chunk)
            difference_RT = jax.lax.stop_gradient(other_RT) - logs_RT
            divergence = jnp.sum(weights_RT * (jnp.exp(difference_RT) - difference_RT - 1))
            loss, figures = loss + training.kl_weight * divergence, figures | {"divergence": divergence}
        return loss, figures

    def metrics(self, figures: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        share = figures["used_texts"] / jnp.maximum(figures["texts"], 1e-9)
        return super().metrics(dict(figures) | {"used_texts": share})


def clipped_gain(
    log_ratio: jax.Array, advantage: jax.Array, clip_low: float, clip_high: float
) -> tuple[jax.Array, jax.Array]:
    """(the clipped gain of each token, whether the limit was what counted), of arrays that broadcast."""
    ratio = jnp.exp(log_ratio)
    free, limited = ratio * advantage, jnp.clip(ratio, 1 - clip_low, 1 + clip_high) * advantage
    return jnp.minimum(free, limited), jnp.float32(limited < free)


def _is_used(rewards: jax.Array) -> jax.Array:
    """float32, as `rewards` [..., G]: 1 for every text of a group whose rewards differ."""
    return jnp.float32(rewards.max(axis=-1, keepdims=True) > rewards.min(axis=-1, keepdims=True)) * jnp.ones_like(
        rewards
    )
