"""The encoder: tokens in, and for each token a vector that has seen the tokens on both sides (BERT, arXiv:1810.04805).

It is the decoder's stack of blocks with attention that is not causal. Padding has segment 0, so no token of the text
sees it: tokens see only their own segment.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gptjax.model.checks import check_stack
from gptjax.model.decoder import Block, Decoder
from gptjax.model.family import ReadingFamily
from gptjax.model.flops import BIDIRECTIONAL_LAYERS, flops_of_bidirectional_layers
from gptjax.model.placement import ONE_DEVICE, Placement
from gptjax.model.stack import layer_windows
from gptjax.settings import ModelSettings


@dataclass(frozen=True)
class EncoderFamily(ReadingFamily):
    """Models that read text and cannot generate it. The objective `masked` pretrains them.

    The vocabulary has one more token than the tokenizer: the mask, which no text contains.
    """

    objectives: ClassVar[tuple[str, ...]] = ("masked",)

    @classmethod
    def validate(cls, config_model: Any, sequence_length: int) -> None:
        super().validate(config_model, sequence_length)
        check_stack(config_model)

    @classmethod
    def resolve(cls, config_model: Any, *, vocab_size: int, packed: bool = False, **facts: Any) -> ModelSettings:
        # Padding is a separate segment, so batches always have segments.
        return super().resolve(config_model, vocab_size=vocab_size + 1, packed=True, **facts)

    def module(self, placement: Placement = ONE_DEVICE) -> Decoder:
        return Decoder(self.config, placement, functools.partial(Block, causal=False))

    @property
    def flop_formulas(self) -> Mapping[str, str]:
        return BIDIRECTIONAL_LAYERS

    def flops_per_token(self, sequence_length: int, source_length: int = 0) -> dict[str, float]:
        heads_width = self.config.num_heads * self.config.head_width
        return flops_of_bidirectional_layers(
            self.declarations, layer_windows(self.config), heads_width, sequence_length
        )
