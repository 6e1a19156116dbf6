"""Objectives that learn from what the model writes itself: their data are prompts, and they score its rewards."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gptjax.config import ConfigError
from gptjax.data import Dataset, open_dataset
from gptjax.data.keys import LOGPROBS, NUMBER, REWARDS, TARGETS, TOKENS, WEIGHTS
from gptjax.evaluation.scores import Score
from gptjax.settings import Settings
from gptjax.tokenizer import Tokenizer
from gptjax.training.objectives.objective import Batch, Objective
from gptjax.training.rewards import reward_named
from gptjax.training.rollout import Rollout, make_rollout

REWARD = Score("validation/reward", "validation reward", "reward {:.4f}", higher_is_better=True)
WRITTEN = Score("validation/written_tokens", "tokens that the model writes", "{:.1f} tokens written")


class OnPolicy(Objective, abc.ABC):
    """A row is a prompt with the G = `training.group_size` texts that the model has written after it
    (training/rollout.py): tokens, targets int32 [B, G, T], weights and logprobs float32 [B, G, T], and rewards float32
    [B, G]. `training.batch_size` counts prompts.

    A prompt has at most `data.source_length` tokens, and a text the rest of `data.sequence_length`. Evaluations score
    the mean reward of a group for each prompt of the validation split, drawn with the same keys each time.
    """

    scores = (REWARD, WRITTEN)

    def __init__(self, config: Settings):
        """Raises ConfigError if the lengths leave no room for texts, or model or mesh cannot be used."""
        super().__init__(config)
        name, data, mesh = config.training.objective, config.data, config.mesh
        if not 0 < data.source_length < data.sequence_length:
            raise ConfigError(
                f"data.source_length = {data.source_length}: must be from 1 to data.sequence_length - 1 for "
                f"training.objective = {name!r}: tokens of the longest prompt, and the rest is for the text"
            )
        for field, value in (("context", mesh.context), ("pipeline", mesh.pipeline)):
            if value != 1:
                raise ConfigError(f"mesh.{field} = {value}: must be 1 for training.objective = {name!r}")
        if config.model.num_experts:
            raise ConfigError(
                f"model.num_experts = {config.model.num_experts}: must be 0 for training.objective = {name!r}"
            )

    @property
    def windows(self) -> str:
        return "prompts"

    @property
    def is_packed(self) -> bool:
        return False

    @property
    def updates_per_rollout(self) -> int:
        return self.config.training.updates_per_rollout

    def open_data(self, split: str, batch_size: int) -> Dataset:
        config, tokens = self.config, 0 if split == "train" else self.config.evaluation.tokens
        opened = open_dataset(
            config.data, split, seed=config.seed, batch_size=batch_size, tokens=tokens, windows=self.windows
        )
        if split == "train":
            return opened
        return opened.with_columns({NUMBER: np.arange(opened.num_stored, dtype=np.int32)})

    def row_fields(self) -> dict[str, jax.ShapeDtypeStruct]:
        texts = (self.config.training.group_size, self.config.data.sequence_length)
        dtypes = {TOKENS: jnp.int32, TARGETS: jnp.int32, WEIGHTS: jnp.float32, LOGPROBS: jnp.float32}
        fields = {name: jax.ShapeDtypeStruct(texts, dtype) for name, dtype in dtypes.items()}
        return fields | {REWARDS: jax.ShapeDtypeStruct(texts[:1], jnp.float32)}

    def rollout(self, mesh: Mesh, tokenizer: Tokenizer) -> Rollout:
        return make_rollout(self.config, mesh, tokenizer, reward_named(self.config.training.reward))

    def loss(
        self, model: Any, params: Any, batch: Batch, dropout_keys_B: jax.Array | None = None, **companions: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of `loss_of_texts`, and figures of the texts: their rewards, their tokens and the prompts."""
        texts = {name: x.reshape(-1, x.shape[-1]) for name, x in batch.items() if name != REWARDS}
        keys_R = None if dropout_keys_B is None else jnp.repeat(dropout_keys_B, batch[REWARDS].shape[-1], axis=0)
        x_RTD, _ = self.hidden(model, params, texts, keys_R)
        loss, figures = self.loss_of_texts(model, params, x_RTD, texts | {REWARDS: batch[REWARDS]}, companions)
        real_BG = jnp.float32(batch[WEIGHTS].sum(axis=-1) > 0)
        figures |= {
            "loss": loss,
            "reward": jnp.sum(real_BG * batch[REWARDS]),
            "written_tokens": batch[WEIGHTS].sum(),
            "texts": real_BG.sum(),
        }
        return loss, jax.lax.stop_gradient(figures)

    @abc.abstractmethod
    def loss_of_texts(
        self, model: Any, params: Any, x_RTD: jax.Array, batch: Batch, companions: Mapping[str, Any]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The summed loss of all texts, and further figures.

        Args:
          x_RTD: the model's hidden vectors.
          batch: the arrays of the texts, [R, T]; R = B G; and the rewards [B, G].
        """

    def hidden(
        self, model: Any, params: Any, texts: Batch, dropout_keys_R: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        return model.apply({"params": params}, texts[TOKENS], dropout_keys_B=dropout_keys_R, method="hidden")

    def metrics(self, figures: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Means over the texts for what is a sum over texts."""
        of_texts, texts = ("reward", "written_tokens"), jnp.maximum(figures["texts"], 1e-9)
        shown = {name: figure / texts if name in of_texts else figure for name, figure in figures.items()}
        del shown["texts"]
        return super().metrics(shown)

    def evaluation(self, model: Any, tokenizer: Tokenizer) -> Callable[..., dict[str, jax.Array]]:
        def sums(params: Any, batch: Batch, **companions: Any) -> dict[str, jax.Array]:
            real_BG = jnp.float32(batch[WEIGHTS].sum(axis=-1) > 0)
            return {
                "reward": jnp.sum(real_BG * batch[REWARDS]),
                "written_tokens": batch[WEIGHTS].sum(),
                "texts": real_BG.sum(),
            }

        return sums

    def scores_of(self, sums: Mapping[str, float]) -> dict[str, float]:
        if not sums.get("texts"):
            raise ConfigError("the validation split has no prompt of data.source_length tokens: prepare a larger one")
        return {
            REWARD.name: sums["reward"] / sums["texts"],
            WRITTEN.name: sums["written_tokens"] / sums["texts"],
        }
