"""Predict the next token, to pretrain language models."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptjax.data import Dataset, open_dataset
from gptjax.data.keys import POSITIONS, SEGMENTS, TARGETS, TOKENS, WEIGHTS
from gptjax.evaluation.perplexity import scores_of_text
from gptjax.evaluation.scores import BITS_PER_BYTE, LOSS, PERPLEXITY, Score
from gptjax.parallel.sharding import split_vocabulary
from gptjax.parallel.vocabulary import on_own_tokens
from gptjax.tokenizer import Tokenizer
from gptjax.training.cross_entropy import cross_entropy
from gptjax.training.objectives.objective import Batch, Objective, token_bytes


class NextToken(Objective):
    """Cross-entropy of the next token, in nats, over windows of documents.

    A batch has tokens and targets int32 [B, T], and weights float32 [B, T] that are 0 where nothing is predicted; with
    packed windows also segments and positions int32 [B, T]. The weight of a batch is the number of its supervised
    tokens.
    """

    scores: tuple[Score, ...] = (LOSS, PERPLEXITY, BITS_PER_BYTE)

    def open_data(self, split: str, batch_size: int) -> Dataset:
        config = self.config
        tokens = 0 if split == "train" else config.evaluation.tokens
        return open_dataset(
            config.data, split, seed=config.seed, batch_size=batch_size, tokens=tokens, windows=self.windows
        )

    def row_fields(self) -> dict[str, jax.ShapeDtypeStruct]:
        data = self.config.data
        dtypes = {TOKENS: jnp.int32, TARGETS: jnp.int32, WEIGHTS: jnp.float32}
        if self.is_packed:
            dtypes |= {SEGMENTS: jnp.int32, POSITIONS: jnp.int32}
        return {name: jax.ShapeDtypeStruct((data.sequence_length,), dtype) for name, dtype in dtypes.items()}

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """The arguments of the model's `hidden`."""
        names = {"tokens_BT": TOKENS, "segments_BT": SEGMENTS, "positions_BT": POSITIONS}
        return {argument: batch.get(name) for argument, name in names.items()}

    def hidden(
        self, model: Any, params: Any, batch: Batch, dropout_keys_B: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """What the model's `hidden` returns for a batch."""
        return model.apply({"params": params}, **self.inputs(batch), dropout_keys_B=dropout_keys_B, method="hidden")

    def weight(self, batch: Batch) -> jax.Array:
        return batch[WEIGHTS].sum()

    def loss(
        self, model: Any, params: Any, batch: Batch, dropout_keys_B: jax.Array | None = None, **companions: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The summed loss with label smoothing and z-loss (see `cross_entropy`), and the reported 'loss' without
        them."""
        training = self.config.training
        x_BTD, statistics = self.hidden(model, params, batch, dropout_keys_B)
        head_DV = model.apply({"params": params}, method="output_matrix")
        loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]] = functools.partial(
            cross_entropy,
            chunk=training.loss_chunk,
            z_loss=training.z_loss,
            logit_softcap=model.logit_softcap,
            label_smoothing=training.label_smoothing,
        )
        if training.loss_chunk:
            loss = on_own_tokens(loss)
        else:
            x_BTD, head_DV = split_vocabulary(x_BTD, head_DV)
        loss_sum, sums = loss(x_BTD, head_DV, batch[TARGETS], batch[WEIGHTS])
        auxiliary, figures = self.auxiliary(statistics, batch)
        return loss_sum if auxiliary is None else loss_sum + auxiliary, {"loss": sums["nll_sum"]} | figures

    def evaluation(self, model: Any, tokenizer: Tokenizer) -> Callable[..., dict[str, jax.Array]]:
        token_bytes_V = jnp.asarray(token_bytes(tokenizer, model.config.vocab_size))

        def sums(params: Any, batch: Batch, **companions: Any) -> dict[str, jax.Array]:
            _, figures = self.loss(model, params, batch, **companions)
            weights_BT = batch[WEIGHTS]
            return {
                "nll": figures["loss"],
                "tokens": weights_BT.sum(),
                "bytes": (token_bytes_V[batch[TARGETS]] * weights_BT).sum(),
            }

        return sums

    def scores_of(self, sums: Mapping[str, float]) -> dict[str, float]:
        return scores_of_text(sums)
