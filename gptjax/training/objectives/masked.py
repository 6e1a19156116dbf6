"""Predict hidden tokens from both sides, to pretrain encoders (BERT, arXiv:1810.04805)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gptjax.config import ConfigError
from gptjax.data import Dataset, open_dataset
from gptjax.data.keys import SEGMENTS, TARGETS, WEIGHTS
from gptjax.data.masking import Masking
from gptjax.data.tokens import TokenSource
from gptjax.evaluation.scores import ACCURACY, MASKED_LOSS
from gptjax.parallel.vocabulary import on_own_tokens
from gptjax.tokenizer import Tokenizer
from gptjax.training.cross_entropy import right_sum
from gptjax.training.objectives.next_token import NextToken
from gptjax.training.objectives.objective import Batch

VALIDATION_KEY = 0  # runs with different seeds are evaluated on the same hidden tokens


class Masked(NextToken):
    """Cross-entropy of hidden tokens, in nats.

    A batch has tokens, targets, segments int32 [B, T] and weights float32 [B, T], which are 1 at hidden tokens and 0
    elsewhere (`Masking`); with packed windows also positions. The mask is an additional token, the first after those of
    the tokenizer, so that any prepared folder can be used. The loss of such a batch is computed like that of
    `NextToken`.
    """

    scores = (MASKED_LOSS, ACCURACY)

    def open_data(self, split: str, batch_size: int) -> Dataset:
        """Also raises ConfigError if `model.vocab_size` leaves no room for the mask."""
        config = self.config
        return open_dataset(
            config.data,
            split,
            seed=config.seed,
            batch_size=batch_size,
            tokens=config.evaluation.tokens if split == "validation" else 0,
            rewriting=functools.partial(self._masking, key=config.seed if split == "train" else VALIDATION_KEY),
        )

    def _masking(self, sources: Sequence[TokenSource], weights: Sequence[float], key: int) -> Masking:
        source = sources[0]  # all have the same tokenizer
        _check_room_for_mask(self.config.model.vocab_size or source.vocab_size + 1, source.vocab_size)
        training, never = self.config.training, tuple(sorted({source.eos_id, source.begin_id}))
        return Masking(training.mask_fraction, training.mask_kind, source.vocab_size, never, key)

    def row_fields(self) -> dict[str, jax.ShapeDtypeStruct]:
        segments = jax.ShapeDtypeStruct((self.config.data.sequence_length,), jnp.int32)
        return super().row_fields() | {SEGMENTS: segments}

    def evaluation(self, model: Any, tokenizer: Tokenizer) -> Callable[[Any, Batch], dict[str, jax.Array]]:
        _check_room_for_mask(model.config.vocab_size, tokenizer.vocab_size)

        def sums(params: Any, batch: Batch) -> dict[str, jax.Array]:
            _, figures = self.loss(model, params, batch)
            x_BTD, _ = self.hidden(model, params, batch)  # the compiler merges the two computations
            head_DV = model.apply({"params": params}, method="output_matrix")
            count: Callable[..., jax.Array] = functools.partial(right_sum, chunk=self.config.training.loss_chunk)
            right = on_own_tokens(count)(x_BTD, head_DV, batch[TARGETS], batch[WEIGHTS])
            return {"nll": figures["loss"], "right": right, "tokens": batch[WEIGHTS].sum()}

        return sums

    def scores_of(self, sums: Mapping[str, float]) -> dict[str, float]:
        if not sums.get("tokens"):
            raise ConfigError("the validation split has no token of text to hide: prepare a larger one")
        return {
            MASKED_LOSS.name: sums["nll"] / sums["tokens"],
            ACCURACY.name: sums["right"] / sums["tokens"],
            "validation/tokens": sums["tokens"],
        }


def _check_room_for_mask(vocab_size: int, tokens_of_text: int) -> None:
    if vocab_size <= tokens_of_text:
        raise ConfigError(
            f"model.vocab_size = {vocab_size}: must be 0 or at least {tokens_of_text + 1}: the tokenizer of data.path "
            "has one fewer, and the mask is an additional token"
        )
