"""Attention: each token's weighted mean of the values of the tokens that it sees.

In PyTorch, for one head with queries q [T, H], keys k and values v [S, H], and a mask [T, S] that is true where a query
sees a key, attention is

    weights = softmax((q @ k.T / sqrt(H)).masked_fill(~mask, -inf))
    out = weights @ v

`attend` is this formula for all rows and heads at once. Three functions follow it: `visible` says which query sees
which key, `attention` runs one of the backends, and `cached_attention` reads keys and values from a cache. The layer
with its projections is in `attention_layer`, the softmax in `attention_scores`, and the forms that take less memory and
time are in `attention_backends`.

N query heads share K key/value heads in groups of G = N / K: query head n reads key/value head n // G. The softmax and
its logits are always float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gptjax.config import ConfigError
from gptjax.model.attention_backends import BACKENDS, cudnn, in_blocks, is_long, refuse_on_cudnn
from gptjax.model.attention_plain import attend_plain
from gptjax.model.attention_scores import PLAIN, Scores, softmax
from gptjax.model.blocks import join_blocks, split_blocks
from gptjax.model.dropout import keep_probabilities
from gptjax.model.one_row import unmerged
from gptjax.model.precision import einsum, einsum_float32


def attend(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask_BTS: jax.Array,
    kept: tuple[jax.Array, float] | None = None,
    scores: Scores = PLAIN,
    distance_BTS: jax.Array | None = None,
) -> jax.Array:
    """The definition of attention: softmax(q kᵀ / sqrt(H)) v, [B, T, N, H].

    Queries may come from another sequence than keys and values. Only `mask_BTS` (bool) says which query sees which key.
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
    """softmax(q kᵀ / sqrt(H)), float32 [B, K, T, G, S]: the weight of each value for each query."""
    B, T, _, H = q_BTNH.shape
    q_BTKGH = q_BTNH.reshape(B, T, k_BSKH.shape[2], -1, H)
    # The axes keep the order that the matrix product produces, so that the logits, the largest array here, are never
    # transposed.
    logits_BKTGS = einsum_float32("BTKGH,BSKH->BKTGS", q_BTKGH, k_BSKH) * (scores.scale or H**-0.5)
    return softmax(logits_BKTGS, mask_BTS, kept, scores, distance_BTS)


class Branches(NamedTuple):
    """Describes rows of texts that branch: what several texts begin with, a row contains only once.

    A row holds trees of tokens. All tokens that follow a token in some text stand directly after it, text by text
    (depth first). A token sees the tokens on the path from the root of its tree to itself.

    Attributes:
      ends_BT: int32; the last place in the row with a token that follows this one in some text; the token's own place
        if none does. The token is seen from its own place up to this one.
      positions_BT: int32; the position of each token in its text. Distances are computed from these, because a branch
        need not stand directly after its beginning.
    """

    ends_BT: jax.Array
    positions_BT: jax.Array


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

    A query does not see keys that come later (if causal), keys that are `window` rows or more away (0: no limit), or
    keys of another segment. B is 1 if the mask is the same for all rows of the batch.

    Args:
      rows_BT: the queries' places in the sequence.
      rows_BS: the keys' places.
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


