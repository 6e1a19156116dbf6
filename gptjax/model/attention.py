"""Attention: what each token takes from the tokens that it sees.

In PyTorch's words, for one head of queries q [T, H], keys k and values v [S, H], and a mask [T, S] of what is seen:

    weights = softmax((q @ k.T / sqrt(H)).masked_fill(~mask, -inf))
    out = weights @ v

`attend` is just this for all rows and heads at once. The rest of this file is who sees whom (`visible`), the same over
a cache, and the layer with its projections. What computes it in less memory and time is in `attention_backends`.

Query head n reads key/value head n // G, where G = N / K query heads share one. Softmax and its logits are float32
everywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gptjax.config import ConfigError
from gptjax.model.attention_backends import BACKENDS, cudnn, in_blocks, refuse_on_cudnn
from gptjax.model.blocks import join_blocks, split_blocks
from gptjax.model.cache import write
from gptjax.model.checks import bias_parts
from gptjax.model.dropout import keep_probabilities
from gptjax.model.initialization import input_init, output_init
from gptjax.model.norm import RMSNorm
from gptjax.model.parameters import Axes, matrix, vector
from gptjax.model.position import rotate
from gptjax.model.position_bias import position_bias
from gptjax.model.precision import einsum, einsum_float32, project
from gptjax.model.softcap import softcap
from gptjax.settings import ModelSettings

_MASKED = -1e30  # finite: a query that sees no key gives numbers, not NaN


@dataclasses.dataclass(frozen=True)
class Scores:
    """What bends attention between its two products, beside the mask. By default nothing does.

    Attributes:
      scale: what products of queries and keys are multiplied by; 0: 1 / sqrt(H).
      softcap: they are then squashed to between -this and +this (Gemma 2); 0: they are not.
      bias: how far a key lies before its query, [B, T, S] → what is added, [B, N, T, S] (see `position_bias`).
      sinks_N: the logit, in each head, of one more key which every query sees and whose value is zero (gpt-oss).
    """

    scale: float = 0.0
    softcap: float = 0.0
    bias: Callable[[jax.Array], jax.Array] | None = None
    sinks_N: jax.Array | None = None


PLAIN = Scores()


def attend(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask_BTS: jax.Array,
    kept: tuple[jax.Array, float] | None = None,
    scores: Scores = PLAIN,
    distance_BTS: jax.Array | None = None,
) -> jax.Array:
    """softmax(q kᵀ / sqrt(H)) v, [B, T, N, H]: the definition.

    Queries may come from another sequence than keys and values: `mask_BTS` (bool) alone says which key each sees.
    """
    weights_BKTGS = attention_weights(q_BTNH, k_BSKH, mask_BTS, kept, scores, distance_BTS).astype(v_BSKH.dtype)
    return einsum("BKTGS,BSKH->BTKGH", weights_BKTGS, v_BSKH).reshape(q_BTNH.shape)


def attention_weights(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    mask_BTS: jax.Array,
    kept: tuple[jax.Array, float] | None = None,
    scores: Scores = PLAIN,
    distance_BTS: jax.Array | None = None,
) -> jax.Array:
    """softmax(q kᵀ / sqrt(H)), float32 [B, K, T, G, S]: the share of each value that a query takes."""
    B, T, _, H = q_BTNH.shape
    q_BTKGH = q_BTNH.reshape(B, T, k_BSKH.shape[2], -1, H)
    # Axes in the order that the matrix product makes them: the logits, the largest array here, are never transposed.
    logits_BKTGS = einsum_float32("BTKGH,BSKH->BKTGS", q_BTKGH, k_BSKH) * (scores.scale or H**-0.5)
    return softmax(logits_BKTGS, mask_BTS, kept, scores, distance_BTS)


def softmax(
    logits_BKTGS: jax.Array,
    mask_BTS: jax.Array,
    kept: tuple[jax.Array, float] | None = None,
    scores: Scores = PLAIN,
    distance_BTS: Any = None,
) -> jax.Array:
    """The share of each value that a query takes. What bends attention between its two products belongs here:
    definition, blocks and cache then have it all at once.

    Args:
      kept: of dropout, which shares stay, and what those are multiplied by.
      distance_BTS: how far a key lies before its query, for `scores.bias`.
    """
    _, K, _, G, _ = logits_BKTGS.shape
    logits_BKTGS = softcap(logits_BKTGS, scores.softcap)
    if scores.bias is not None:
        bias_BNTS = scores.bias(distance_BTS)
        logits_BKTGS += jnp.swapaxes(bias_BNTS.reshape(bias_BNTS.shape[0], K, G, *bias_BNTS.shape[2:]), 2, 3)
    logits_BKTGS = jnp.where(mask_BTS[:, None, :, None, :], logits_BKTGS, _MASKED)
    if scores.sinks_N is None:
        weights_BKTGS = jax.nn.softmax(logits_BKTGS, axis=-1)
    else:
        sinks_K1G1 = scores.sinks_N.astype(jnp.float32).reshape(K, 1, G, 1)
        largest = jax.lax.stop_gradient(jnp.maximum(logits_BKTGS.max(axis=-1, keepdims=True), sinks_K1G1))
        weights_BKTGS = jnp.exp(logits_BKTGS - largest)
        weights_BKTGS /= weights_BKTGS.sum(axis=-1, keepdims=True) + jnp.exp(sinks_K1G1 - largest)
    if kept is None:
        return weights_BKTGS
    kept_BKTGS, scale = kept
    return jnp.where(kept_BKTGS, weights_BKTGS * scale, 0.0)


def visible(
    rows_BT: jax.Array,
    rows_BS: jax.Array,
    window: int = 0,
    segments_BT: jax.Array | None = None,
    segments_BS: Any = None,
    *,
    causal: bool = True,
    key_lengths_B: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Whether query t sees key s, [B, T, S] bool, and how far s lies before t, [B, T, S].

    It sees none that comes later, none that is `window` rows or more away (0: any), none of another segment. B is
    1 where the rows of the batch do not differ.

    Args:
      rows_BT: where the queries stand in the sequence; rows_BS: where the keys do.
    """
    distance_BTS = rows_BT[:, :, None] - rows_BS[:, None, :]
    mask_BTS = distance_BTS >= 0 if causal else jnp.ones_like(distance_BTS, bool)
    if window:
        mask_BTS &= (distance_BTS if causal else jnp.abs(distance_BTS)) < window
    if key_lengths_B is not None:
        mask_BTS &= (rows_BS < key_lengths_B[:, None])[:, None, :]
    if segments_BT is not None:
        mask_BTS &= segments_BT[:, :, None] == segments_BS[:, None, :]
    return mask_BTS, distance_BTS


def attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    *,
    backend: str,
    causal: bool = True,
    window: int = 0,
    segments_BT: jax.Array | None = None,
    key_segments_BS: jax.Array | None = None,
    key_lengths_B: jax.Array | None = None,
    block: int = 64,
    dropout: float = 0.0,
    dropout_keys_B: jax.Array | None = None,
    scores: Scores = PLAIN,
) -> jax.Array:
    """Attention by one of the backends, [B, T, N, H]: of a sequence to itself, or to another one (not causal).

    A query that sees no key, as one of a segment without keys, gets the mean of the values.

    Args:
      backend: one of BACKENDS (see `select_backend` for `auto`).
      causal: query t sees keys up to t, and S = T; otherwise all keys, and S may be anything.
      window: query t sees keys t - window + 1 … t, and as many after it where it is not causal; 0: all.
      segments_BT: int32; a query sees only keys of its own segment.
      key_segments_BS: those of the keys; None: `segments_BT`.
      key_lengths_B: int32; row b has only so many keys, and what follows is padding; at least 1. None: S.
      block: query rows that the xla backend handles at a time.
      dropout: share of the weights that are zeroed; none without the rows' keys.

    Raises:
      ConfigError: an unknown backend, or one that cannot run these inputs; never another backend in its place.
    """
    T, S = q_BTNH.shape[1], k_BSKH.shape[1]
    if causal and (S != T or key_segments_BS is not None or key_lengths_B is not None):
        raise ValueError(f"causal attention is of a sequence to itself: {T} queries, {S} keys and no facts of the keys")
    if S != T and (segments_BT is None) != (key_segments_BS is None):
        raise ValueError("segments_BT and key_segments_BS belong together where the keys are of another sequence")
    key_segments_BS = segments_BT if key_segments_BS is None else key_segments_BS
    keys_B = dropout_keys_B if dropout else None

    def attend_rows(queries: tuple[Any, ...], keys: tuple[Any, ...], num_keys: int) -> jax.Array:
        q_BtNH, rows_t, segments_Bt = queries
        k_BsKH, v_BsKH, rows_s, segments_Bs = keys
        kept = None
        if keys_B is not None:
            K = k_BsKH.shape[2]
            drawn = keep_probabilities(keys_B, dropout, rows_t, num_keys, K, q_BtNH.shape[2] // K)
            kept = jax.lax.dynamic_slice_in_dim(drawn, rows_s[0], rows_s.size, axis=-1), 1.0 / (1.0 - dropout)
        mask_Bts, distance_Bts = visible(
            *(rows_t[None], rows_s[None], window, segments_Bt, segments_Bs), causal=causal, key_lengths_B=key_lengths_B
        )
        return attend(q_BtNH, k_BsKH, v_BsKH, mask_Bts, kept, scores, distance_Bts)

    if backend == "reference":
        rows_T, rows_S = jnp.arange(T), jnp.arange(S)
        return attend_rows((q_BTNH, rows_T, segments_BT), (k_BSKH, v_BSKH, rows_S, key_segments_BS), S)
    if backend == "xla":
        queries, keys = (q_BTNH, segments_BT), (k_BSKH, v_BSKH, key_segments_BS)
        return in_blocks(attend_rows, queries, keys, causal=causal, window=window, block=block)
    if backend == "cudnn":
        refuse_on_cudnn(
            attention_dropout=keys_B is not None,
            attention_softcap=scores.softcap,
            position=scores.bias is not None,
            attention_sinks=scores.sinks_N is not None,
        )
        packed = segments_BT is not None
        return cudnn(
            *(q_BTNH, k_BSKH, v_BSKH),
            causal=causal,
            window=window,
            scale=scores.scale,
            packed=packed,
            key_lengths_B=key_lengths_B,
        )
    raise ConfigError(f"model.attention = {backend!r}: expected one of {', '.join(BACKENDS)}")


def cached_attention(
    q_BTNH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    *,
    positions_BT: jax.Array,
    window: int = 0,
    causal: bool = True,
    key_lengths_B: jax.Array | None = None,
    block: int = 64,
    scores: Scores = PLAIN,
) -> jax.Array:
    """Attention of T new tokens over a cache that already holds their keys: slot s has the token at position s.

    Not causal, it is attention over the cache of another stream, of which row b has `key_lengths_B[b]` ≥ 1 tokens.

    The [B, K, S, H] layout is the one that the matrix products read without a copy of the cache. A long prompt runs in
    blocks of query rows, so that its logits take block · S numbers a head and not T · S.
    """
    length = q_BTNH.shape[1]
    slots_1S = jnp.arange(k_BKSH.shape[2])[None]

    def attend_rows(positions_Bt: jax.Array, q_BtNH: jax.Array) -> jax.Array:
        H = q_BtNH.shape[-1]
        q_BtKGH = q_BtNH.reshape(*q_BtNH.shape[:2], k_BKSH.shape[1], -1, H)
        logits_BKtGS = einsum_float32("BTKGH,BKSH->BKTGS", q_BtKGH, k_BKSH) * (scores.scale or H**-0.5)
        mask_BtS, distance_BtS = visible(positions_Bt, slots_1S, window, causal=causal, key_lengths_B=key_lengths_B)
        weights_BKtGS = softmax(logits_BKtGS, mask_BtS, None, scores, distance_BtS).astype(v_BKSH.dtype)
        # In any other order of the axes XLA:CPU multiplies the cache from the left, which is ten times slower.
        return jnp.swapaxes(einsum("BKTGS,BKSH->BKTGH", weights_BKtGS, v_BKSH), 1, 2).reshape(q_BtNH.shape)

    if length <= block:
        return attend_rows(positions_BT, q_BTNH)
    num_blocks = -(-length // block)
    extra = num_blocks * block - length
    queries = jnp.pad(positions_BT, ((0, 0), (0, extra))), jnp.pad(q_BTNH, ((0, 0), (0, extra), (0, 0), (0, 0)))
    queries = jax.tree.map(lambda x: split_blocks(x, num_blocks), queries)
    return join_blocks(jax.lax.map(lambda each: attend_rows(*each), queries))[:, :length]


class Attention(nn.Module):
    """Projections to heads, QK-norm, rotation, attention, and the projection back to the model's width.

    Whoever makes Flax's collection `intermediates` mutable finds there, as `weights`, the attention [B, N, T, S] of a
    layer that reads no cache (see inference/attention_map.py).

    A decoder's is causal. An encoder's is not. Cross-attention takes queries from one stream, x_BTD, and keys and
    values from another, context_BSD: it is not causal either, and knows no distances, so no rotation and no window.
    """

    config: ModelSettings
    window: int
    causal: bool = True

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
        cache: tuple[jax.Array, ...] | None = None,
        dropout_keys_B: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
        """Returns the output [B, T, D] and, given a layer's cache (keys_BKSH, values_BKSH, lengths_B), its new
        (keys_BKSH, values_BKSH). Cross-attention returns those of the other stream, which may then be given as
        `context_cache` in place of the stream. The other arguments are those of `attention`."""
        config = self.config
        is_cross = context_BSD is not None or context_cache is not None
        if is_cross and (self.causal or self.window or rotation is not None):
            raise ValueError("attention to another stream is not causal, and knows no window and no rotation")
        if cache is not None and not self.causal:
            raise ValueError("only causal attention reads on from a cache")
        stream_BSD = x_BTD if context_BSD is None else context_BSD
        width = {"embed": config.width}
        query_heads = {"heads": config.num_heads, "head": config.head_width}
        kv_heads = {"kv_heads": config.num_kv_heads, "head": config.head_width}
        biases = bias_parts(config.bias)

        def heads(name: str, axes: Axes, x_BTD: jax.Array) -> jax.Array:
            weight = matrix(self, name, width, axes, input_init(config))
            bias = vector(self, f"{name}_bias", axes) if "qkv" in biases else None
            return project(x_BTD, weight, bias).reshape(*x_BTD.shape[:2], *axes.values())

        q_BTNH = heads("query", query_heads, x_BTD)
        if context_cache is None:
            k_BSKH, v_BSKH = heads("key", kv_heads, stream_BSD), heads("value", kv_heads, stream_BSD)
        if config.qk_norm:  # before the rotation; Qwen3: each head by itself, OLMo 2: all heads of a token together
            together = config.qk_norm_over == "projection"
            query_axes, key_axes = (tuple(axes) if together else ("head",) for axes in (query_heads, kv_heads))
            q_BTNH = RMSNorm(config.norm_epsilon, query_axes, name="query_norm")(q_BTNH)
            if context_cache is None:
                k_BSKH = RMSNorm(config.norm_epsilon, key_axes, name="key_norm")(k_BSKH)
        if rotation is not None:
            q_BTNH, k_BSKH = rotate(q_BTNH, rotation), rotate(k_BSKH, rotation)

        sinks_N = vector(self, "sinks", {"heads": config.num_heads}) if config.attention_sinks else None
        scores = Scores(
            config.attention_scale, config.attention_softcap, None if is_cross else position_bias(self), sinks_N
        )
        if context_cache is not None:
            out_BTNH = cached_attention(
                q_BTNH,
                *context_cache,
                positions_BT=jnp.zeros((1, x_BTD.shape[1]), jnp.int32),
                causal=False,
                key_lengths_B=key_lengths_B,
                block=config.attention_block,
                scores=scores,
            )
            cache = context_cache
        elif cache is None:
            if self.is_mutable_collection("intermediates"):
                of_keys_BS = segments_BT if key_segments_BS is None else key_segments_BS
                rows_BT, rows_BS = jnp.arange(q_BTNH.shape[1])[None], jnp.arange(k_BSKH.shape[1])[None]
                mask_BTS, distance_BTS = visible(
                    *(rows_BT, rows_BS, self.window, segments_BT, of_keys_BS),
                    causal=self.causal,
                    key_lengths_B=key_lengths_B,
                )
                weights_BKTGS = attention_weights(q_BTNH, k_BSKH, mask_BTS, None, scores, distance_BTS)
                weights_BKGTS = jnp.swapaxes(weights_BKTGS, 2, 3)
                self.sow("intermediates", "weights", weights_BKGTS.reshape(-1, config.num_heads, *mask_BTS.shape[1:]))
            out_BTNH = attention(
                q_BTNH,
                k_BSKH,
                v_BSKH,
                backend=config.attention,
                causal=self.causal,
                window=self.window,
                segments_BT=segments_BT,
                key_segments_BS=key_segments_BS,
                key_lengths_B=key_lengths_B,
                block=config.attention_block,
                dropout=config.attention_dropout,
                dropout_keys_B=dropout_keys_B,
                scores=scores,
            )
            if is_cross:
                cache = jnp.swapaxes(k_BSKH, 1, 2), jnp.swapaxes(v_BSKH, 1, 2)
        else:
            keys_BKSH, values_BKSH, lengths_B = cache
            keys_BKSH = write(keys_BKSH, k_BSKH, lengths_B)
            values_BKSH = write(values_BKSH, v_BSKH, lengths_B)
            out_BTNH = cached_attention(
                q_BTNH,
                keys_BKSH,
                values_BKSH,
                positions_BT=lengths_B[:, None] + jnp.arange(x_BTD.shape[1]),
                window=self.window,
                block=config.attention_block,
                scores=scores,
            )
            cache = (keys_BKSH, values_BKSH)

        out_BTNH = checkpoint_name(out_BTNH, "attention_output")  # remat policies keep it: see decoder
        weight = matrix(self, "output", query_heads, width, output_init(config))
        bias = vector(self, "output_bias", width) if "output" in biases else None
        out_BTD = out_BTNH.reshape(*x_BTD.shape[:2], -1)
        return project(out_BTD, weight, bias), cache
