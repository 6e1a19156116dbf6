"""Attention: what each token takes from the tokens that it sees.

In PyTorch's words, for one head of queries q [T, H], keys k and values v [S, H], and a mask [T, S] of what is seen:

    weights = softmax((q @ k.T / sqrt(H)).masked_fill(~mask, -inf))
    out = weights @ v

`attend` is just this for all rows and heads at once. The rest of this file is which query sees which key (`visible`),
attention over a cache, and the layer with its projections. `attention_backends` computes it in less memory and time.

Query head n reads key/value head n // G, where G = N / K query heads share one. Softmax and its logits are float32
everywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

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
from gptjax.model.placement import ONE_DEVICE, Placement
from gptjax.model.position import rotate
from gptjax.model.position_bias import position_bias
from gptjax.model.precision import einsum, einsum_float32, project
from gptjax.model.softcap import softcap
from gptjax.settings import ModelSettings

MASKED = -1e30  # finite: a query that sees no key gives numbers, not NaN


@dataclasses.dataclass(frozen=True)
class Scores:
    """Changes to the logits between attention's two matrix products, besides the mask. The defaults change nothing.

    Attributes:
      scale: the factor for products of queries and keys; 0: 1 / sqrt(H).
      softcap: the logits are then squashed to between -this and +this (Gemma 2); 0: they are not.
      bias: a function from how far each key lies before its query, [B, T, S], to what is added to the logits,
        [B, N, T, S] (see `position_bias`).
      sinks_N: per head, the logit of an additional key that every query sees and whose value is zero (gpt-oss).
    """

    scale: float = 0.0
    softcap: float = 0.0
    bias: Callable[[jax.Array], jax.Array] | None = None
    sinks_N: jax.Array | None = None


PLAIN = Scores()


class Branches(NamedTuple):
    """Rows in which texts branch: several go on from one beginning, which stands in the row once.

    Attributes:
      numbers_BT: int32; within its segment, a token sees those of branch 0, the beginning, and those of its own branch.
      positions_BT: int32; how far tokens are apart, since a branch does not stand directly behind the beginning.
    """

    numbers_BT: jax.Array
    positions_BT: jax.Array


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
    """The weight of each value for each query. Every change between attention's two matrix products belongs here, so
    that the definition, the blocks and the cache all have it.

    Args:
      kept: for dropout, which weights are kept (bool, [B, K, T, G, S]), and the factor for those.
      distance_BTS: how far a key lies before its query, for `scores.bias`.
    """
    _, K, _, G, _ = logits_BKTGS.shape
    logits_BKTGS = softcap(logits_BKTGS, scores.softcap)
    if scores.bias is not None:
        bias_BNTS = scores.bias(distance_BTS)
        logits_BKTGS += jnp.swapaxes(bias_BNTS.reshape(bias_BNTS.shape[0], K, G, *bias_BNTS.shape[2:]), 2, 3)
    logits_BKTGS = jnp.where(mask_BTS[:, None, :, None, :], logits_BKTGS, MASKED)
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
    branches_BT: jax.Array | None = None,
    branches_BS: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """Whether query t sees key s, [B, T, S] bool, and how far s lies before t, [B, T, S].

    A query does not see keys that come later (if causal), keys that are `window` rows or more away (0: no limit), and
    keys of another segment or branch (see `Branches`). B is 1 where the rows of the batch do not differ.

    Args:
      rows_BT: the queries' places in the sequence; rows_BS: the keys' places.
    """
    distance_BTS = rows_BT[:, :, None] - rows_BS[:, None, :]
    mask_BTS = distance_BTS >= 0 if causal else jnp.ones_like(distance_BTS, bool)
    if window:
        mask_BTS &= (distance_BTS if causal else jnp.abs(distance_BTS)) < window
    if key_lengths_B is not None:
        mask_BTS &= (rows_BS < key_lengths_B[:, None])[:, None, :]
    if segments_BT is not None:
        mask_BTS &= segments_BT[:, :, None] == segments_BS[:, None, :]
    if branches_BT is not None:
        mask_BTS &= (branches_BS == 0)[:, None, :] | (branches_BT[:, :, None] == branches_BS[:, None, :])
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
    branches: Branches | None = None,
    block: int = 64,
    dropout: float = 0.0,
    dropout_keys_B: jax.Array | None = None,
    scores: Scores = PLAIN,
) -> jax.Array:
    """Attention by one of the backends, [B, T, N, H]: of a sequence to itself, or (not causal) to another sequence.

    A query that sees no key, for example because its segment has none, gets the mean of the values.

    Args:
      backend: one of BACKENDS (see `select_backend` for `auto`).
      causal: query t sees the keys up to t, and S = T; otherwise it sees all keys, and S may differ from T.
      window: query t sees keys t - window + 1 … t, and as many after it where it is not causal; 0: all.
      segments_BT: int32; a query sees only keys of its own segment.
      key_segments_BS: the segments of the keys; None: `segments_BT`.
      key_lengths_B: int32, at least 1: the number of keys in each row, which padding follows. None: S.
      branches: of the texts in each row, where they branch.
      block: query rows that the xla backend handles at a time.
      dropout: share of the weights that are zeroed; without `dropout_keys_B` no weight is.

    Raises:
      ConfigError: the backend is unknown or cannot run these inputs. Another one never takes its place silently.
    """
    T, S = q_BTNH.shape[1], k_BSKH.shape[1]
    if causal and (S != T or key_segments_BS is not None or key_lengths_B is not None):
        raise ValueError("causal attention takes as many keys as queries, and neither segments nor lengths of the keys")
    if S != T and (segments_BT is None) != (key_segments_BS is None):
        raise ValueError("give both segments_BT and key_segments_BS, or neither, where S differs from T")
    key_segments_BS = segments_BT if key_segments_BS is None else key_segments_BS
    keys_B = dropout_keys_B if dropout else None

    def attend_rows(queries: tuple[Any, ...], keys: tuple[Any, ...], num_keys: int) -> jax.Array:
        q_BtNH, rows_t, (segments_Bt, branches_Bt) = queries
        k_BsKH, v_BsKH, rows_s, (segments_Bs, branches_Bs) = keys
        kept = None
        if keys_B is not None:
            K = k_BsKH.shape[2]
            drawn = keep_probabilities(keys_B, dropout, rows_t, num_keys, K, q_BtNH.shape[2] // K)
            kept = jax.lax.dynamic_slice_in_dim(drawn, rows_s[0], rows_s.size, axis=-1), 1.0 / (1.0 - dropout)
        places_Bt, places_Bs, numbers_Bt, numbers_Bs = rows_t[None], rows_s[None], None, None
        if branches is not None:
            (numbers_Bt, places_Bt), (numbers_Bs, places_Bs) = branches_Bt, branches_Bs
        mask_Bts, distance_Bts = visible(
            *(places_Bt, places_Bs, window, segments_Bt, segments_Bs),
            causal=causal,
            key_lengths_B=key_lengths_B,
            branches_BT=numbers_Bt,
            branches_BS=numbers_Bs,
        )
        return attend(q_BtNH, k_BsKH, v_BsKH, mask_Bts, kept, scores, distance_Bts)

    marks_BT, marks_BS = (segments_BT, branches), (key_segments_BS, branches)
    if backend == "reference":
        rows_T, rows_S = jnp.arange(T), jnp.arange(S)
        return attend_rows((q_BTNH, rows_T, marks_BT), (k_BSKH, v_BSKH, rows_S, marks_BS), S)
    if backend == "xla":
        queries, keys = (q_BTNH, marks_BT), (k_BSKH, v_BSKH, marks_BS)
        reach = 0 if branches is not None else window  # what is near in a branch may stand far from it in the row
        return in_blocks(attend_rows, queries, keys, causal=causal, window=reach, block=block)
    if backend == "cudnn":
        if branches is not None:
            raise ConfigError("model.attention = 'cudnn': it does not support texts that branch; use xla")
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

    If not causal, the cache is that of another stream, which has `key_lengths_B[b]` ≥ 1 tokens in row b.

    The matrix products read the layout [B, K, S, H] without a copy of the cache. A long prompt runs in blocks of query
    rows, so that its logits take block · S numbers per head instead of T · S.
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

    In a decoder it is causal, in an encoder it is not. Cross-attention takes queries from one stream, x_BTD, and keys
    and values from another, context_BSD. It is not causal either, and since distances between two streams mean
    nothing, it has no rotation and no window.

    If Flax's collection `intermediates` is mutable, a layer that reads no cache stores its weights there, [B, N, T, S],
    under the name `weights` (see inference/attention_map.py).
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
        cache: tuple[jax.Array, ...] | None = None,
        dropout_keys_B: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
        """Returns the output [B, T, D] and the keys and values that are worth keeping.

        Args:
          context_BSD: the other stream, for cross-attention.
          context_cache: what a call with `context_BSD` returned, in place of the other stream.
          cache: a layer's (keys_BKSH, values_BKSH, lengths_B), which x_BTD continues.
          rotation: of positions, see `rotate`; the other arguments are those of `attention`.

        Returns:
          The output, and (keys_BKSH, values_BKSH): the cache with x_BTD in it, or for cross-attention those of the
          other stream. None without either.
        """
        config = self.config
        is_cross = context_BSD is not None or context_cache is not None
        if is_cross and (self.causal or self.window or rotation is not None):
            raise ValueError("attention to another stream cannot be causal or have a window or a rotation")
        if cache is not None and not self.causal:
            raise ValueError("only causal attention can continue from a cache")

        q_BTNH = self._heads("query", x_BTD, rotation)
        if context_cache is None:
            stream_BSD = x_BTD if context_BSD is None else context_BSD
            k_BSKH, v_BSKH = self._heads("key", stream_BSD, rotation), self._heads("value", stream_BSD)
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
            positions_BT = lengths_B[:, None] + jnp.arange(x_BTD.shape[1])
            out_BTNH = cached_attention(
                q_BTNH, *kept, positions_BT=positions_BT, window=self.window, block=block, scores=scores
            )
        else:
            if self.is_mutable_collection("intermediates"):
                self._sow_weights(q_BTNH, k_BSKH, scores, segments_BT, key_segments_BS, key_lengths_B)
            out_BTNH = self.placement.attention(
                attention,
                q_BTNH,
                k_BSKH,
                v_BSKH,
                backend=config.attention,
                causal=self.causal,
                window=self.window,
                segments_BT=segments_BT,
                key_segments_BS=key_segments_BS,
                key_lengths_B=key_lengths_B,
                branches=branches,
                block=block,
                dropout=config.attention_dropout,
                dropout_keys_B=dropout_keys_B,
                scores=scores,
            )
            if is_cross:
                kept = jnp.swapaxes(k_BSKH, 1, 2), jnp.swapaxes(v_BSKH, 1, 2)

        out_BTNH = checkpoint_name(out_BTNH, "attention_output")  # remat policies keep it: see decoder
        return self._output(out_BTNH), kept

    def _heads(self, name: str, x_BTD: jax.Array, rotation: Any = None) -> jax.Array:
        """The projection of a stream to its "query", "key" or "value" heads, [B, T, heads, H].

        Queries and keys are also normalised (QK-norm) and rotated.
        """
        config = self.config
        axes: Axes = {"kv_heads": config.num_kv_heads, "head": config.head_width}
        if name == "query":
            axes = self._query_heads
        weight = matrix(self, name, {"embed": config.width}, axes, input_init(config))
        bias = vector(self, f"{name}_bias", axes) if "qkv" in bias_parts(config.bias) else None
        x_BTNH = project(x_BTD, weight, bias).reshape(*x_BTD.shape[:2], *axes.values())
        if config.qk_norm and name != "value":
            # Qwen3 normalises each head by itself, OLMo 2 all heads of a token together.
            norm_axes = tuple(axes) if config.qk_norm_over == "projection" else ("head",)
            x_BTNH = RMSNorm(config.norm_epsilon, norm_axes, name=f"{name}_norm")(x_BTNH)
        return x_BTNH if rotation is None else rotate(x_BTNH, rotation)

    def _scores(self, is_cross: bool) -> Scores:
        config = self.config
        sinks_N = vector(self, "sinks", {"heads": config.num_heads}) if config.attention_sinks else None
        bias = None if is_cross else position_bias(self)  # the distance to another stream's token means nothing
        return Scores(config.attention_scale, config.attention_softcap, bias, sinks_N)

    def _sow_weights(
        self,
        q_BTNH: jax.Array,
        k_BSKH: jax.Array,
        scores: Scores,
        segments_BT: jax.Array | None,
        key_segments_BS: jax.Array | None,
        key_lengths_B: jax.Array | None,
    ) -> None:
        key_segments_BS = segments_BT if key_segments_BS is None else key_segments_BS
        rows_1T, rows_1S = jnp.arange(q_BTNH.shape[1])[None], jnp.arange(k_BSKH.shape[1])[None]
        mask_BTS, distance_BTS = visible(
            *(rows_1T, rows_1S, self.window, segments_BT, key_segments_BS),
            causal=self.causal,
            key_lengths_B=key_lengths_B,
        )
        weights_BKTGS = attention_weights(q_BTNH, k_BSKH, mask_BTS, None, scores, distance_BTS)
        weights_BKGTS = jnp.swapaxes(weights_BKTGS, 2, 3)
        self.sow("intermediates", "weights", weights_BKGTS.reshape(-1, q_BTNH.shape[2], *mask_BTS.shape[1:]))

    def _output(self, x_BTNH: jax.Array) -> jax.Array:
        """The projection of the heads back to the model's width, [B, T, D]."""
        config, width = self.config, {"embed": self.config.width}
        weight = matrix(self, "output", self._query_heads, width, output_init(config))
        bias = vector(self, "output_bias", width) if "output" in bias_parts(config.bias) else None
        return project(x_BTNH.reshape(*x_BTNH.shape[:2], -1), weight, bias)

    @property
    def _query_heads(self) -> Axes:
        return {"heads": self.config.num_heads, "head": self.config.head_width}
