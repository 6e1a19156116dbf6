"""The attention layer of a block: projections to heads, attention, and the projection back to the model's width."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gptjax.model.attention import Branches, attention, attention_weights, cached_attention, visible
from gptjax.model.attention_scores import Scores
from gptjax.model.blocks import taken
from gptjax.model.cache import write
from gptjax.model.checks import bias_parts
from gptjax.model.initialization import input_init, output_init
from gptjax.model.lora import linear
from gptjax.model.norm import RMSNorm
from gptjax.model.parameters import Axes, vector
from gptjax.model.placement import ONE_DEVICE, Placement
from gptjax.model.position import rotate
from gptjax.model.position_bias import position_bias
from gptjax.model.rematerialization import ATTENTION_OUTPUT
from gptjax.settings import ModelSettings


class Attention(nn.Module):
    """Projections to heads, QK-norm, rotation, attention, and the projection back to the model's width.

    It is causal in a decoder and bidirectional in an encoder. Cross-attention takes queries from one stream, x_BTD, and
    keys and values from another, context_BSD. It is not causal, and since a distance between tokens of two streams has
    no meaning, it has no rotation and no window.

    If Flax's collection `intermediates` is mutable, a layer that reads no cache stores its attention weights
    [B, N, T, S] there under the name `weights` (see inference/attention_map.py).
    """

    config: ModelSettings
    window: int
    causal: bool = True
    placement: Placement = ONE_DEVICE

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        *,
        context_BSD: jax.Array | None = None,
        context_cache: tuple[jax.Array, jax.Array] | None = None,
        rotation: Any = None,
        segments_BT: jax.Array | None = None,
        key_segments_BS: jax.Array | None = None,
        key_lengths_B: jax.Array | None = None,
        branches: Branches | None = None,
        wanted_BQ: jax.Array | None = None,
        cache: tuple[jax.Array, ...] | None = None,
        dropout_keys_B: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
        """Applies the layer. The arguments that are not listed here are those of `attention`.

        Args:
          context_BSD: for cross-attention, the other stream.
          context_cache: the keys and values that a call with `context_BSD` returned; replaces `context_BSD`.
          cache: the layer's (keys_BKSH, values_BKSH, lengths_B), which x_BTD continues.
          rotation: the rotation of the tokens' positions (see `rotate`).
          wanted_BQ: int32; the places of the tokens whose output is wanted. None: all T.

        Returns:
          The output [B, T, D], or [B, Q, D] of the wanted tokens, and (keys_BKSH, values_BKSH) to keep for the next
          call: with a cache, the cache with x_BTD in it; for cross-attention, the keys and values of the other stream;
          otherwise None.
        """
        config = self.config
        is_cross = context_BSD is not None or context_cache is not None
        if is_cross and (self.causal or self.window or rotation is not None):
            raise ValueError("attention to another stream cannot be causal or have a window or a rotation")
        if cache is not None and not self.causal:
            raise ValueError("only causal attention can continue from a cache")

        keys_B = dropout_keys_B
        asking_BTD, turns = x_BTD, rotation
        if wanted_BQ is not None and cache is not None:
            asking_BTD, turns = jax.tree.map(lambda x: taken(x, wanted_BQ), (x_BTD, rotation))
        q_BTNH = self._heads("query", asking_BTD, keys_B, turns)
        if context_cache is None:
            stream_BSD = x_BTD if context_BSD is None else context_BSD
            k_BSKH, v_BSKH = self._heads("key", stream_BSD, keys_B, rotation), self._heads("value", stream_BSD, keys_B)
        scores, block = self._scores(is_cross), config.attention_block

        kept = None
        if context_cache is not None:
            kept = context_cache
            out_BTNH = cached_attention(
                q_BTNH,
                *kept,
                positions_BT=jnp.zeros((1, x_BTD.shape[1]), jnp.int32),
                causal=False,
                key_lengths_B=key_lengths_B,
                block=block,
                scores=scores,
            )
        elif cache is not None:
            keys_BKSH, values_BKSH, lengths_B = cache
            kept = write(keys_BKSH, k_BSKH, lengths_B), write(values_BKSH, v_BSKH, lengths_B)
            positions_BT = lengths_B[:, None] + (jnp.arange(x_BTD.shape[1]) if wanted_BQ is None else wanted_BQ)
            out_BTNH = cached_attention(
                q_BTNH, *kept, positions_BT=positions_BT, window=self.window, block=block, scores=scores
            )
        else:
            marks = {
                "segments_BT": segments_BT,
                "key_segments_BS": key_segments_BS,
                "key_lengths_B": key_lengths_B,
                "branches": branches,
            }
            out_BTNH = self._attend(q_BTNH, k_BSKH, v_BSKH, scores, marks, dropout_keys_B)
            if wanted_BQ is not None:  # backends know the places of queries only if all tokens are queries
                out_BTNH = taken(out_BTNH, wanted_BQ)
            if is_cross:
                kept = jnp.swapaxes(k_BSKH, 1, 2), jnp.swapaxes(v_BSKH, 1, 2)

        if config.attention != "cudnn":  # see CUDNN_ATTENTION
            out_BTNH = checkpoint_name(out_BTNH, ATTENTION_OUTPUT)
        return self._output(out_BTNH, keys_B), kept

    def _heads(self, name: str, x_BTD: jax.Array, dropout_keys_B: jax.Array | None, rotation: Any = None) -> jax.Array:
        """Projects a stream to its "query", "key" or "value" heads, [B, T, heads, H].

        If the config says so, queries and keys are normalized (QK-norm); they are rotated if a rotation is given.
        """
        config = self.config
        axes: Axes = {"kv_heads": config.num_kv_heads, "head": config.head_width}
        if name == "query":
            axes = self._query_heads
        has_bias, inputs = "qkv" in bias_parts(config.bias), {"embed": config.width}
        x_BTO = linear(
            *(self, name, x_BTD, inputs, axes, input_init(config)), has_bias=has_bias, dropout_keys_B=dropout_keys_B
        )
        x_BTNH = x_BTO.reshape(*x_BTD.shape[:2], *axes.values())
        if config.qk_norm and name != "value":
            # Qwen3 normalizes each head by itself; OLMo 2 normalizes all heads of a token together.
            norm_axes = tuple(axes) if config.qk_norm_over == "projection" else ("head",)
            x_BTNH = RMSNorm(config, norm_axes, name=f"{name}_norm")(x_BTNH)
        return x_BTNH if rotation is None else rotate(x_BTNH, rotation)

    def _scores(self, is_cross: bool) -> Scores:
        config = self.config
        sinks_N = vector(self, "sinks", {"heads": config.num_heads}) if config.attention_sinks else None
        bias = None if is_cross else position_bias(self)  # distances between tokens of two streams are meaningless
        return Scores(config.attention_scale, config.attention_softcap, bias, sinks_N)

    def _attend(
        self,
        q_BTNH: jax.Array,
        k_BSKH: jax.Array,
        v_BSKH: jax.Array,
        scores: Scores,
        marks: dict[str, Any],
        dropout_keys_B: jax.Array | None,
    ) -> jax.Array:
        """Attention without a cache, divided over devices by the placement.

        marks: the arguments of `attention` that say which query sees which key.
        """
        config = self.config
        if self.is_mutable_collection("intermediates"):
            self._sow_weights(q_BTNH, k_BSKH, scores, marks)
        return self.placement.attention(
            attention,
            q_BTNH,
            k_BSKH,
            v_BSKH,
            backend=config.attention,
            causal=self.causal,
            window=self.window,
            **marks,
            block=config.attention_block,
            dropout=config.attention_dropout,
            dropout_keys_B=dropout_keys_B,
            scores=scores,
        )

    def _sow_weights(self, q_BTNH: jax.Array, k_BSKH: jax.Array, scores: Scores, marks: dict[str, Any]) -> None:
        segments_BT, key_segments_BS = marks["segments_BT"], marks["key_segments_BS"]
        key_segments_BS = segments_BT if key_segments_BS is None else key_segments_BS
        rows_1T, rows_1S = jnp.arange(q_BTNH.shape[1])[None], jnp.arange(k_BSKH.shape[1])[None]
        mask_BTS, distance_BTS = visible(
            *(rows_1T, rows_1S, self.window, segments_BT, key_segments_BS),
            causal=self.causal,
            key_lengths_B=marks["key_lengths_B"],
        )
        weights_BKTGS = attention_weights(q_BTNH, k_BSKH, mask_BTS, None, scores, distance_BTS)
        weights_BKGTS = jnp.swapaxes(weights_BKTGS, 2, 3)
        self.sow("intermediates", "weights", weights_BKGTS.reshape(-1, q_BTNH.shape[2], *mask_BTS.shape[1:]))

    def _output(self, x_BTNH: jax.Array, dropout_keys_B: jax.Array | None) -> jax.Array:
        """Projects the heads back to the model's width, [B, T, D]."""
        config, width = self.config, {"embed": self.config.width}
        x_BTI, has_bias = x_BTNH.reshape(*x_BTNH.shape[:2], -1), "output" in bias_parts(config.bias)
        return linear(
            *(self, "output", x_BTI, self._query_heads, width, output_init(config)),
            has_bias=has_bias,
            dropout_keys_B=dropout_keys_B,
        )

    @property
    def _query_heads(self) -> Axes:
        return {"heads": self.config.num_heads, "head": self.config.head_width}
