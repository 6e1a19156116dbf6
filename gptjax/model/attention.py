"""Causal self-attention: one function, three backends, and the module with its projections.

- `reference`: the definition, with all T·S logits at once. What the others are tested against.
- `xla`: blocks of query rows, each against only the keys that it can see. Runs everywhere, on packed documents too.
- `cudnn`: cuDNN's flash attention; NVIDIA GPUs, bfloat16, whole documents.

Query head n reads key/value head n // (N / K). Softmax and its logits are float32 everywhere.
"""

from __future__ import annotations

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gptjax.config import ConfigError
from gptjax.model.cache import write
from gptjax.model.dropout import keep_probabilities
from gptjax.model.initialization import input_init, output_init
from gptjax.model.norm import RMSNorm
from gptjax.model.parameters import Axes, matrix, vector
from gptjax.model.position import rotate
from gptjax.model.precision import einsum, einsum_float32, project

BACKENDS = ("reference", "xla", "cudnn")
MAX_PROGRAMS = 4  # programs of query blocks that the xla backend writes out; more blocks run in loops
KEPT_POSITIONS = 256  # of sequences up to this long the xla backend keeps the softmax for the backward pass
_NO_DROPOUT = "it does not support model.attention_dropout"
_MASKED = -1e30  # finite: a query that sees no key gives numbers, not NaN


def attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    *,
    backend: str,
    window: int = 0,
    segments_BT: jax.Array | None = None,
    block: int = 64,
    dropout: float = 0.0,
    dropout_keys_B: jax.Array | None = None,
) -> jax.Array:
    """softmax(q kᵀ / sqrt(H)) v under a causal mask, [B, T, N, H]; S = T.

    Args:
      backend: one of BACKENDS (see `select_backend` for `auto`).
      window: query t sees keys t - window + 1 … t; 0: all keys up to t.
      segments_BT: int32; a query sees only keys of its own segment.
      block: query rows that the xla backend handles at a time.
      dropout: share of the probabilities that are zeroed; none without the rows' keys.

    Raises:
      ConfigError: an unknown backend, or one that cannot run these inputs; never another backend in its place.
    """
    dropped = None if dropout_keys_B is None or not dropout else (dropout, dropout_keys_B)
    if backend == "reference":
        rows = jnp.arange(q_BTNH.shape[1])
        keep = _kept(dropped, rows, rows.size, q_BTNH, k_BSKH)
        return _attend(
            q_BTNH, k_BSKH, v_BSKH, _visible(rows[None], rows[None], window, segments_BT, segments_BT), keep=keep
        )
    if backend == "xla":
        return _blocked(q_BTNH, k_BSKH, v_BSKH, window, segments_BT, block, dropped)
    if backend == "cudnn":
        if dropped:
            raise ConfigError(f"model.attention = 'cudnn': {_NO_DROPOUT}; use xla")
        return _cudnn(q_BTNH, k_BSKH, v_BSKH, window, segments_BT)
    raise ConfigError(f"model.attention = {backend!r}: expected one of {', '.join(BACKENDS)}")


def select_backend(
    requested: str,
    *,
    platform: str,
    dtype: str,
    sequence_length: int,
    head_width: int,
    packed: bool,
    dropout: bool = False,
) -> str:
    """The concrete backend for `requested`: `auto` is cudnn where it can run, else xla.

    Args:
      platform: jax.default_backend(), 'cpu' or 'gpu'. packed: batches carry segments.
      dropout: attention probabilities are dropped out.

    Raises:
      ConfigError: an unknown name, or an explicit `cudnn` that cannot run.
    """
    if requested not in ("auto", *BACKENDS):
        raise ConfigError(f"model.attention = {requested!r}: expected one of auto, {', '.join(BACKENDS)}")
    obstacle = _NO_DROPOUT if dropout else _cudnn_obstacle(dtype, sequence_length, head_width, packed)
    if platform not in ("gpu", "cuda"):
        obstacle = f"the platform is {platform}, cuDNN needs an NVIDIA GPU"
    if requested == "auto":
        return "xla" if obstacle else "cudnn"
    if requested == "cudnn" and obstacle:
        raise ConfigError(f"model.attention = 'cudnn': {obstacle}; use xla")
    return requested