def visible_in_trees(
    queries: tuple[jax.Array, Branches], keys: tuple[jax.Array, Branches], window: int = 0
) -> tuple[jax.Array, jax.Array]:
    """As `visible`, causal, for texts that branch.

    queries, keys: the places of consecutive tokens in their row, [t] and [s], and their Branches.
    """
    (rows_t, of_queries), (rows_s, of_keys) = queries, keys
    mask_BTS = (rows_s <= rows_t[:, None]) & (rows_t[:, None] <= of_keys.ends_BT[:, None, :])
    distance_BTS = of_queries.positions_BT[:, :, None] - of_keys.positions_BT[:, None, :]
    if window:
        mask_BTS &= distance_BTS < window
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
    heads_in_turn: bool = True,
) -> jax.Array:
    """Attention [B, T, N, H], computed by one of the backends.

    The keys belong to the queries' own sequence or, if not causal, possibly to another one. A query that sees no key,
    for example because its segment has none, gets the mean of the values.

    Args:
      backend: one of BACKENDS (see `select_backend` for `auto`).
      causal: if True, query t sees the keys up to t, and S = T; otherwise it sees all keys, and S may differ from T.
      window: query t sees keys t - window + 1 … t and, if not causal, as many keys after t. 0: all.
      segments_BT: int32; a query sees only keys of its own segment.
      key_segments_BS: the segments of the keys; None: `segments_BT`.
      key_lengths_B: int32, at least 1; the number of keys in each row, which padding follows. None: S.
      branches: describes rows of texts that branch; None: no text does. They take the place of segments.
      block: the number of query rows that the xla backend handles at a time.
      dropout: the share of the weights that are set to zero if `dropout_keys_B` is given.
      heads_in_turn: whether a CPU may take one head of texts that branch after the other: not if devices divide them.

    Raises:
      ConfigError: the backend is unknown or cannot run these inputs. No other backend silently replaces it.
    """
    T, S = q_BTNH.shape[1], k_BSKH.shape[1]
    if causal and (S != T or key_segments_BS is not None or key_lengths_B is not None):
        raise ValueError("causal attention takes as many keys as queries, and neither segments nor lengths of the keys")
    if S != T and (segments_BT is None) != (key_segments_BS is None):
        raise ValueError("give both segments_BT and key_segments_BS, or neither, where S differs from T")
    key_segments_BS = segments_BT if key_segments_BS is None else key_segments_BS
    keys_B = dropout_keys_B if dropout else None
    if backend == "cudnn":
        if branches is not None:
            raise ConfigError("model.attention = 'cudnn': it does not support texts that branch; use xla")
        refuse_on_cudnn(
            attention_dropout=keys_B is not None,
            attention_softcap=scores.softcap,
            position=scores.bias is not None,
            attention_sinks=scores.sinks_N is not None,
        )
        return cudnn(
            *(q_BTNH, k_BSKH, v_BSKH),
            causal=causal,
            window=window,
            scale=scores.scale,
            packed=segments_BT is not None,
            key_lengths_B=key_lengths_B,
        )

    # Texts that branch are not trained on, so that the softmax of short ones need not be kept either.
    recomputes = is_long(T, S) or branches is not None
    is_plain = backend == "xla" and recomputes and keys_B is None and scores.only_scale
    attend_rows = _attention_of_rows(causal, window, key_lengths_B, dropout, keys_B, scores, is_plain)
    marks_BT, marks_BS = (segments_BT, branches), (key_segments_BS, branches)
    if backend == "reference":
        return attend_rows((q_BTNH, jnp.arange(T), marks_BT), (k_BSKH, v_BSKH, jnp.arange(S), marks_BS), S)
    if backend == "xla":
        reach = 0 if branches is not None else window  # tokens that are near in a branch may be far apart in the row
        blocks = functools.partial(in_blocks, attend_rows, causal=causal, window=reach, block=block)
        if not is_plain:
            return blocks((q_BTNH, marks_BT), (k_BSKH, v_BSKH, marks_BS))
        # Heads are moved to the front once for all blocks, so that a block of rows is contiguous in each product.
        q_BTKGH = q_BTNH.reshape(*q_BTNH.shape[:2], k_BSKH.shape[2], -1, q_BTNH.shape[3])
        inputs = q_BTKGH, k_BSKH, v_BSKH
        of_heads = jax.vmap(lambda q, k, v: blocks((q, marks_BT), (k, v, marks_BS)), in_axes=2, out_axes=2)
        if branches is None or not heads_in_turn:
            return of_heads(*inputs).reshape(q_BTNH.shape)

        def in_turn(*inputs: jax.Array) -> jax.Array:
            """Nothing is saved for a gradient, so a processor can take one head after the other: its rotated keys then
            exist as an array, and are not rotated and moved anew for each block of queries that reads them."""
            each = tuple(jnp.moveaxis(x, 2, 0) for x in inputs)
            made = jax.lax.map(lambda head: blocks((head[0], marks_BT), (*head[1:], marks_BS)), each)
            return jnp.moveaxis(made, 0, 2)

        return jax.lax.platform_dependent(*inputs, cpu=in_turn, default=of_heads).reshape(q_BTNH.shape)
    raise ConfigError(f"model.attention = {backend!r}: expected one of {', '.join(BACKENDS)}")


