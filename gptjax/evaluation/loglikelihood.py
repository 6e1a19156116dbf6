"""Log-likelihoods of continuations, on all devices: a context is read once for all its continuations, in few shapes.

The continuations of one context are a group. A batch holds groups of similar lengths: their contexts are read into a
cache, each continuation starts from a copy of its context's cache, and only continuations pay for logits. Shapes are
rounded up to powers of two (of contexts also to one and a half of them), so that few programs are compiled.
Each device reads its own groups, with a copy of the parameters. The results of a batch are fetched after the next batch
is sent, so that the host prepares one batch while the devices compute another.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gptjax.inference.shapes import PIECE
from gptjax.model.family import Family

LOGITS = 1 << 25  # most float32 numbers in the logits of a device
MOST_ROWS = 8  # continuations that a device reads together; on a CPU, 64 took six times as long as 8
MOST_TOKENS = 1 << 13  # most tokens of the contexts that a device reads together
SHORTEST = 16  # tokens of the shortest shape
AXIS = "data"


@dataclasses.dataclass(frozen=True)
class Continued:
    """Tokens; those from `first` ≥ 1 on are scored, each given all before it."""

    tokens: Sequence[int]
    first: int


@dataclasses.dataclass(frozen=True)
class TokenScore:
    """nats: log-likelihood of the scored tokens; hits: how many of them are the most likely one at their place."""

    nats: float
    hits: int


@dataclasses.dataclass(frozen=True)
class _Group:
    """One context, and its continuations by the index of their request."""

    context: tuple[int, ...]
    continuations: list[tuple[int, tuple[int, ...]]]

    @property
    def shape(self) -> tuple[int, int]:
        longest = max(len(tokens) for _, tokens in self.continuations)
        # The last token is only predicted, not read. Continuations have only powers of two, for fewer programs.
        return rounded(len(self.context)), max(SHORTEST, 1 << max(longest - 2, 0).bit_length())


class LogLikelihoods:
    """Scores token sequences with a model.

    Args:
      params: from `inference.decode.decoding_params`.
      devices: the devices that read the groups; None: all of this process.
    """

    def __init__(self, family: Family, params: Any, devices: Sequence[jax.Device] | None = None):
        self.family = family
        devices = jax.local_devices() if devices is None else devices
        self.mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
        self.params = jax.device_put(params, NamedSharding(self.mesh, P()))

    def score(self, requests: Sequence[Continued]) -> Iterator[tuple[int, TokenScore]]:
        """Yields the index of each request and its score as they are computed: the longest first, so that a lack of
        memory shows at once."""
        pending: Any = None
        for batches in self._batches(requests):
            sent = batches, self._send(batches)
            if pending is not None:
                yield from self._fetched(*pending)
            pending = sent
        if pending is not None:
            yield from self._fetched(*pending)

    def _batches(self, requests: Sequence[Continued]) -> Iterator[list[list[_Group]]]:
        """Groups for each device, all of one shape."""
        filled: list[list[_Group]] = []
        most = 0, 0
        for group in sorted(_groups(requests), key=lambda group: group.shape[::-1], reverse=True):
            # Groups with shorter contexts and continuations than the first one fill up its batch.
            if filled and group.shape[0] > filled[0][0].shape[0]:
                yield filled
                filled = []
            if filled and not _fits(filled[-1], group, *most):
                if len(filled) == self.mesh.size:
                    yield filled
                    filled = []
                else:
                    filled.append([])
            if not filled:
                filled, most = [[]], self._room(group.shape)
            filled[-1].append(group)
        if filled:
            yield filled

    def _room(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Continuations and contexts that a device reads together."""
        context, length = shape
        rows = min(MOST_ROWS, LOGITS // (length * self.family.config.vocab_size))
        return max(1, rows), max(1, MOST_TOKENS // context)

    def _send(self, batches: list[list[_Group]]) -> Any:
        """Puts one batch on each device and starts the program; returns arrays that may still be in computation."""
        S, T = batches[0][0].shape
        B = 1 << (max(map(len, batches)) - 1).bit_length()
        R = 1 << (max(map(_num_rows, batches)) - 1).bit_length()
        n = self.mesh.size
        inputs: dict[str, np.ndarray] = dict(
            context_BS=np.zeros((n, B, S), np.int32),
            length_B=np.ones((n, B), np.int32),
            group_R=np.zeros((n, R), np.int32),
            tokens_RT=np.zeros((n, R, T + 1), np.int32),
            count_R=np.zeros((n, R), np.int32),
        )
        for device, groups in enumerate(batches):
            row = 0
            for number, group in enumerate(groups):
                inputs["context_BS"][device, number, : len(group.context)] = group.context
                inputs["length_B"][device, number] = len(group.context)
                for _, tokens in group.continuations:
                    inputs["group_R"][device, row] = number
                    inputs["tokens_RT"][device, row, : len(tokens)] = tokens
                    inputs["count_R"][device, row] = len(tokens)
                    row += 1
        flat = [array.reshape(-1, *array.shape[2:]) for array in inputs.values()]  # in the order of _score_rows
        placed = jax.device_put(flat, NamedSharding(self.mesh, P(AXIS)))
        return _score(self.family, self.mesh, self.params, *placed)

    def _fetched(self, batches: list[list[_Group]], made: Any) -> Iterator[tuple[int, TokenScore]]:
        nats, hits = (np.asarray(x).reshape(self.mesh.size, -1) for x in made)
        for device, groups in enumerate(batches):
            indices = [index for group in groups for index, _ in group.continuations]
            for row, index in enumerate(indices):
                yield index, TokenScore(float(nats[device, row]), int(hits[device, row]))


def rounded(length: int) -> int:
    """Rounds a length up to the length of a shape: a power of two, 1.5 times one, or whole pieces of a long prompt."""
    shape = SHORTEST
    while shape < length:
        shape = shape * 3 // 2 if shape & (shape - 1) == 0 else shape * 4 // 3
    return shape if shape <= PIECE else -(-length // PIECE) * PIECE


def _groups(requests: Sequence[Continued]) -> list[_Group]:
    by_context: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
    for index, request in enumerate(requests):
        if not 1 <= request.first < len(request.tokens):
            raise ValueError(f"request {index} scores from token {request.first} of {len(request.tokens)}")
        tokens = tuple(request.tokens)
        by_context.setdefault(tokens[: request.first], []).append((index, tokens[request.first :]))
    return [
        _Group(context, sorted(all_of_it, key=lambda each: len(each[1]))[first : first + MOST_ROWS])
        for context, all_of_it in by_context.items()
        for first in range(0, len(all_of_it), MOST_ROWS)
    ]


def _num_rows(groups: Sequence[_Group]) -> int:
    return sum(len(group.continuations) for group in groups)


def _fits(groups: Sequence[_Group], more: _Group, rows: int, contexts: int) -> bool:
    return len(groups) < contexts and _num_rows(groups) + len(more.continuations) <= rows


@functools.partial(jax.jit, static_argnums=(0, 1))
def _score(family: Family, mesh: Mesh, params: Any, *inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`_score_rows` on each device's part of the inputs."""
    program = functools.partial(_score_rows, family)
    specs = (P(), *(P(AXIS),) * len(inputs))
    return jax.shard_map(program, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)(params, *inputs)


def _score_rows(
    family: Family,
    params: Any,
    context_BS: jax.Array,
    length_B: jax.Array,
    group_R: jax.Array,
    tokens_RT: jax.Array,
    count_R: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns each row's log-likelihood of its first count_R[r] tokens after context group_R[r], and its hits."""
    T = tokens_RT.shape[1] - 1
    cache, first_BV = family.prefill(params, context_BS, length_B, room=T, piece=min(PIECE, context_BS.shape[1]))
    cache = jax.tree.map(lambda x: x[group_R], cache)
    _, rest_RTV = family.read_on(params, cache, tokens_RT[:, :-1], jnp.maximum(count_R - 1, 0))
    logits_RTV = jnp.concatenate([first_BV[group_R][:, None], rest_RTV], axis=1)
    counted_RT = jnp.arange(T + 1) < count_R[:, None]
    at_tokens_RT = jnp.take_along_axis(logits_RTV, tokens_RT[..., None], axis=-1)[..., 0]
    nats_RT = at_tokens_RT - jax.nn.logsumexp(logits_RTV, axis=-1)
    hits_RT = jnp.argmax(logits_RTV, axis=-1) == tokens_RT
    return jnp.where(counted_RT, nats_RT, 0.0).sum(axis=1), (hits_RT & counted_RT).sum(axis=1)
