"""The encoder–decoder of translation: a source in, and next-token logits of its target out (arXiv:1706.03762).

    encoded = encoder(source)                       each token sees the tokens on both sides
    for each layer of the decoder:
        x = x + attention(norm(x))                  a token of the target does not see later tokens
        x = x + cross_attention(norm(x), encoded)   it sees the whole source
        x = x + feedforward(norm(x))

Encoder and decoder are both a `Stack` of the decoder's `Block`. A row may hold several packed pairs: a segment of the
target then sees only the segment of the source with the same number.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from gptjax.config import ConfigError
from gptjax.model.cache import KeyValueCache, allocate
from gptjax.model.checks import check_stack
from gptjax.model.decoder import Block, Decoder
from gptjax.model.dropout import fold_in
from gptjax.model.family import Family
from gptjax.model.flops import PAIRS, flops_of_pairs
from gptjax.model.initialization import embedding_init
from gptjax.model.parameters import lookup
from gptjax.model.placement import ONE_DEVICE, Placement
from gptjax.model.stack import Stack, layer_windows
from gptjax.settings import ModelSettings


class EncoderDecoder(Decoder):
    """An encoder and a decoder.

    Its parameters are those of a decoder whose layers also have cross-attention, `encoder`, which is a stack, and
    `source_embedding`, if source and target do not share one table.
    """

    block: Callable[..., nn.Module] | None = functools.partial(Block, cross=True)

    def setup(self) -> None:
        super().setup()
        config = self.config
        if not config.shared_embeddings:
            rows, width = {"vocab": config.source_vocab_size}, {"embed": config.width}
            self.source_embedding = lookup(self, "source_embedding", rows, width, embedding_init(config))
        self.encoder = Stack(encoder_settings(config), self.placement, functools.partial(Block, causal=False))

    def __call__(  # type: ignore[override]  # it also takes a source
        self, source_BS: jax.Array, target_BT: jax.Array, source_lengths_B: jax.Array | None = None
    ) -> jax.Array:
        """Logits [B, T, V] in float32 of the token that follows each token of the target.

        Args:
          source_lengths_B: int32; the number of tokens in each source, which padding follows. None: no padding.
        """
        segments_BS = segments_BT = None
        if source_lengths_B is not None:
            segments_BS = (jnp.arange(source_BS.shape[1]) < source_lengths_B[:, None]).astype(jnp.int32)
            segments_BT = jnp.ones_like(target_BT)
        x_BTD, _ = self.hidden(target_BT, segments_BT, source_BS=source_BS, source_segments_BS=segments_BS)
        return self.logits(x_BTD)

    def hidden(  # type: ignore[override]
        self,
        tokens_BT: jax.Array,
        segments_BT: jax.Array | None = None,
        positions_BT: jax.Array | None = None,
        dropout_keys_B: jax.Array | None = None,
        *,
        source_BS: jax.Array,
        source_segments_BS: jax.Array | None = None,
        source_positions_BS: jax.Array | None = None,
        ends_BT: jax.Array | None = None,
        wanted_BQ: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Like `Decoder.hidden`, for targets that have sources. Give segments for both or for neither."""
        encoder_keys_B = None if dropout_keys_B is None else fold_in(dropout_keys_B, self.config.num_layers + 1)
        encoded_BSD, of_encoder = self.encode(source_BS, source_segments_BS, source_positions_BS, encoder_keys_B)
        context = {"context_BSD": encoded_BSD}
        if source_segments_BS is not None:
            context["key_segments_BS"] = source_segments_BS
        marks = (segments_BT, positions_BT, dropout_keys_B, context, ends_BT, wanted_BQ)
        x_BTD, statistics = super().hidden(tokens_BT, *marks)
        return x_BTD, statistics | {f"encoder_{name}": each for name, each in of_encoder.items()}

    def encode(
        self,
        source_BS: jax.Array,
        segments_BS: jax.Array | None = None,
        positions_BS: jax.Array | None = None,
        dropout_keys_B: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The encoded sources [B, S, D], and the statistics of the encoder's blocks, each [L, B, …]."""
        positions_BS = self.encoder.counted(source_BS) if positions_BS is None else positions_BS
        table_VD = self.embedding if self.config.shared_embeddings else self.source_embedding
        of_layers_LB, of_embedding_B = self.encoder.dropout_keys(dropout_keys_B)
        x_BSD = self.encoder.embedded(table_VD, source_BS, positions_BS, of_embedding_B)
        return self.encoder.transform(x_BSD, positions_BS, of_layers_LB, segments_BT=segments_BS)

    def start(
        self, encoded_BSD: jax.Array, source_lengths_B: jax.Array, first_B: jax.Array, slots: int
    ) -> tuple[jax.Array, SourceCache]:
        """Reads the first token of each target. The returned cache also keeps the keys and values of the sources."""
        empty = allocate(self.config, first_B.shape[0], slots)
        context = {"context_BSD": encoded_BSD, "key_lengths_B": source_lengths_B}
        x_BTD, new = self._read(first_B[:, None], empty, [context] * self.config.num_layers)
        keys, values, source_keys, source_values = zip(*new)
        target = KeyValueCache(keys=keys, values=values, lengths_B=empty.lengths_B + 1)
        return x_BTD, SourceCache(target, source_keys, source_values, source_lengths_B)

    def read(  # type: ignore[override]
        self, tokens_BT: jax.Array, cache: SourceCache, num_new_B: jax.Array | None = None
    ) -> tuple[jax.Array, SourceCache]:
        """Like `Decoder.read`."""
        contexts = [
            {"context_cache": each, "key_lengths_B": cache.source_lengths_B}
            for each in zip(cache.source_keys, cache.source_values)
        ]
        x_BTD, new = self._read(tokens_BT, cache.target, contexts)
        keys, values, _, _ = zip(*new)
        lengths_B = cache.target.lengths_B + (tokens_BT.shape[1] if num_new_B is None else num_new_B)
        return x_BTD, replace(cache, target=KeyValueCache(keys=keys, values=values, lengths_B=lengths_B))

    def declare(self) -> None:
        super().declare()
        self.encoder.declare()


def encoder_settings(config: ModelSettings) -> ModelSettings:
    """The settings of the encoder's stack."""
    return dataclasses.replace(config, num_layers=config.num_encoder_layers, max_positions=config.max_source_positions)


@struct.dataclass
class SourceCache:
    """The cache of each target, and the keys and values of its source in each layer, which do not change.

    The source of row b has `source_lengths_B[b]` ≥ 1 tokens. The slots after them are never seen.
    """

    target: KeyValueCache
    source_keys: tuple[jax.Array, ...]  # [B, K, S, H] per layer
    source_values: tuple[jax.Array, ...]
    source_lengths_B: jax.Array  # int32

    @property
    def num_slots(self) -> int:
        return self.target.num_slots

    def grown(self, more: int) -> SourceCache:
        return replace(self, target=self.target.grown(more))

    def with_slots(self, slots: int) -> SourceCache:
        return replace(self, target=self.target.with_slots(slots))


@dataclass(frozen=True)
class EncoderDecoderFamily(Family):
    """Models that generate a target for a source; the prompt is the source."""

    objectives: ClassVar[tuple[str, ...]] = ("seq2seq",)
    continues: ClassVar[bool] = False
    branches: ClassVar[bool] = True
    prompt_field: ClassVar[str] = "max_source_positions"

    @classmethod
    def validate(cls, config_model: Any, sequence_length: int) -> None:
        if 0 < config_model.max_positions < sequence_length:
            raise ConfigError(
                f"data.sequence_length = {sequence_length}: rows of targets must not be longer than "
                f"model.max_positions = {config_model.max_positions} (data.source_length and "
                "model.max_source_positions are for sources)"
            )
        check_stack(config_model)

    @classmethod
    def resolve(cls, config_model: Any, *, source_vocab_size: int = 0, source_length: int = 0, **facts: Any) -> Any:
        settings = super().resolve(config_model, **facts)
        own = source_vocab_size or settings.vocab_size
        if source_vocab_size and settings.shared_embeddings:
            raise ConfigError(
                "model.shared_embeddings = True: sources and targets of data.path have two vocabularies, so they "
                "cannot share one table; set it to False"
            )
        if 0 < settings.source_vocab_size < own:
            raise ConfigError(
                f"model.source_vocab_size = {settings.source_vocab_size}: must be at least {own}, the size of the "
                "sources' vocabulary"
            )
        if 0 < settings.max_source_positions < source_length:
            raise ConfigError(
                f"data.source_length = {source_length}: rows of sources must not be longer than "
                f"model.max_source_positions = {settings.max_source_positions} (data.source_length = 0 stands for "
                "data.sequence_length)"
            )
        return dataclasses.replace(
            settings,
            num_encoder_layers=settings.num_encoder_layers or settings.num_layers,
            source_vocab_size=settings.source_vocab_size or own,
            max_source_positions=settings.max_source_positions or source_length or settings.max_positions,
        )

    def module(self, placement: Placement = ONE_DEVICE) -> EncoderDecoder:
        return EncoderDecoder(self.config, placement)

    @property
    def flop_formulas(self) -> Mapping[str, str]:
        return PAIRS

    def flops_per_token(self, sequence_length: int, source_length: int = 0) -> dict[str, float]:
        config = self.config
        return flops_of_pairs(
            self.declarations,
            layer_windows(config),
            layer_windows(encoder_settings(config)),
            config.num_heads * config.head_width,
            sequence_length,
            source_length or config.max_source_positions,
        )

    # --- Generation

    def framed(self, tokens: list[int], begin_id: int | None, eos_id: int | None) -> list[int]:
        """Returns the source with its EOS, and the token after which the target starts."""
        if begin_id is None:
            raise ConfigError("begin = False: an encoder–decoder starts each target after the begin token")
        return [*tokens, *([] if eos_id is None else [eos_id]), begin_id]

    def room(self, prompt_tokens: int) -> int:
        return self.config.max_positions

    def prefill(
        self, params: Any, prompt_BT: jax.Array, lengths_B: jax.Array, *, room: int, piece: int
    ) -> tuple[SourceCache, jax.Array]:
        """Reads rows that consist of a source and one more token, after which the target starts."""
        model: Any = self.module(self.placement)
        B = prompt_BT.shape[0]
        source_BS = prompt_BT[:, : self.config.max_source_positions]
        first_B = prompt_BT[jnp.arange(B), lengths_B - 1]
        source_lengths_B = jnp.maximum(lengths_B - 1, 1)
        segments_BS = (jnp.arange(source_BS.shape[1]) < source_lengths_B[:, None]).astype(jnp.int32)
        encoded_BSD, _ = model.apply({"params": params}, source_BS, segments_BS, method="encode")
        x_BTD, cache = model.apply({"params": params}, encoded_BSD, source_lengths_B, first_B, 1 + room, method="start")
        return cache, model.apply({"params": params}, x_BTD, method="logits")[:, 0]

    def step(
        self, params: Any, cache: SourceCache, token_B: jax.Array, going_B: jax.Array
    ) -> tuple[SourceCache, jax.Array]:
        model: Any = self.module(self.placement)
        new_B = going_B.astype(jnp.int32)
        x_BTD, cache = model.apply({"params": params}, token_B[:, None], cache, new_B, method="read")
        return cache, model.apply({"params": params}, x_BTD, method="logits")[:, 0]