def _attention_of_rows(
    causal: bool,
    window: int,
    key_lengths_B: jax.Array | None,
    dropout: float,
    dropout_keys_B: jax.Array | None,
    scores: Scores,
    is_plain: bool,
) -> Callable[[tuple[Any, ...], tuple[Any, ...], int], jax.Array]:
    """Returns a function that applies the definition to some rows of queries and keys.

    It has the arguments that `in_blocks` describes. Its marks are (segments, branches), and both may be None. If
    `is_plain`, the rows are those of one key/value head: q_BtGH, k_BsH and v_BsH.
    """

    def attend_rows(queries: tuple[Any, ...], keys: tuple[Any, ...], num_keys: int) -> jax.Array:
        q_BtNH, rows_t, (segments_Bt, branches_Bt) = queries
        k_BsKH, v_BsKH, rows_s, (segments_Bs, branches_Bs) = keys
        kept = None
        if dropout_keys_B is not None:
            K = k_BsKH.shape[2]
            drawn = keep_probabilities(dropout_keys_B, dropout, rows_t, num_keys, K, q_BtNH.shape[2] // K)
            kept = jax.lax.dynamic_slice_in_dim(drawn, rows_s[0], rows_s.size, axis=-1), 1.0 / (1.0 - dropout)
        if branches_Bt is not None:
            mask_Bts, distance_Bts = visible_in_trees((rows_t, branches_Bt), (rows_s, branches_Bs), window)
        else:
            mask_Bts, distance_Bts = visible(
                *(rows_t[None], rows_s[None], window, segments_Bt, segments_Bs),
                causal=causal,
                key_lengths_B=key_lengths_B,
            )
        if is_plain:
            return attend_plain(scores.scale or q_BtNH.shape[-1] ** -0.5, q_BtNH, k_BsKH, v_BsKH, mask_Bts)
        return attend(q_BtNH, k_BsKH, v_BsKH, mask_Bts, kept, scores, distance_Bts)

    return attend_rows


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
    """Attention of T new tokens over a cache that already holds their keys.

    Slot s of the cache has the token at position s. If not causal, the cache is that of another stream, which has
    `key_lengths_B[b]` ≥ 1 tokens in row b.

    The matrix products read the layout [B, K, S, H] without copying the cache. A long prompt is processed in blocks of
    query rows, so that its logits take block · S numbers per head instead of T · S.
    """
    length = q_BTNH.shape[1]
    slots_1S = jnp.arange(k_BKSH.shape[2])[None]

    def attend_rows(positions_Bt: jax.Array, q_BtNH: jax.Array) -> jax.Array:
        H = q_BtNH.shape[-1]
        q_BtKGH = q_BtNH.reshape(*q_BtNH.shape[:2], k_BKSH.shape[1], -1, H)
        is_alone = causal and q_BtNH.shape[:2] == (1, 1)
        if is_alone:
            products_BKtGS = _keys_first(q_BtKGH, k_BKSH, positions_Bt[0, 0])
        else:
            products_BKtGS = _queries_first(q_BtKGH, k_BKSH)
        logits_BKtGS = products_BKtGS * (scores.scale or H**-0.5)
        mask_BtS, distance_BtS = visible(positions_Bt, slots_1S, window, causal=causal, key_lengths_B=key_lengths_B)
        weights_BKtGS = softmax(logits_BKtGS, mask_BtS, None, scores, distance_BtS).astype(v_BKSH.dtype)
        values_BKSH = unmerged(v_BKSH, positions_Bt[0, 0]) if is_alone else v_BKSH
        # With any other order of the axes, the cache is the left operand on XLA:CPU, which is ten times slower.
        return jnp.swapaxes(einsum("BKTGS,BKSH->BKTGH", weights_BKtGS, values_BKSH), 1, 2).reshape(q_BtNH.shape)

    if length <= block:
        return attend_rows(positions_BT, q_BTNH)
    num_blocks = -(-length // block)
    extra = num_blocks * block - length
    queries = jnp.pad(positions_BT, ((0, 0), (0, extra))), jnp.pad(q_BTNH, ((0, 0), (0, extra), (0, 0), (0, 0)))
    queries = jax.tree.map(lambda x: split_blocks(x, num_blocks), queries)
    return join_blocks(jax.lax.map(lambda each: attend_rows(*each), queries))[:, :length]


_queries_first = functools.partial(einsum_float32, "BTKGH,BKSH->BKTGS")


def _keys_first(q_BTKGH: jax.Array, k_BKSH: jax.Array, position: jax.Array) -> jax.Array:
    """`_queries_first` of the single query at this position. On a CPU, the cache is not transposed for that."""

    def keys_first(q_BTKGH: jax.Array, k_BKSH: jax.Array) -> jax.Array:
        return jnp.moveaxis(einsum_float32("BKSH,BTKGH->BKSTG", unmerged(k_BKSH, position), q_BTKGH), 2, 4)

    return jax.lax.platform_dependent(q_BTKGH, k_BKSH, cpu=keys_first, default=_queries_first)
