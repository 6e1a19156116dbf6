"""Predict the label of a text: trains a classifier on labelled texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptjax.config import ConfigError
from gptjax.data import Dataset, open_dataset
from gptjax.data.keys import LABELS, SEGMENTS, TOKENS, WEIGHTS
from gptjax.evaluation.classification import MACRO_F1, TEXT_LOSS, scores_of_classes
from gptjax.evaluation.scores import ACCURACY
from gptjax.tokenizer import Tokenizer
from gptjax.training.objectives.objective import Batch, Objective


class Classification(Objective):
    """Cross-entropy of a text's label, in nats per text.

    A batch has tokens and segments int32 [B, T], labels int32 [B], and weights float32 [B], 0 where a row is padding
    (data/labelled.py).
    """

    scores = (ACCURACY, MACRO_F1, TEXT_LOSS)

    @property
    def windows(self) -> str:
        return "labelled"

    def open_data(self, split: str, batch_size: int) -> Dataset:
        """Raises ConfigError also if `model.num_classes` is not the number of labels."""
        config, tokens = self.config, 0 if split == "train" else self.config.evaluation.tokens
        data = open_dataset(
            config.data, split, seed=config.seed, batch_size=batch_size, tokens=tokens, windows=self.windows
        )
        if config.model.num_classes not in (0, len(data.labels)):
            raise ConfigError(
                f"model.num_classes = {config.model.num_classes}: must be 0 or {len(data.labels)}, as many as the "
                f"labels of data.path = {config.data.path!r}: {', '.join(data.labels[:10])}"
            )
        return data

    def row_fields(self) -> dict[str, jax.ShapeDtypeStruct]:
        length = (self.config.data.sequence_length,)
        fields: dict[str, Any] = {TOKENS: (length, jnp.int32), SEGMENTS: (length, jnp.int32)}
        fields |= {LABELS: ((), jnp.int32), WEIGHTS: ((), jnp.float32)}
        return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in fields.items()}

    def weight(self, batch: Batch) -> jax.Array:
        return batch[WEIGHTS].sum()

    def loss(
        self, model: Any, params: Any, batch: Batch, dropout_keys_B: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits_BC, statistics = self._logits(model, params, batch, dropout_keys_B)
        loss_sum, right = _sums(logits_BC, batch)
        auxiliary, figures = self.auxiliary(statistics, batch)
        total = loss_sum if auxiliary is None else loss_sum + auxiliary
        return total, {"loss": loss_sum, "accuracy": right} | figures

    def evaluation(self, model: Any, tokenizer: Tokenizer) -> Callable[[Any, Batch], dict[str, jax.Array]]:
        def sums(params: Any, batch: Batch) -> dict[str, jax.Array]:
            logits_BC, _ = self._logits(model, params, batch)
            num_classes = logits_BC.shape[-1]
            is_label_BC = jax.nn.one_hot(batch[LABELS], num_classes) * batch[WEIGHTS][:, None]
            is_predicted_BC = jax.nn.one_hot(logits_BC.argmax(axis=-1), num_classes)
            return {"nll": _sums(logits_BC, batch)[0], "confusion": is_label_BC.T @ is_predicted_BC}

        return sums

    def scores_of(self, sums: Mapping[str, Any]) -> dict[str, float]:
        return scores_of_classes(sums)

    def _logits(
        self, model: Any, params: Any, batch: Batch, dropout_keys_B: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return model.apply({"params": params}, batch[TOKENS], batch[SEGMENTS], dropout_keys_B)


def _sums(logits_BC: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """The summed loss of the texts in nats, and the number of texts that are classified correctly."""
    is_label_BC = batch[LABELS][:, None] == jnp.arange(logits_BC.shape[-1])
    nll_B = jax.nn.logsumexp(logits_BC, axis=-1) - jnp.sum(jnp.where(is_label_BC, logits_BC, 0.0), axis=-1)
    right_B = logits_BC.argmax(axis=-1) == batch[LABELS]
    return jnp.sum(batch[WEIGHTS] * nll_B), jnp.sum(batch[WEIGHTS] * right_B)
