"""A classifier: any other model without its output layer, with a head that chooses among classes.

    x = body(tokens)                 [B, T, D]
    logits = pool(x) @ head + bias   [B, C]

`model.pooling` says which vectors the head reads. In an encoder each vector has seen the whole text, so the mean of all
vectors is a good choice (`first` is the vector of the begin token, as in BERT, arXiv:1810.04805). In a decoder only the
last vector has seen the whole text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from gptjax.config import ConfigError
from gptjax.model.decoder_family import DecoderFamily
from gptjax.model.dropout import dropout, fold_in
from gptjax.model.encoder import EncoderFamily
from gptjax.model.family import Family, ReadingFamily, named_family
from gptjax.model.flops import product_flops
from gptjax.model.initialization import input_init
from gptjax.model.parameters import matrix, vector
from gptjax.model.placement import ONE_DEVICE, Placement
from gptjax.model.precision import project_float32
from gptjax.settings import ModelSettings

BODIES: dict[str, type[Family]] = {"encoder": EncoderFamily, "decoder": DecoderFamily}
BODY = "body"  # the key of the body's parameters in those of the classifier


class Classifier(nn.Module):
    """A model without its output layer, and a head.

    Attributes:
      config: the resolved `model` section.
      body: the model, as `Family.module` makes it.
    """

    config: ModelSettings
    body: nn.Module

    def setup(self) -> None:
        width, classes = {"embed": self.config.width}, {"class": self.config.num_classes}
        self.head = matrix(self, "head", width, classes, input_init(self.config))
        self.head_bias = vector(self, "head_bias", classes)

    def declare(self) -> None:
        """Visits every parameter without a forward pass, which is enough for initialization."""
        self.body.declare()  # type: ignore[attr-defined]  # as every family's module

    def __call__(
        self, tokens_BT: jax.Array, segments_BT: jax.Array, dropout_keys_B: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The logits [B, C] of each row in float32, and the statistics of the body's blocks.

        Args:
          segments_BT: 1 for the text, which must not be empty, and 0 for the padding after it.
          dropout_keys_B: see `Decoder`. The input of the head has dropout, too.
        """
        hidden: Any = self.body.hidden  # type: ignore[attr-defined]
        x_BTD, statistics = hidden(tokens_BT, segments_BT=segments_BT, dropout_keys_B=dropout_keys_B)
        pooled_BD = pool(x_BTD, segments_BT > 0, self.config.pooling)
        if dropout_keys_B is not None:
            of_head = self.config.num_layers + 1  # no layer has this number
            pooled_BD = dropout(pooled_BD, self.config.dropout, fold_in(dropout_keys_B, of_head))
        logits_B1C = project_float32(pooled_BD[:, None], self.head)
        return logits_B1C[:, 0] + self.head_bias, statistics


def pool(x_BTD: jax.Array, is_text_BT: jax.Array, pooling: str) -> jax.Array:
    """Returns the mean, the first or the last of the text's vectors, [B, D]."""
    if pooling == "mean":
        shares_BT = is_text_BT / jnp.maximum(is_text_BT.sum(axis=1, keepdims=True), 1)
        return jnp.einsum("BTD,BT->BD", x_BTD.astype(jnp.float32), shares_BT).astype(x_BTD.dtype)
    if pooling == "first":
        return x_BTD[:, 0]
    last_B = jnp.maximum(is_text_BT.sum(axis=1) - 1, 0)
    return jnp.take_along_axis(x_BTD, last_B[:, None, None], axis=1)[:, 0]


@dataclass(frozen=True)
class ClassifierFamily(ReadingFamily):
    """A head on a model of the family `model.body`."""

    objectives: ClassVar[tuple[str, ...]] = ("classification",)
    warm_part: ClassVar[str] = BODY

    @classmethod
    def validate(cls, config_model: Any, sequence_length: int) -> None:
        _body_family(config_model).validate(config_model, sequence_length)
        if config_model.num_classes == 1:
            raise ConfigError("model.num_classes = 1: must be at least 2, or 0 for the number of labels of data.path")

    @classmethod
    def resolve(cls, config_model: Any, **facts: Any) -> ModelSettings:
        cls.validate(config_model, facts["sequence_length"])
        if config_model.num_classes < 2:
            raise ConfigError(
                f"model.num_classes = {config_model.num_classes}: must be at least 2; 0 stands for the number of "
                "labels of data.path"
            )
        body, pooling = _body_family(config_model), config_model.pooling
        if pooling == "auto":
            pooling = "mean" if "masked" in body.objectives else "last"
        settings = body.resolve(config_model, **{**facts, "packed": True})  # padding is a separate segment
        return dataclasses.replace(settings, pooling=pooling)

    @property
    def body(self) -> Family:
        return _body_family(self.config)(self.config)

    def module(self, placement: Placement = ONE_DEVICE) -> Classifier:
        return Classifier(self.config, self.body.module(placement))

    @property
    def flop_formulas(self) -> Mapping[str, str]:
        return self.body.flop_formulas

    def flops_per_token(self, sequence_length: int, source_length: int = 0) -> dict[str, float]:
        """The FLOPs of the body without its output layer, which is not computed. The few FLOPs of the head are not
        counted."""
        every = jax.tree.leaves(self.body.declarations)
        is_output = (each.tied or (each.kind == "matrix" and "vocab" in each.outputs) for each in every)
        output_layer = product_flops([each for each, found in zip(every, is_output) if found])
        of_body = self.body.flops_per_token(sequence_length)
        return {convention: flops - output_layer for convention, flops in of_body.items()}


def _body_family(config_model: Any) -> type[Family]:
    return named_family(BODIES, "model.body", config_model.body)