def cached_attention(
    q_BTNH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    *,
    positions_BT: jax.Array,
    window: int = 0,
    block: int = 64,
) -> jax.Array:
    """Attention of T new tokens over a cache that already holds their keys: slot s has the token at position s.

    The [B, K, S, H] layout is the one that the matrix products read without a copy of the cache. A long prompt runs in
    blocks of query rows, so that its logits take block · S numbers a head and not T · S.
    """
    length = q_BTNH.shape[1]
    slots_1S = jnp.arange(k_BKSH.shape[2])[None]

    def attend(positions_Bt, q_BtNH):
        return _attend(q_BtNH, k_BKSH, v_BKSH, _visible(positions_Bt, slots_1S, window), layout="BKSH")

    if length <= block:
        return attend(positions_BT, q_BTNH)
    num_blocks = -(-length // block)
    extra = num_blocks * block - length
    queries = jnp.pad(positions_BT, ((0, 0), (0, extra))), jnp.pad(q_BTNH, ((0, 0), (0, extra), (0, 0), (0, 0)))
    queries = jax.tree.map(lambda x: _split_rows(x, num_blocks), queries)
    return _join_rows(jax.lax.map(lambda each: attend(*each), queries))[:, :length]


def _visible(rows_BT, keys_BS, window, segments_BT=None, segments_BS=None) -> jax.Array:
    """Whether query t sees key s, [B, T, S] bool, from positions in the sequence and segments; B is 1 where the rows of
    the batch do not differ."""
    distance_BTS = rows_BT[:, :, None] - keys_BS[:, None, :]
    mask_BTS = distance_BTS >= 0
    if window:
        mask_BTS &= distance_BTS < window
    if segments_BT is not None:
        mask_BTS &= segments_BT[:, :, None] == segments_BS[:, None, :]
    return mask_BTS


def _kept(dropped, rows_T, num_keys: int, q_BTNH, k_BSKH):
    """Of these query rows: which probabilities stay [B, K, T, G, S], and what they are multiplied by; None: all do."""
    if dropped is None:
        return None
    rate, keys_B = dropped
    num_kv_heads = k_BSKH.shape[2]
    keep = keep_probabilities(keys_B, rate, rows_T, num_keys, num_kv_heads, q_BTNH.shape[2] // num_kv_heads)
    return keep, 1.0 / (1.0 - rate)


def _attend(q_BTNH, k, v, mask_BTS, layout: str = "BSKH", keep=None) -> jax.Array:
    """Dense masked attention; keys and values are [B, S, K, H] or, with layout 'BKSH', [B, K, S, H]."""
    num_kv_heads = k.shape[layout.index("K")]
    batch, rows, num_heads, head_width = q_BTNH.shape
    q_BTKGH = q_BTNH.reshape(batch, rows, num_kv_heads, num_heads // num_kv_heads, head_width)
    # Axes in the order that the matrix product makes them: the logits, the largest array here, are never transposed.
    logits_BKTGS = einsum_float32(f"BTKGH,{layout}->BKTGS", q_BTKGH, k)
    logits_BKTGS = jnp.where(mask_BTS[:, None, :, None, :], logits_BKTGS * head_width**-0.5, _MASKED)
    weights_BKTGS = jax.nn.softmax(logits_BKTGS, axis=-1)
    if keep is not None:
        keep_BKTGS, scale = keep
        weights_BKTGS = jnp.where(keep_BKTGS, weights_BKTGS * scale, 0.0)
    weights_BKTGS = weights_BKTGS.astype(v.dtype)
    if layout == "BSKH":
        return einsum("BKTGS,BSKH->BTKGH", weights_BKTGS, v).reshape(q_BTNH.shape)
    # In any other order of the axes XLA:CPU multiplies the cache from the left, which is ten times slower.
    return jnp.swapaxes(einsum("BKTGS,BKSH->BKTGH", weights_BKTGS, v), 1, 2).reshape(q_BTNH.shape)


def _blocked(q_BTNH, k_BSKH, v_BSKH, window, segments_BT, block, dropped) -> jax.Array:
    """Query rows in blocks against the keys from the window's start to the block's end.

    So only the lower triangle is computed. Up to MAX_PROGRAMS blocks are written out, each with its own static key
    range; of more, neighbours share a range and run in a loop: the program stays small, and a quarter of the triangle
    more is computed at most. Beyond KEPT_POSITIONS the logits are recomputed backward and memory grows with T, not T²;
    below, what T² takes is little and the recomputation a twentieth of a step on a CPU.
    """
    length = q_BTNH.shape[1]
    whole = length // block * block
    group = block * max(1, -(-whole // (block * MAX_PROGRAMS)))
    edges = sorted({*range(0, whole, group), whole, length})
    outputs = [
        _attend_rows(q_BTNH, k_BSKH, v_BSKH, segments_BT, window, dropped, start, end, min(block, end - start))
        for start, end in itertools.pairwise(edges)
    ]
    return jnp.concatenate(outputs, axis=1)


def _attend_rows(q_BTNH, k_BSKH, v_BSKH, segments_BT, window, dropped, start: int, end: int, block: int) -> jax.Array:
    """Rows start … end - 1, a whole number of blocks."""
    low = max(0, start - window + 1) if window else 0
    width = min(end - low, block + window - 1) if window else end - low  # keys that one block reads
    keys = (k_BSKH[:, low:end], v_BSKH[:, low:end], None if segments_BT is None else segments_BT[:, low:end])
    num_blocks = (end - start) // block

    def attend(first, queries, keys):
        q_BtNH, segments_Bt = queries
        key_first = low
        if width < end - low:
            key_first = jnp.maximum(first + block - width, low)
            keys = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, key_first - low, width, axis=1), keys)
        k, v, segments_BS = keys
        rows_t = first + jnp.arange(block)
        mask = _visible(rows_t[None], (key_first + jnp.arange(width))[None], window, segments_Bt, segments_BS)
        keep = _kept(dropped, rows_t, end, q_BtNH, k)
        if keep is not None:
            keep = jax.lax.dynamic_slice_in_dim(keep[0], key_first, width, axis=-1), keep[1]
        return _attend(q_BtNH, k, v, mask, keep=keep)

    if q_BTNH.shape[1] > KEPT_POSITIONS:  # a loop keeps the two computations apart by itself
        attend = jax.checkpoint(attend, prevent_cse=num_blocks == 1)
    queries = (q_BTNH[:, start:end], None if segments_BT is None else segments_BT[:, start:end])
    if num_blocks == 1:
        return attend(start, queries, keys)
    firsts = start + block * jnp.arange(num_blocks)
    split = jax.tree.map(lambda x: _split_rows(x, num_blocks), queries)
    return _join_rows(jax.lax.map(lambda each: attend(*each, keys), (firsts, split)))


def _split_rows(x_BT, num_blocks: int) -> jax.Array:
    """[B, T, …] as [blocks, B, T / blocks, …]."""
    return jnp.moveaxis(x_BT.reshape(x_BT.shape[0], num_blocks, -1, *x_BT.shape[2:]), 1, 0)


def _join_rows(blocks) -> jax.Array:
    """The inverse: [blocks, B, T / blocks, …] as [B, T, …]."""
    joined = jnp.moveaxis(blocks, 0, 1)
    return joined.reshape(joined.shape[0], -1, *joined.shape[3:])


def _cudnn(q_BTNH, k_BSKH, v_BSKH, window, segments_BT) -> jax.Array:
    """cuDNN flash attention. Batch and heads may be sharded by an Auto mesh; the sequence may not."""
    length, head_width = q_BTNH.shape[1], q_BTNH.shape[3]
    obstacle = _cudnn_obstacle(q_BTNH.dtype.name, length, head_width, segments_BT is not None)
    if obstacle:
        raise ConfigError(f"model.attention = 'cudnn': {obstacle}; use xla")
    # Causality and window as options: a boolean mask would become an additive bias [B, N, T, S], 2.6 times slower.
    span = (window - 1, 0) if 0 < window < length else None
    try:
        return jax.nn.dot_product_attention(
            q_BTNH, k_BSKH, v_BSKH, is_causal=True, local_window_size=span, implementation="cudnn"
        )
    except RuntimeError as error:  # no cuDNN on this machine
        raise ConfigError(f"model.attention = 'cudnn': {error}; use xla") from error


def _cudnn_obstacle(dtype: str, sequence_length: int, head_width: int, packed: bool) -> str | None:
    """Why cuDNN cannot run this, or None."""
    if dtype not in ("bfloat16", "float16"):
        return f"it does not compute in {dtype}, only in bfloat16"
    if sequence_length % 2:
        return f"the sequence length must be even, not {sequence_length}"
    if head_width % 8 or head_width > 256:
        return f"the head width must be a multiple of 8 and at most 256, not {head_width}"
    if packed:
        return "it does not support packed documents"
    return None


class Attention(nn.Module):
    """Projections, QK-norm, rotation, attention, output projection."""

    config: object
    window: int

    @nn.compact
    def __call__(self, x_BTD, *, rotation=None, segments_BT=None, cache=None, dropout_keys_B=None):
        """Returns the output [B, T, D] and, given a layer's cache (keys_BKSH, values_BKSH, lengths_B), its new
        (keys_BKSH, values_BKSH)."""
        config = self.config
        width = {"embed": config.width}
        query_heads = {"heads": config.num_heads, "head": config.head_width}
        kv_heads = {"kv_heads": config.num_kv_heads, "head": config.head_width}
        use_bias = config.bias in ("qkv", "all")

        def heads(name: str, axes: Axes) -> jax.Array:
            weight = matrix(self, name, width, axes, input_init(config))
            bias = vector(self, f"{name}_bias", axes) if use_bias else None
            return project(x_BTD, weight, bias).reshape(*x_BTD.shape[:2], *axes.values())

        q_BTNH, k_BTKH, v_BTKH = heads("query", query_heads), heads("key", kv_heads), heads("value", kv_heads)
        if config.qk_norm:  # over the head width, before the rotation (Qwen3)
            q_BTNH = RMSNorm(config.norm_epsilon, axis="head", name="query_norm")(q_BTNH)
            k_BTKH = RMSNorm(config.norm_epsilon, axis="head", name="key_norm")(k_BTKH)
        if rotation is not None:
            q_BTNH, k_BTKH = rotate(q_BTNH, rotation), rotate(k_BTKH, rotation)

        if cache is None:
            out_BTNH = attention(
                q_BTNH,
                k_BTKH,
                v_BTKH,
                backend=config.attention,
                window=self.window,
                segments_BT=segments_BT,
                block=config.attention_block,
                dropout=config.attention_dropout,
                dropout_keys_B=dropout_keys_B,
            )
        else:
            keys_BKSH, values_BKSH, lengths_B = cache
            keys_BKSH = write(keys_BKSH, k_BTKH, lengths_B)
            values_BKSH = write(values_BKSH, v_BTKH, lengths_B)
            out_BTNH = cached_attention(
                q_BTNH,
                keys_BKSH,
                values_BKSH,
                positions_BT=lengths_B[:, None] + jnp.arange(x_BTD.shape[1]),
                window=self.window,
                block=config.attention_block,
            )
            cache = (keys_BKSH, values_BKSH)

        out_BTNH = checkpoint_name(out_BTNH, "attention_output")  # remat policies keep it: see decoder
        weight = matrix(self, "output", query_heads, width, output_init(config))
        bias = vector(self, "output_bias", width) if config.bias == "all" else None
        out_BTD = out_BTNH.reshape(*x_BTD.shape[:2], -1)
        return project(out_BTD, weight, bias), cache
