"""The family of the decoder, which reads a prompt and the text that follows it into one key/value cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gptjax.model.cache import KeyValueCache, allocate
from gptjax.model.checks import check_stack
from gptjax.model.decoder import Decoder
from gptjax.model.family import Family
from gptjax.model.flops import flops_of_causal_layers
from gptjax.model.placement import ONE_DEVICE, Placement
from gptjax.model.stack import layer_windows


@dataclass(frozen=True)
class DecoderFamily(Family):
    """GPT-style language models; see `decoder`."""

    branches: ClassVar[bool] = True
    reads_in_pieces: ClassVar[bool] = True

    @classmethod
    def validate(cls, config_model: Any, sequence_length: int) -> None:
        super().validate(config_model, sequence_length)
        check_stack(config_model)

    def module(self, placement: Placement = ONE_DEVICE) -> Decoder:
        return Decoder(self.config, placement)

    def flops_per_token(self, sequence_length: int, source_length: int = 0) -> dict[str, float]:
        heads_width = self.config.num_heads * self.config.head_width
        return flops_of_causal_layers(self.declarations, layer_windows(self.config), heads_width, sequence_length)

    def prefill(
        self, params: Any, prompt_BT: jax.Array, lengths_B: jax.Array, *, room: int, piece: int
    ) -> tuple[KeyValueCache, jax.Array]:
        B, T = prompt_BT.shape
        # A long prompt is read piece by piece, since its attention logits [B, N, T, S] would be the largest array.
        piece = min(T, piece)
        pieces = jnp.moveaxis(prompt_BT.reshape(B, T // piece, piece), 1, 0)

        def read_piece(carry: Any, numbered: Any) -> tuple[Any, Any]:
            cache, last_BD = carry
            first, piece_BT = numbered
            num_new_B = jnp.clip(lengths_B - first, 0, piece)
            end_B1 = jnp.maximum(num_new_B - 1, 0)[:, None]
            cache, x_B1D = self.read(params, cache, piece_BT, num_new_B, end_B1)
            return (cache, jnp.where((num_new_B > 0)[:, None], x_B1D[:, 0], last_BD)), None

        # The cache is just long enough for the prompt while it is read; slots for the following text are added then.
        start = self.empty_cache(B, T), jnp.zeros((B, self.config.width), self.config.dtype)
        (cache, last_BD), _ = jax.lax.scan(read_piece, start, (piece * jnp.arange(T // piece), pieces))
        return cache.grown(room), self.logits(params, last_BD[:, None])[:, 0]

    def step(
        self, params: Any, cache: KeyValueCache, token_B: jax.Array, going_B: jax.Array
    ) -> tuple[KeyValueCache, jax.Array]:
        cache, x_BTD = self.read(params, cache, token_B[:, None], going_B.astype(jnp.int32))
        return cache, self.logits(params, x_BTD)[:, 0]

    def empty_cache(self, batch: int, slots: int) -> KeyValueCache:
        return allocate(self.config, batch, slots)

    def read(
        self,
        params: Any,
        cache: KeyValueCache,
        tokens_BT: jax.Array,
        num_new_B: jax.Array,
        wanted_BQ: jax.Array | None = None,
    ) -> tuple[KeyValueCache, jax.Array]:
        model: Any = self.module(self.placement)
        x_BTD, cache = model.apply({"params": params}, tokens_BT, cache, num_new_B, wanted_BQ, method="read")
        return cache, x_BTD

    def logits(self, params: Any, x_BTD: jax.Array) -> jax.Array:
        model: Any = self.module(self.placement)
        return model.apply({"params": params}, x_BTD, method="logits")
