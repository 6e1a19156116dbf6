"""Prefer one answer over another: direct preference optimization (DPO, Rafailov et al., arXiv:2305.18290)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.text import Text

from gptjax.config import ConfigError
from gptjax.data import Dataset, open_dataset
from gptjax.data.keys import REFERENCE, REJECTED, SEGMENTS, TARGETS, TOKENS, WEIGHTS
from gptjax.evaluation.scores import ACCURACY, Score
from gptjax.settings import Settings, TrainingSettings
from gptjax.tokenizer import Tokenizer
from gptjax.training.logits import log_probabilities
from gptjax.training.objectives.instruction import colored
from gptjax.training.objectives.objective import Batch, Objective
from gptjax.training.objectives.reference import companions_of, field_of, is_own_base, reference_of

PREFERENCE_LOSS = Score("validation/loss", "validation loss (nats per preference)", "loss {:.4f}")
MARGIN = Score("validation/margin", "margin of the chosen answer's reward", "margin {:.3f}", higher_is_better=True)


class Preference(Objective):
    """The loss of a preference is a function of its margin: how much more the model prefers the chosen answer than the
    reference does.

        reward(answer) = beta · (log p_model(answer | prompt) - log p_reference(answer | prompt))
        margin         = reward(chosen) - reward(rejected)

        sigmoid        -(1 - e) log sigmoid(margin) - e log sigmoid(-margin)      e = `training.label_smoothing`: the
                                                                                  share of preferences the wrong way
        ipo            (margin / beta - 1 / (2 beta))²                            log-probabilities are means over an
                                                                                  answer's tokens (arXiv:2310.12036)

    The reference is the model that the run starts from (`training.init_from`), or another one (`training.reference`). A
    run that trains adapters alone needs no copy of it: its own parameters without the adapters are that model, also in
    the bits in which they are stored. Otherwise the reference is a companion, which reads every batch again: that is a
    quarter of the products, and a second copy of the parameters. With `training.reference_once`, it reads all
    preferences once, before the first step. This saves its memory, and its products from the second epoch on.

    A batch has tokens and targets int32 [B, T] and weights float32 [B, T] of the chosen and the
    rejected answers (data/preferences.py). Its weight is the number of preferences. With `training.reference_once`, it
    also has the reference's log-probability of each answer, float32 [B].
    """

    scores = (PREFERENCE_LOSS, ACCURACY, MARGIN)

    def __init__(self, config: Settings):
        super().__init__(config)
        model = config.model
        if config.training.reference_once and is_own_base(config) and model.lora_base != "float32":
            raise ConfigError(
                f"training.reference_once: with model.lora_base = {model.lora_base!r}, the reference is the base "
                "in these bits, which the model reads anyway; set training.reference_once=False, or training.reference"
            )

    @property
    def windows(self) -> str:
        return "preferences"

    @property
    def is_packed(self) -> bool:
        return False

    @property
    def companions(self) -> Mapping[str, str]:
        return field_of(self.config) if self.reads_companions_once else companions_of(self.config)

    @property
    def reads_companions_once(self) -> bool:
        return self.config.training.reference_once

    @property
    def reads_own_base(self) -> bool:
        return is_own_base(self.config) and not self.reads_companions_once

    def open_data(self, split: str, batch_size: int) -> Dataset:
        config, tokens = self.config, 0 if split == "train" else self.config.evaluation.tokens
        return open_dataset(
            config.data, split, seed=config.seed, batch_size=batch_size, tokens=tokens, windows=self.windows
        )

    def shown_row(self, data: Dataset, tokenizer: Tokenizer) -> Text | None:
        batch, shown = data.batch(0, np.array([0])), Text()
        for prefix in ("", REJECTED):
            targets_T, weights_T = batch[f"{prefix}{TARGETS}"][0], batch[f"{prefix}{WEIGHTS}"][0]
            inside_T = np.arange(len(targets_T)) <= np.flatnonzero(targets_T).max(initial=0)  # padding is zeros
            row = {TARGETS: [targets_T], WEIGHTS: [weights_T], SEGMENTS: [inside_T.astype(np.int32)]}
            shown += Text("\n" if prefix else "") + colored(row, tokenizer)
        return shown

    def row_fields(self) -> dict[str, jax.ShapeDtypeStruct]:
        length, dtypes = self.config.data.sequence_length, {TOKENS: jnp.int32, TARGETS: jnp.int32, WEIGHTS: jnp.float32}
        fields = {name: jax.ShapeDtypeStruct((length,), dtype) for name, dtype in dtypes.items()}
        if self.reads_companions_once:
            fields[REFERENCE] = jax.ShapeDtypeStruct((), jnp.float32)
        return {f"{prefix}{name}": field for prefix in ("", REJECTED) for name, field in fields.items()}

    def weight(self, batch: Batch) -> jax.Array:
        return _is_real(batch).sum()

    def loss(
        self, model: Any, params: Any, batch: Batch, dropout_keys_B: jax.Array | None = None, **companions: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Besides the loss, reports the rewards of both answers, their difference (margin), and the share of
        preferences in which the chosen answer has the higher reward (accuracy)."""
        training, both = self.config.training, _both_answers(batch)
        keys_B = None if dropout_keys_B is None else jnp.concatenate([dropout_keys_B, dropout_keys_B])
        own, statistics = self._log_probabilities(model, params, both, keys_B)
        if self.reads_companions_once:
            other = both[REFERENCE]
        else:
            reference, reference_params = reference_of(self.config, model, params, companions)
            other, _ = self._log_probabilities(reference, reference_params, both, None)
        ratio = own - jax.lax.stop_gradient(other)
        if training.preference_loss == "ipo":
            ratio /= jnp.maximum(both[WEIGHTS].sum(axis=-1), 1)
        chosen_B, rejected_B = jnp.split(training.preference_beta * ratio, 2)
        real_B = _is_real(batch)
        loss = jnp.sum(real_B * preference_loss(chosen_B - rejected_B, training))
        figures = {
            "loss": loss,
            "chosen_reward": jnp.sum(real_B * chosen_B),
            "rejected_reward": jnp.sum(real_B * rejected_B),
            "margin": jnp.sum(real_B * (chosen_B - rejected_B)),
            "accuracy": jnp.sum(real_B * (chosen_B > rejected_B)),
        }
        first_half = jax.tree.map(lambda x: x[:, : len(real_B)], statistics)  # auxiliary losses are of chosen answers
        auxiliary, more = self.auxiliary(first_half, batch)
        return loss if auxiliary is None else loss + auxiliary, jax.lax.stop_gradient(figures) | more

    def columns(self, batch: Batch, **companions: Any) -> dict[str, jax.Array]:
        reference = companions["reference"]
        logs, _ = self._log_probabilities(reference.model, reference.params, _both_answers(batch), None)
        return dict(zip((REFERENCE, REJECTED + REFERENCE), jnp.split(logs, 2)))

    def _log_probabilities(
        self, model: Any, params: Any, batch: Batch, dropout_keys_B: jax.Array | None
    ) -> tuple[jax.Array, Any]:
        """The log-probability of each row's answer, float32 [2 B], and the model's statistics."""
        x_BTD, statistics = model.apply(
            {"params": params}, batch[TOKENS], dropout_keys_B=dropout_keys_B, method="hidden"
        )
        logs_BT = log_probabilities(model, params, x_BTD, batch[TARGETS], self.config.training.loss_chunk)
        return jnp.sum(batch[WEIGHTS] * logs_BT, axis=-1), statistics

    def evaluation(self, model: Any, tokenizer: Tokenizer) -> Callable[..., dict[str, jax.Array]]:
        def sums(params: Any, batch: Batch, **companions: Any) -> dict[str, jax.Array]:
            _, figures = self.loss(model, params, batch, **companions)
            return {name: figures[name] for name in ("loss", "accuracy", "margin")} | {"weight": self.weight(batch)}

        return sums

    def scores_of(self, sums: Mapping[str, float]) -> dict[str, float]:
        if not sums.get("weight"):
            raise ConfigError("the validation split has no preference that fits into a row: prepare a larger one")
        return {score.name: sums[score.title] / sums["weight"] for score in self.scores}


def preference_loss(margin_B: jax.Array, training: TrainingSettings) -> jax.Array:
    """The loss of each preference from its margin, as `Preference` describes it."""
    if training.preference_loss == "ipo":
        return jnp.square(margin_B / training.preference_beta - 1 / (2 * training.preference_beta))
    wrong = training.label_smoothing
    return -(1 - wrong) * jax.nn.log_sigmoid(margin_B) - wrong * jax.nn.log_sigmoid(-margin_B)


def _both_answers(batch: Batch) -> Batch:
    """The rows of the chosen answers, then those of the rejected ones: [2 B, …]."""
    return {name: jnp.concatenate([batch[name], batch[REJECTED + name]]) for name in batch if REJECTED + name in batch}


def _is_real(batch: Batch) -> jax.Array:
    """float32 [B]: 0 for rows that only fill up the last batch."""
    return jnp.float32(batch[WEIGHTS].sum(axis=-1) > 0)
