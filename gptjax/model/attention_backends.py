"""Attention with less memory and time than its definition takes: the backends, their selection, and what each refuses.

- `reference` is the definition, with all T·S logits at once. The others are tested against it.
- `xla` computes blocks of query rows, each with only the keys that it can see. It runs everywhere and supports packed
  documents.
- `cudnn` is cuDNN's flash attention, for NVIDIA GPUs and bfloat16. It does not support packed documents.

`in_blocks` only decides which keys a query gets. Its argument `attend` computes attention to them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gptjax.config import ConfigError
from gptjax.model.attention_plain import KEPT
from gptjax.model.blocks import join_blocks, split_blocks
from gptjax.model.position_bias import SCHEMES
from gptjax.settings import ModelSettings

BACKENDS = ("reference", "xla", "cudnn")
MAX_PROGRAMS = 4  # the maximum number of blocks that the xla backend compiles separately; more blocks run in loops
KEPT_POSITIONS = 256  # up to this sequence length, the xla backend saves the softmax for the backward pass


def select_backend(
    requested: str,
    *,
    platform: str,
    dtype: str,
    sequence_length: int,
    head_width: int,
    packed: bool,
    needs: Sequence[str] = (),
) -> str:
    """Returns the backend that `requested` stands for: `auto` is cudnn if it can run, else xla.

    Args:
      platform: the value of jax.default_backend(), such as 'cpu' or 'gpu'.
      packed: whether batches have segments.
      needs: the fields in use that act between the two products of attention (see `needs_of`). cudnn supports none.

    Raises:
      ConfigError: the name is unknown, or `cudnn` is requested and cannot run.
    """
    if requested not in ("auto", *BACKENDS):
        raise ConfigError(f"model.attention = {requested!r}: expected one of auto, {', '.join(BACKENDS)}")
    obstacle = _unsupported(needs) or _cudnn_obstacle(dtype, sequence_length, head_width, packed)
    if platform not in ("gpu", "cuda"):
        obstacle = f"the platform is {platform}, cuDNN needs an NVIDIA GPU"
    if requested == "auto":
        return "xla" if obstacle else "cudnn"
    if requested == "cudnn" and obstacle:
        raise ConfigError(f"model.attention = 'cudnn': {obstacle}; use xla")
    return requested


def needs_of(config: ModelSettings | ConfigDict) -> list[str]:
    """The fields of a model section that are in use and act between the two products of attention."""
    return _in_use(
        attention_dropout=config.attention_dropout,
        attention_softcap=config.attention_softcap,
        position=config.position in SCHEMES,
        attention_sinks=config.attention_sinks,
    )


def _in_use(**settings: bool | float) -> list[str]:
    return [f"model.{name}" for name, setting in settings.items() if setting]


def _unsupported(needs: Sequence[str]) -> str | None:
    return f"it does not support this {needs[0]}" if needs else None


def refuse_on_cudnn(**settings: bool | float) -> None:
    """Raises ConfigError if a field that acts between the two products of attention is in use."""
    if obstacle := _unsupported(_in_use(**settings)):
        raise ConfigError(f"model.attention = 'cudnn': {obstacle}; use xla")


def is_long(length: int, num_keys: int) -> bool:
    """Whether the backward pass of the xla backend recomputes the weights."""
    return max(length, num_keys) > KEPT_POSITIONS


def in_blocks(
    attend: Callable, queries: tuple[Any, ...], keys: tuple[Any, ...], *, causal: bool, window: int, block: int
) -> jax.Array:
    """Computes attention for blocks of query rows, each with only the keys that it can see.

    If causal, a block gets the keys from the start of its window to its own end, otherwise all keys. Only the lower
    triangle of causal attention is therefore computed. Up to MAX_PROGRAMS blocks are compiled separately, each with its
    own static range of keys. If there are more blocks, consecutive blocks share a range and run in a loop: the program
    stays small, and at most a quarter of the triangle is computed in addition.

    For sequences longer than KEPT_POSITIONS, the backward pass recomputes the logits, so that memory grows with T
    instead of T². For shorter ones T² is small, and recomputing would cost a twentieth of a step on a CPU.

    Args:
      queries: (q_BTNH, marks_BT), where marks are any tree of arrays [B, T].
      keys: (k_BSKH, v_BSKH, marks_BS), where marks are any tree of arrays [B, S].
      attend: attend(queries, keys, num_keys) → [B, t, N, H], with queries = (q_BtNH, rows_t, marks_Bt) and
        keys = (k_BsKH, v_BsKH, rows_s, marks_Bs). These are t and s consecutive rows of the sequence, rows_t and rows_s
        are their indices, and num_keys is a static number greater than all of rows_s.
    """
    length, num_keys = queries[0].shape[1], keys[0].shape[1]
    whole = length // block * block
    group = block * max(1, -(-whole // (block * MAX_PROGRAMS))) if causal else max(1, whole)  # one range: one loop
    edges = sorted({*range(0, whole, group), whole, length})
    outputs = [
        _attend_rows(
            attend,
            *(queries, keys, start, end),
            low=max(0, start - window + 1) if causal and window else 0,
            high=end if causal else num_keys,
            window=window if causal else 0,
            block=min(block, end - start),
        )
        for start, end in itertools.pairwise(edges)
    ]
    return jnp.concatenate(outputs, axis=1)


def _attend_rows(
    attend: Callable[..., jax.Array],
    queries: tuple[Any, ...],
    keys: tuple[Any, ...],
    start: int,
    end: int,
    *,
    low: int,
    high: int,
    window: int,
    block: int,
) -> jax.Array:
    """Attention of the query rows start … end - 1, a whole number of blocks, to the keys low … high - 1.

    With a window, each block reads only those of the keys that it needs.
    """
    recomputes = is_long(queries[0].shape[1], keys[0].shape[1])
    width = min(high - low, block + window - 1) if window else high - low  # keys that one block reads
    queries, keys = jax.tree.map(lambda x: x[:, start:end], queries), jax.tree.map(lambda x: x[:, low:high], keys)
    num_blocks = (end - start) // block

    def attend_one(first: jax.Array | int, queries: tuple[Any, ...], keys: tuple[Any, ...]) -> jax.Array:
        q_BtNH, marks_Bt = queries
        key_first: jax.Array | int = low
        if width < high - low:
            key_first = jnp.maximum(first + block - width, low)
            keys = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, key_first - low, width, axis=1), keys)
        k_BsKH, v_BsKH, marks_Bs = keys
        rows_t, rows_s = first + jnp.arange(block), key_first + jnp.arange(width)
        return attend((q_BtNH, rows_t, marks_Bt), (k_BsKH, v_BsKH, rows_s, marks_Bs), high)

    attend_block: Callable = attend_one
    if recomputes:  # in a loop the two computations are separate anyway
        policy = jax.checkpoint_policies.save_only_these_names(*KEPT)
        attend_block = jax.checkpoint(attend_one, policy=policy, prevent_cse=num_blocks == 1)
    if num_blocks == 1:
        return attend_block(start, queries, keys)
    firsts = start + block * jnp.arange(num_blocks)
    split = jax.tree.map(lambda x: split_blocks(x, num_blocks), queries)
    return join_blocks(jax.lax.map(lambda each: attend_block(*each, keys), (firsts, split)))


def cudnn(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    *,
    causal: bool,
    window: int,
    packed: bool,
    key_lengths_B: jax.Array | None = None,
    scale: float = 0.0,
) -> jax.Array:
    """Flash attention. Batch and heads may be sharded by an Auto mesh; the sequence may not."""
    length, num_keys, head_width = q_BTNH.shape[1], k_BSKH.shape[1], q_BTNH.shape[3]
    odd = length if length % 2 else num_keys
    obstacle = _cudnn_obstacle(q_BTNH.dtype.name, odd, head_width, packed)
    if window and not causal:
        obstacle = "it does not support a window (model.window) to both sides of a token"
    if obstacle:
        raise ConfigError(f"model.attention = 'cudnn': {obstacle}; use xla")
    # Causality and window are options of the kernel. A boolean mask would become an additive bias [B, N, T, S], which
    # is 2.6 times slower.
    span = (window - 1, 0) if 0 < window < length else None
    try:
        return jax.nn.dot_product_attention(
            q_BTNH,
            k_BSKH,
            v_BSKH,
            scale=scale or None,
            is_causal=causal,
            key_value_seq_lengths=key_lengths_B,
            local_window_size=span,
            implementation="cudnn",
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
