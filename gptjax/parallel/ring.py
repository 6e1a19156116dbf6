"""Ring attention: the keys and values of a divided sequence pass from device to device (arXiv:2310.01889).

Each device keeps its queries. In each step it attends to the keys and values that it holds, starting with its own,
while it sends them to the next device and receives those of the previous one. Partial outputs are merged by the
logarithms of their sums of exponentials, as in flash attention (arXiv:2205.14135). For the backward pass, only the
outputs and the final logarithms are saved: keys and values pass round the ring again together with their gradients, and
logits are recomputed.

With causal attention, a device with early tokens would see few keys and one with late tokens many. Each device
therefore gets one part from the start of the sequence and one from its end ("zigzag"; Llama 3, arXiv:2407.21783,
section 3.3.2). With C devices and 2 C parts, device i has the parts i and 2 C - 1 - i:

    device 0   0 7        step 0, own keys:    part i sees itself, part 2 C - 1 - i sees both
    device 1   1 6        keys of an earlier device: both parts see the first one of the keys
    device 2   2 5        keys of a later device: the last part sees both of the keys
    device 3   3 4

After the first step, every device computes two pairs of parts per step, and no pair is fully masked. A layer with a
window leaves tokens where they are: its work is already equal, and keys travel only as far as the window reaches. So
does attention that is not causal, such as that of a decoder to an encoder's output, a sequence with its own length.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from gptjax.model.attention import visible
from gptjax.model.attention_scores import MASKED
from gptjax.model.precision import einsum_float32
from gptjax.model.softcap import softcap


@dataclasses.dataclass(frozen=True)
class Ring:
    """What each device computes in each step, and how attention is modified.

    Attributes:
      axis: the mesh axis over which the sequence is divided, of `size` devices.
      length: number of tokens of each row per device.
      window, causal: as for `attention`.
      block: the maximum number of queries whose logits exist at once.
      scale, softcap: see `attention_scores.Scores`.
      bias: a function from the distances of keys before their queries, [B, T, S], to a term that is added to the logits
        of this device's heads; None: no term.
      of_keys: number of keys of each row per device, if they belong to another sequence; None: they are the queries'
        own sequence.
    """

    axis: str
    size: int
    length: int
    causal: bool
    window: int
    block: int
    scale: float
    softcap: float
    bias: Callable[..., Array] | None
    of_keys: int | None = None

    @property
    def key_length(self) -> int:
        return self.length if self.of_keys is None else self.of_keys

    @property
    def steps(self) -> int:
        """The number of devices whose keys a device sees, itself included."""
        if self.causal and self.window:
            return min(self.size, 1 - (1 - self.window) // self.length)
        return self.size

    @property
    def is_zigzag(self) -> bool:
        return self.causal and not self.window and self.length % 2 == 0

    @property
    def queries(self) -> int:
        """Queries per block: the largest allowed number that divides a device's part evenly."""
        part = self.length // 2 if self.is_zigzag else self.length
        return max(size for size in range(1, min(part, self.block) + 1) if part % size == 0)

    @property
    def keys(self) -> int:
        """Keys that a block of queries reads per step."""
        if self.is_zigzag:
            return self.length // 2
        windowed = self.causal and self.window
        return min(self.length, self.queries + self.window - 1) if windowed else self.key_length

    def key_rows(self, device: Any) -> Array:
        """Positions of a device's keys in their sequence, [key_length]."""
        return self.rows(device) if self.of_keys is None else device * self.of_keys + jnp.arange(self.of_keys)

    def rows(self, device: Any) -> Array:
        """Positions of a device's queries in the sequence, [length]."""
        if not self.is_zigzag:
            return device * self.length + jnp.arange(self.length)
        half = self.length // 2
        return jnp.concatenate([start * half + jnp.arange(half) for start in (device, 2 * self.size - 1 - device)])

    def blocks(self, device: Any, step: Any) -> tuple[Array, Array]:
        """The first query of each block of a step, and the first key that the block reads, as indices of local tokens.

        step: 0, or an array that is not 0.
        """
        source = (device - step) % self.size
        if self.is_zigzag:
            half = self.length // 2
            starts = jnp.arange(0, half, self.queries)
            if isinstance(step, int) and step == 0:
                pairs: list[tuple[Any, Any]] = [(0, 0), (half, 0), (half, half)]
            else:
                of_both = jnp.where(source < device, 0, half)
                pairs = [(half, 0), (of_both, of_both)]
            of_queries = jnp.concatenate([queries + starts for queries, _ in pairs])
            return of_queries, jnp.concatenate([keys + jnp.zeros_like(starts) for _, keys in pairs])
        starts = jnp.arange(0, self.length, self.queries)
        if self.keys == self.key_length:
            return starts, jnp.zeros_like(starts)
        first_seen = starts + (device - source) * self.length - self.window + 1
        return starts, jnp.clip(first_seen, 0, self.length - self.keys)


