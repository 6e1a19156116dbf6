"""What writing text asks of a kind of model: read the prompts (`prefill`), then take token after token (`step`).

A family knows its own cache. Whoever writes text sees of it only what `Cache` has here, so that a model with a second,
fixed cache (an encoder's output) is written with by the same code. Families are hashable: a compiled program is kept
for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from gptjax.model import cache as kv
from gptjax.model.decoder import Decoder
from gptjax.settings import ModelSettings


class Cache(Protocol):
    """A pytree whose arrays have the batch as their first axis, so that a row of one can replace a row of another."""

    @property
    def num_slots(self) -> int:
        """Tokens that a row may have read."""

    def grown(self, more: int) -> Cache:
        """The same rows with room for `more` further tokens."""


class Family(Protocol):
    """Parameters are those of `inference.decode.decoding_params`."""

    def __hash__(self) -> int: ...

    def prefill(
        self, params: Any, prompt_BT: jax.Array, lengths_B: jax.Array, *, room: int, piece: int
    ) -> tuple[Cache, jax.Array]:
        """Reads each row's prompt.

        Args:
          prompt_BT: int32; row b's prompt is its first lengths_B[b] ≥ 1 tokens, and what follows is ignored.
          room: tokens that every row can still read afterwards, at least.
          piece: tokens that are read at a time, at most; T must be a multiple of it, or not more.

        Returns:
          the cache, and the logits [B, V] of the token that follows each prompt.
        """

    def step(self, params: Any, cache: Cache, token_B: jax.Array, going_B: jax.Array) -> tuple[Cache, jax.Array]:
        """Reads one more token in each row; returns the cache and the logits [B, V] of the next.

        Args:
          going_B: bool; the other rows stay as they are, and their logits mean nothing.
        """


@dataclass(frozen=True)
class DecoderFamily:
    """The decoder: prompt and text are one sequence.

    Attributes:
      config: the resolved `model` section.
    """

    config: ModelSettings

    def prefill(self, params: Any, prompt_BT: jax.Array, lengths_B: jax.Array, *, room: int, piece: int) -> Any:
        model = Decoder(self.config)
        B, T = prompt_BT.shape
        # A long prompt is read piece by piece, or its attention logits [B, N, T, S] would be the largest array of all.
        piece = min(T, piece)
        pieces = jnp.moveaxis(prompt_BT.reshape(B, T // piece, piece), 1, 0)

        def read_piece(carry: Any, numbered: Any) -> Any:
            cache, last_BD = carry
            first, piece_BT = numbered
            num_new_B = jnp.clip(lengths_B - first, 0, piece)
            x_BTD, cache = model.apply({"params": params}, piece_BT, cache, num_new_B, method="read")
            end_B = jnp.maximum(num_new_B - 1, 0)
            return (cache, jnp.where((num_new_B > 0)[:, None], x_BTD[jnp.arange(B), end_B], last_BD)), None

        # The prompt attends to a cache that is just long enough for it; room for what follows is added after.
        start = kv.allocate(self.config, B, T), jnp.zeros((B, self.config.width), self.config.dtype)
        (cache, last_BD), _ = jax.lax.scan(read_piece, start, (piece * jnp.arange(T // piece), pieces))
        return cache.grown(room), self._logits(params, last_BD[:, None])[:, 0]

    def step(self, params: Any, cache: Any, token_B: jax.Array, going_B: jax.Array) -> Any:
        model = Decoder(self.config)
        x_BTD, cache = model.apply(
            {"params": params}, token_B[:, None], cache, going_B.astype(jnp.int32), method="read"
        )
        return cache, self._logits(params, x_BTD)[:, 0]

    def _logits(self, params: Any, x_BTD: jax.Array) -> Any:
        return Decoder(self.config).apply({"params": params}, x_BTD, method="logits")


def family_of(config_model: ModelSettings) -> Family:
    """The family of a resolved `model` section."""
    return DecoderFamily(config_model)
