"""The decoder: tokens in, next-token logits out.

    x = embed(tokens) [+ positions]
    for each layer:  x = x + attention(norm(x));  x = x + feedforward(norm(x))
    logits = norm(x) @ head

Parameters are a plain nested dict of float32 arrays, those of the layers stacked on a leading L axis under 'layers',
whether the layers run in a `lax.scan` or unrolled (see `stack`). A PyTorch module holds its parameters. This module
receives them in each call: the result of `Decoder(config).apply({'params': params}, tokens_BT)` depends only on the
arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gptjax.model.attention import Branches
from gptjax.model.attention_layer import Attention
from gptjax.model.blocks import taken
from gptjax.model.cache import KeyValueCache
from gptjax.model.dropout import dropout, fold_in
from gptjax.model.feedforward import FeedForward
from gptjax.model.initialization import embedding_init, head_init
from gptjax.model.mixture_of_experts import MixtureOfExperts
from gptjax.model.norm import make_norm
from gptjax.model.parameters import head_DV, lookup, matrix
from gptjax.model.placement import ONE_DEVICE, Placement
from gptjax.model.precision import project_float32
from gptjax.model.softcap import softcap
from gptjax.model.stack import Stack
from gptjax.settings import ModelSettings


class Block(nn.Module):
    """One layer: attention, cross-attention if there is another stream, and feed-forward.

    Attributes:
      window: the number of tokens that its attention sees. 0: all tokens before and, if not causal, all after.
      causal: if True, a token does not see later tokens.
      cross: whether it also attends to another stream, the output of an encoder.
      placement: how its work is divided over devices.
    """

    config: ModelSettings
    window: int
    causal: bool = True
    cross: bool = False
    placement: Placement = ONE_DEVICE

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        *,
        rotation: Any = None,
        segments_BT: jax.Array | None = None,
        branches: Branches | None = None,
        dropout_keys_B: jax.Array | None = None,
        cache: tuple[jax.Array, ...] | None = None,
        context: dict[str, Any] | None = None,
        wanted_BQ: jax.Array | None = None,
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        """Returns x_BTD, the layer's new cache (None without a cache), and the layer's statistics.

        Statistics are arrays [B, …] by name that a layer reports, for example for an auxiliary loss (see
        `Stack.transform`). A mixture of experts has some; other layers have none.

        If keys are given, dropout is applied to attention probabilities, to the inputs of adapters, and to the output
        of each branch before it is added to the residual stream.

        Norms are placed before the branches (`pre`), after them (`post`: OLMo 2, arXiv:2501.00656), on both sides
        (`sandwich`: Gemma 2), or after each sum of stream and branch (`post_residual`: the original Transformer,
        arXiv:1706.03762). With a parallel residual, both branches read the block's input (GPT-J, GPT-NeoX).

        Args:
          context: the other stream, as arguments of `Attention`: context_BSD, or context_cache with its keys and
            values, which then are the last two arrays of the new cache; and key_segments_BS or key_lengths_B.
          wanted_BQ: int32; the places of the tokens whose output is wanted. The returned x_BTD is then [B, Q, D], and
            nothing that follows attention is computed for other tokens. None: all T.
        """
        config = self.config
        of_attention, of_feedforward, in_attention, of_cross, in_cross, in_feedforward = (
            (None,) * 6 if dropout_keys_B is None else (fold_in(dropout_keys_B, use) for use in range(6))
        )

        def normed(h_BTD: jax.Array, name: str, side: str) -> jax.Array:
            wanted = config.norm_placement in (side, "sandwich")
            return make_norm(config, name=name)(h_BTD) if wanted else h_BTD

        def read(x_BTD: jax.Array, name: str) -> jax.Array:
            return self.placement.gathered(normed(x_BTD, name, "pre"))

        def added(x_BTD: jax.Array, h_BTD: jax.Array, name: str, keys_B: jax.Array | None) -> jax.Array:
            h_BTD = dropout(normed(self.placement.scattered(h_BTD), name, "post"), config.dropout, keys_B)
            x_BTD = x_BTD + (h_BTD if config.residual_multiplier == 1 else h_BTD * config.residual_multiplier)
            return make_norm(config, name=name)(x_BTD) if config.norm_placement == "post_residual" else x_BTD

        h_BTD = read(x_BTD, "attention_norm")
        h_BTD, cache = Attention(config, self.window, self.causal, self.placement, name="attention")(
            h_BTD,
            rotation=rotation,
            segments_BT=segments_BT,
            branches=branches,
            wanted_BQ=wanted_BQ,
            cache=cache,
            dropout_keys_B=in_attention,
        )
        if wanted_BQ is not None:
            x_BTD = self.placement.residual(taken(self.placement.gathered(x_BTD), wanted_BQ))
            segments_BT = None if segments_BT is None else taken(segments_BT, wanted_BQ)
        attended_BTD = added(x_BTD, h_BTD, "attention_post_norm", of_attention)

        if self.cross:
            if context is None:  # this call only declares parameters, so the content does not matter
                context = {"context_BSD": x_BTD}
            h_BTD = read(attended_BTD, "cross_attention_norm")
            context_cache: Any
            h_BTD, context_cache = Attention(config, 0, False, self.placement, name="cross_attention")(
                h_BTD, segments_BT=segments_BT, dropout_keys_B=in_cross, **context
            )
            cache = None if cache is None else (*cache, *context_cache)
            attended_BTD = added(attended_BTD, h_BTD, "cross_attention_post_norm", of_cross)

        h_BTD = read(x_BTD if config.parallel_residual else attended_BTD, "feedforward_norm")
        statistics: dict[str, jax.Array] = {}
        keys: dict[str, Any] = {"dropout_keys_B": in_feedforward} if config.lora_dropout else {}
        if config.num_experts:
            experts = MixtureOfExperts(config, self.placement, name="feedforward")
            h_BTD, statistics = experts(h_BTD, segments_BT, drops=cache is None, **keys)
        else:
            h_BTD = FeedForward(config, name="feedforward")(h_BTD, **keys)
        return added(attended_BTD, h_BTD, "feedforward_post_norm", of_feedforward), cache, statistics


class Decoder(Stack):
    """A GPT-style language model; see `Stack` for its attributes."""

    block: Callable[..., nn.Module] | None = Block

    def setup(self) -> None:
        config = self.config
        width, init, tied = {"embed": config.width}, embedding_init(config), config.tied_embeddings
        self.embedding = lookup(self, "embedding", {"vocab": config.vocab_size}, width, init, tied=tied)
        super().setup()
        if not tied:
            matrix(self, "head", width, {"vocab": config.vocab_size}, head_init(config))

    def __call__(
        self,
        tokens_BT: jax.Array,
        segments_BT: jax.Array | None = None,
        positions_BT: jax.Array | None = None,
        dropout_keys_B: jax.Array | None = None,
    ) -> jax.Array:
        """Logits [B, T, V] in float32.

        Args:
          segments_BT: int32 document numbers of a packed row, 0 for padding. Tokens see only their own document.
          positions_BT: int32 positions within each document; None counts from 0 along the row.
          dropout_keys_B: a key for the dropout of each row (`dropout.row_keys`); None: no dropout.
        """
        return self.logits(self.hidden(tokens_BT, segments_BT, positions_BT, dropout_keys_B)[0])

    def hidden(
        self,
        tokens_BT: jax.Array,
        segments_BT: jax.Array | None = None,
        positions_BT: jax.Array | None = None,
        dropout_keys_B: jax.Array | None = None,
        context: dict[str, Any] | None = None,
        ends_BT: jax.Array | None = None,
        wanted_BQ: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the residual stream [B, T, D] after the final norm, and the statistics of the blocks, each [L, B, …].

        The stream is in the compute dtype, before the head is applied.

        Statistics have an entry per row of the batch, so that their sum over rows is the same for one batch, for
        micro-batches and on any mesh.

        Args:
          ends_BT: int32; where each token is last seen, if the rows hold texts that branch (see `attention.Branches`).
            Positions must then be given, too.
          wanted_BQ: int32; the places of the tokens whose output is wanted: [B, Q, D] (see `Stack.transform`).
        """
        positions_BT = self.counted(tokens_BT) if positions_BT is None else positions_BT
        branches = None if ends_BT is None else Branches(ends_BT, positions_BT)
        of_layers_LB, of_embedding_B = self.dropout_keys(dropout_keys_B)
        x_BTD = self.embedded(self.embedding, tokens_BT, positions_BT, of_embedding_B)
        seen = {"segments_BT": segments_BT, "branches": branches, "context": context}
        return self.transform(x_BTD, positions_BT, of_layers_LB, wanted_BQ, **seen)

    def read(
        self,
        tokens_BT: jax.Array,
        cache: KeyValueCache,
        num_new_B: jax.Array | None = None,
        wanted_BQ: jax.Array | None = None,
    ) -> tuple[jax.Array, KeyValueCache]:
        """Continues each row from the end of its cache.

        Args:
          cache: must have slots for all T tokens.
          num_new_B: the number of tokens of each row that are not padding, from 0 to T; padding comes last, and its
            output has no meaning. None: all T.
          wanted_BQ: int32; the places of those of the T tokens whose output is wanted: [B, Q, D].

        Returns:
          `hidden` of these tokens, [B, T, D], and the cache with them.
        """
        x_BTD, new = self._read(tokens_BT, cache, wanted_BQ=wanted_BQ)
        keys, values = zip(*new)
        lengths_B = cache.lengths_B + (tokens_BT.shape[1] if num_new_B is None else num_new_B)
        return x_BTD, KeyValueCache(keys=keys, values=values, lengths_B=lengths_B)

    @property
    def logit_softcap(self) -> float:
        return self.config.logit_softcap

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """Logits [B, T, V] in float32 from what `hidden` and `read` return."""
        return softcap(project_float32(x_BTD, self.output_matrix()), self.logit_softcap)

    def output_matrix(self) -> jax.Array:
        """The output matrix [D, V]: the head, or the embedding if they are tied."""
        return head_DV(self.variables["params"])

    def _read(
        self,
        tokens_BT: jax.Array,
        cache: KeyValueCache,
        contexts: list[dict[str, Any]] | None = None,
        wanted_BQ: jax.Array | None = None,
    ) -> tuple[jax.Array, list[tuple[jax.Array, ...]]]:
        """`hidden` for tokens that follow those in the cache, and the layers' new caches."""
        positions_BT = cache.lengths_B[:, None] + jnp.arange(tokens_BT.shape[1])
        positions_BT = jnp.minimum(positions_BT, self.config.max_positions - 1)  # padding may lie beyond it
        x_BTD = self.embedded(self.embedding, tokens_BT, positions_BT)
        caches: list[Any] = [(keys, values, cache.lengths_B) for keys, values in zip(cache.keys, cache.values)]
        return self.transform_cached(x_BTD, positions_BT, caches, contexts, wanted_BQ)

    def _finish(self, x_BTD: jax.Array) -> jax.Array:
        """Applies the last norm and the factor on logits. Since the head is linear, every loss then sees the factor."""
        x_BTD, multiplier = super()._finish(x_BTD), self.config.logit_multiplier
        return x_BTD if multiplier == 1 else x_BTD * multiplier