Segments = tuple[Array | None, Array | None]  # of the queries, and of the keys; None: as those of the queries


def attended(
    ring: Ring, q_btnh: Array, k_bskh: Array, v_bskh: Array, segments: Segments, sinks_n: Array | None
) -> tuple[Array, tuple[Any, ...]]:
    """Attention over sequences of which each device of a `shard_map` has consecutive tokens: `ring.length` of the
    queries' sequence, `ring.key_length` of the keys'.

    Args:
      sinks_n: see `attention_scores.Scores`.

    Returns:
      the output, and what `gradients` needs besides the sinks: queries, keys, values, segments, outputs, and the
      logarithms of the sums of exponentials [b, t, K, G].
    """
    sequence = (q_btnh, k_bskh, v_bskh, segments)
    if ring.is_zigzag:
        sequence = jax.tree.map(functools.partial(_to_zigzag, ring), sequence)
    out_btnh, lse_btkg = _forward(ring, *sequence, sinks_n)
    return _from_zigzag(ring, out_btnh) if ring.is_zigzag else out_btnh, (*sequence, out_btnh, lse_btkg)


def gradients(
    ring: Ring, kept: tuple[Any, ...], sinks_n: Array | None, gradient_btnh: Array
) -> tuple[Array, Array, Array, Array | None]:
    """The gradients of queries, keys and values, and this device's part of that of the sinks."""
    if ring.is_zigzag:
        gradient_btnh = _to_zigzag(ring, gradient_btnh)
    *of_sequence, of_sinks = _backward(ring, kept, sinks_n, gradient_btnh)
    if ring.is_zigzag:
        of_sequence = [_from_zigzag(ring, x) for x in of_sequence]
    return (*of_sequence, of_sinks)


