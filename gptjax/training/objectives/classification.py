"""Predict the label of a text: trains a classifier on labelled texts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptjax.config import ConfigError
from gptjax.data import Dataset, open_dataset
from gptjax.data.keys import LABELS, SEGMENTS, TOKENS, WEIGHTS
from gptjax.data.labelled import class_weights
from gptjax.evaluation.classification import MACRO_F1, TEXT_LOSS, scores_of_classes
from gptjax.evaluation.scores import ACCURACY
from gptjax.tokenizer import Tokenizer
from gptjax.training.objectives.objective import Batch, Objective

TEXTS = "texts"  # the figure that counts the texts of a batch


class Classification(Objective):
    """Cross-entropy of a text's label, in nats per text.

    A batch has tokens and segments int32 [B, T], labels int32 [B], and weights float32 [B]: 0 where a row is padding,
    else 1, or in training the weight of its label (`training.class_weights`, data/labelled.py). The training loss is
    the weighted mean over the batch, as that of PyTorch's CrossEntropyLoss(weight=…). Scores are not weighted.
    """

    scores = (ACCURACY, MACRO_F1, TEXT_LOSS)

    @property
    def windows(self) -> str:
        return "labelled"

    def open_data(self, split: str, batch_size: int) -> Dataset:
        """Raises ConfigError also if there is only one label, or `model.num_classes` is not the number of labels."""
        config, trains = self.config, split == "train"
        weights = config.training.class_weights if trains else ""
        data = open_dataset(
            config.data,
            split,
            seed=config.seed,
            batch_size=batch_size,
            tokens=0 if trains else config.evaluation.tokens,
            windows=self.windows,
            rewriting=functools.partial(class_weights, weights) if weights else None,
        )
        if len(data.labels) == 1:
            raise ConfigError(
                f"data.path = {config.data.path!r}: all texts have the label {data.labels[0]!r}: a classifier needs at "
                "least 2 labels"
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
        loss_sum, right = _sums(logits_BC, batch, self.config.training.label_smoothing)
        auxiliary, figures = self.auxiliary(statistics, batch)
        total = loss_sum if auxiliary is None else loss_sum + auxiliary
        return total, {"loss": loss_sum, "accuracy": right, TEXTS: _is_text(batch).sum()} | figures

    def metrics(self, figures: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """As those of every objective; the accuracy is that of the texts, whatever their weights."""
        others = {name: figure for name, figure in figures.items() if name != TEXTS}
        return super().metrics(others | {"accuracy": figures["accuracy"] / figures[TEXTS]})

    def evaluation(self, model: Any, tokenizer: Tokenizer) -> Callable[[Any, Batch], dict[str, jax.Array]]:
        def sums(params: Any, batch: Batch) -> dict[str, jax.Array]:
            logits_BC, _ = self._logits(model, params, batch)
            num_classes = logits_BC.shape[-1]
            is_label_BC = jax.nn.one_hot(batch[LABELS], num_classes) * _is_text(batch)[:, None]
            is_predicted_BC = jax.nn.one_hot(logits_BC.argmax(axis=-1), num_classes)
            return {"nll": _sums(logits_BC, batch)[0], "confusion": is_label_BC.T @ is_predicted_BC}

        return sums

    def scores_of(self, sums: Mapping[str, Any]) -> dict[str, float]:
        return scores_of_classes(sums)

    def _logits(
        self, model: Any, params: Any, batch: Batch, dropout_keys_B: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return model.apply({"params": params}, batch[TOKENS], batch[SEGMENTS], dropout_keys_B)


def _is_text(batch: Batch) -> jax.Array:
    """float32 [B]: 1 where a row has a text, 0 where it is padding."""
    return (batch[WEIGHTS] > 0).astype(jnp.float32)


def _sums(logits_BC: jax.Array, batch: Batch, label_smoothing: float = 0.0) -> tuple[jax.Array, jax.Array]:
    """The summed loss of the texts in nats, weighted; and the number of texts that are classified correctly."""
    is_label_BC = batch[LABELS][:, None] == jnp.arange(logits_BC.shape[-1])
    lse_B = jax.nn.logsumexp(logits_BC, axis=-1)
    loss_B = lse_B - jnp.sum(jnp.where(is_label_BC, logits_BC, 0.0), axis=-1)
    if label_smoothing:
        loss_B = (1 - label_smoothing) * loss_B + label_smoothing * (lse_B - logits_BC.mean(axis=-1))
    right_B = logits_BC.argmax(axis=-1) == batch[LABELS]
    return jnp.sum(batch[WEIGHTS] * loss_B), jnp.sum(_is_text(batch) * right_B)