def _forward(
    ring: Ring, q_btnh: Array, k_bskh: Array, v_bskh: Array, segments: Segments, sinks_n: Array | None
) -> tuple[Array, Array]:
    b, t, n, h = q_btnh.shape
    K = k_bskh.shape[2]
    device = lax.axis_index(ring.axis)
    q_btkgh = q_btnh.reshape(b, t, K, -1, h)
    queries = q_btkgh, ring.rows(device), segments[0]

    def attend_step(state: Any, keys: Any, step: Any) -> Any:
        """Merges attention to these keys into (outputs, logarithms of the sums of exponentials)."""
        rows_s = ring.key_rows((device - step) % ring.size)

        def attend_block(state: tuple[Array, Array], starts: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            (q_bqkgh, *facts_q), (k_bskh, v_bskh, *facts_s) = _block(
                ring, starts, queries, (*keys[:2], rows_s, keys[2])
            )
            logits_bkqgs, mask_b1q1s = _logits(ring, q_bqkgh, k_bskh, facts_q, facts_s)
            out_bqkgh, lse_bqkg = (_part(x, starts[0], ring.queries) for x in state)
            logits_bkqgs = jnp.where(mask_b1q1s, logits_bkqgs, MASKED)
            of_block = jnp.swapaxes(jax.nn.logsumexp(logits_bkqgs, axis=-1), 1, 2)
            total_bqkg = jnp.logaddexp(lse_bqkg, of_block)
            shares_bkqgs = _shares(logits_bkqgs, mask_b1q1s, total_bqkg).astype(v_bskh.dtype)
            out_bqkgh *= jnp.exp(lse_bqkg - total_bqkg)[..., None]
            out_bqkgh += einsum_float32("BKTGS,BSKH->BTKGH", shares_bkqgs, v_bskh)
            out_btkgh, lse_btkg = state
            return (_put(out_btkgh, starts[0], out_bqkgh), _put(lse_btkg, starts[0], total_bqkg)), None

        return lax.scan(attend_block, state, ring.blocks(device, step))[0]

    start = (
        jnp.zeros_like(q_btkgh, jnp.float32),
        jnp.zeros_like(q_btkgh[..., 0], jnp.float32) + (MASKED if sinks_n is None else sinks_n.reshape(K, -1)),
    )
    out, lse_btkg = _around(ring, attend_step, start, (k_bskh, v_bskh, _of_keys(segments)))
    return out.astype(q_btnh.dtype).reshape(b, t, n, h), lse_btkg


def _backward(ring: Ring, kept: tuple[Any, ...], sinks_n: Array | None, gradient_btnh: Array) -> tuple[Any, ...]:
    q_btnh, k_bskh, v_bskh, segments, out_btnh, lse_btkg = kept
    device = lax.axis_index(ring.axis)
    by_group = (*q_btnh.shape[:2], k_bskh.shape[2], -1, q_btnh.shape[3])
    q_btkgh, out_btkgh, gradient_btkgh = (x.reshape(by_group) for x in (q_btnh, out_btnh, gradient_btnh))
    mean_btkg = einsum_float32("BTKGH,BTKGH->BTKG", gradient_btkgh, out_btkgh.astype(gradient_btkgh.dtype))
    queries = q_btkgh, ring.rows(device), segments[0], gradient_btkgh, lse_btkg, mean_btkg

    def step_back(state: Any, keys: Any, step: Any) -> Any:
        """Adds to the gradients of queries, and to the gradients of keys and values, which travel with their keys."""
        rows_s = ring.key_rows((device - step) % ring.size)
        of_queries, of_keys = state
        of_keys = _sent(ring, of_keys) if of_keys is not None else None

        def block_back(sums: Any, starts: tuple[Array, Array]) -> tuple[Any, None]:
            of_queries, of_k, of_v = sums
            (q_bqkgh, *facts_q), (k_bskh, v_bskh, *facts_s) = _block(
                ring, starts, queries, (*keys[:2], rows_s, keys[2])
            )
            *facts_q, gradient_bqkgh, lse_bqkg, mean_bqkg = facts_q

            def logits(q: Array, k: Array) -> tuple[Array, Array]:
                return _logits(ring, q, k, facts_q, facts_s)

            logits_bkqgs, pullback, mask_b1q1s = jax.vjp(logits, q_bqkgh, k_bskh, has_aux=True)
            shares_bkqgs = _shares(logits_bkqgs, mask_b1q1s, lse_bqkg)
            dv_bskh = einsum_float32("BKTGS,BTKGH->BSKH", shares_bkqgs.astype(v_bskh.dtype), gradient_bqkgh)
            of_shares_bkqgs = einsum_float32("BTKGH,BSKH->BKTGS", gradient_bqkgh, v_bskh)
            of_shares_bkqgs -= jnp.swapaxes(mean_bqkg, 1, 2)[..., None]
            dq_bqkgh, dk_bskh = pullback(shares_bkqgs * of_shares_bkqgs)
            of_queries = _add(of_queries, starts[0], dq_bqkgh)
            return (of_queries, _add(of_k, starts[1], dk_bskh), _add(of_v, starts[1], dv_bskh)), None

        zeros = [jnp.zeros_like(x, jnp.float32) for x in (k_bskh, v_bskh)]
        sums, _ = lax.scan(block_back, (of_queries, *zeros), ring.blocks(device, step))
        of_queries, *added = sums
        return of_queries, added if of_keys is None else jax.tree.map(jnp.add, of_keys, added)

    start = jnp.zeros_like(q_btkgh, jnp.float32), None
    dq, of_keys = _around(ring, step_back, start, (k_bskh, v_bskh, _of_keys(segments)))
    dk, dv = _sent(ring, of_keys, 1 - ring.steps)
    d_sinks = None
    if sinks_n is not None:
        sinks_kg = sinks_n.astype(jnp.float32).reshape(mean_btkg.shape[2:])
        d_sinks = -jnp.sum(jnp.exp(sinks_kg - lse_btkg) * mean_btkg, axis=(0, 1)).reshape(-1).astype(sinks_n.dtype)
    return (
        dq.astype(q_btnh.dtype).reshape(q_btnh.shape),
        dk.astype(k_bskh.dtype),
        dv.astype(v_bskh.dtype),
        d_sinks,
    )


def _of_keys(segments: Segments) -> Array | None:
    return segments[0] if segments[1] is None else segments[1]


def _around(ring: Ring, step: Callable[[Any, Any, Any], Any], state: Any, keys: Any) -> Any:
    """Calls step(state, keys, number) for the keys of one device after another, which are sent on while it computes."""
    following = _sent(ring, keys) if ring.steps > 1 else None
    state = step(state, keys, 0)

    def turn(carry: tuple[Any, Any], number: Array) -> tuple[tuple[Any, Any], None]:
        state, keys = carry
        return (step(state, keys, number), _sent(ring, keys)), None

    if ring.steps > 2:
        (state, following), _ = lax.scan(turn, (state, following), jnp.arange(1, ring.steps - 1))
    return state if ring.steps == 1 else step(state, following, jnp.int32(ring.steps - 1))


def _sent(ring: Ring, tree: Any, shift: int = 1) -> Any:
    """Sends arrays to the device that is `shift` places further along the ring."""
    if shift % ring.size == 0:
        return tree
    return lax.ppermute(tree, ring.axis, [(i, (i + shift) % ring.size) for i in range(ring.size)])


def _block(ring: Ring, starts: tuple[Array, Array], queries: Any, keys: Any) -> tuple[Any, Any]:
    """A block of queries and the keys that it reads. One-dimensional arrays belong to positions; the others are [b, t,
    …]."""

    def cut(start: Array, size: int, x: Array) -> Array:
        return _part(x, start, size, axis=min(1, x.ndim - 1))

    of_queries = jax.tree.map(functools.partial(cut, starts[0], ring.queries), queries)
    return of_queries, jax.tree.map(functools.partial(cut, starts[1], ring.keys), keys)


def _logits(ring: Ring, q_bqkgh: Array, k_bskh: Array, facts_q: Any, facts_s: Any) -> tuple[Array, Array]:
    """The logits [b, K, q, G, s] of a block in float32, and which of them are not masked, [b, 1, q, 1, s]."""
    (rows_q, segments_bq), (rows_s, segments_bs) = facts_q, facts_s
    mask_bqs, distance_bqs = visible(
        *(rows_q[None], rows_s[None], ring.window, segments_bq, segments_bs), causal=ring.causal
    )
    logits_bkqgs = einsum_float32("BTKGH,BSKH->BKTGS", q_bqkgh, k_bskh) * (ring.scale or q_bqkgh.shape[-1] ** -0.5)
    logits_bkqgs = softcap(logits_bkqgs, ring.softcap)
    if ring.bias is not None:
        bias_bnqs = ring.bias(distance_bqs)
        K, G = logits_bkqgs.shape[1], logits_bkqgs.shape[3]
        by_group = bias_bnqs.reshape(bias_bnqs.shape[0], K, G, *bias_bnqs.shape[2:])
        logits_bkqgs += jnp.swapaxes(by_group, 2, 3)
    return logits_bkqgs, mask_bqs[:, None, :, None]


def _shares(logits_bkqgs: Array, mask_b1q1s: Array, lse_bqkg: Array) -> Array:
    lse_bkqg1 = jnp.swapaxes(lse_bqkg, 1, 2)[..., None]
    return jnp.where(mask_b1q1s, jnp.exp(logits_bkqgs - lse_bkqg1), 0.0)


def _part(x: Array, start: Any, size: int, axis: int = 1) -> Array:
    return lax.dynamic_slice_in_dim(x, start, size, axis)


def _put(x: Array, start: Any, part: Array) -> Array:
    return lax.dynamic_update_slice_in_dim(x, part.astype(x.dtype), start, 1)


def _add(x: Array, start: Any, part: Array) -> Array:
    return _put(x, start, _part(x, start, part.shape[1]) + part.astype(x.dtype))


def _to_zigzag(ring: Ring, x_bt: Array) -> Array:
    """Exchanges parts of the sequence: device i has parts 2 i and 2 i + 1, and gets parts i and 2 C - 1 - i."""
    is_even, parts = lax.axis_index(ring.axis) % 2 == 0, jnp.split(x_bt, 2, axis=1)
    even, odd = (lax.ppermute(x, ring.axis, _homes(ring, slot)) for slot, x in enumerate(parts))
    return jnp.concatenate([jnp.where(is_even, even, odd), jnp.where(is_even, odd, even)], axis=1)


def _from_zigzag(ring: Ring, x_bt: Array) -> Array:
    is_even, (first, last) = lax.axis_index(ring.axis) % 2 == 0, jnp.split(x_bt, 2, axis=1)
    parts = jnp.where(is_even, first, last), jnp.where(is_even, last, first)
    sent = [
        lax.ppermute(x, ring.axis, [(goal, source) for source, goal in _homes(ring, slot)])
        for slot, x in enumerate(parts)
    ]
    return jnp.concatenate(sent, axis=1)


def _homes(ring: Ring, slot: int) -> list[tuple[int, int]]:
    """Pairs (device, device that has its part `slot`, 0 or 1, in zigzag order)."""
    return [(i, min(2 * i + slot, 2 * ring.size - 1 - (2 * i + slot))) for i in range(ring.size)]
