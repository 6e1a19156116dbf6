"""Log-likelihoods of continuations in batches of few shapes, on all devices. A shared context is read only once.

The continuations of one context form a group, which takes a contiguous part of a row: the context, then each
continuation without its last token, which is only predicted. Continuations are branches of the context: each sees the
context and itself, as if it followed the context directly (`attention.Branches`). A row holds several groups, as rows
in training hold several documents, so that a forward pass uses the whole device and has little padding. Logits are
computed only at positions that predict a continuation. An encoder–decoder reads contexts as its sources, and
continuations as branches without a common beginning.

Each device reads its own rows with a copy of the parameters. A batch is sent before the results of the previous one are
fetched, so that the host prepares a batch while the devices compute.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gptjax.model.family import Family
from gptjax.model.precision import project_float32
from gptjax.model.softcap import softcap

TOKENS = {"cpu": 1 << 10}  # tokens that a device reads together, by platform: on a CPU, more tokens are not faster
MOST_TOKENS = 1 << 14  # on any other platform
LOGITS = 1 << 25  # maximum number of a device's float32 logits
SHORTEST = 256  # tokens of the shortest row; a quarter of that for a source
AXIS = "data"


@dataclasses.dataclass(frozen=True)
class Continued:
    """A sequence of tokens. Those from `first` ≥ 1 on are scored, each given all tokens before it."""

    tokens: Sequence[int]
    first: int


@dataclasses.dataclass(frozen=True)
class TokenScore:
    """The score of a sequence.

    Attributes:
      nats: the log-likelihood of the scored tokens.
      hits: the number of scored tokens that are the most likely one at their position.
    """

    nats: float
    hits: int


@dataclasses.dataclass(frozen=True)
class _Group:
    """One context and its continuations, by the index of their requests.

    size: the number of tokens that it takes in a row, and in a row's source.
    """

    context: tuple[int, ...]
    continuations: list[tuple[int, tuple[int, ...]]]
    size: tuple[int, int]


@dataclasses.dataclass
class _Row:
    """Groups that are read in one row, and the remaining room."""

    groups: list[_Group]
    left: tuple[int, int]


class LogLikelihoods:
    """Scores token sequences with a model.

    Args:
      params: from `inference.decode.decoding_params`.
      devices: the devices that read the rows; None: all devices of this process.
    """

    def __init__(self, family: Family, params: Any, devices: Sequence[jax.Device] | None = None):
        # Some training settings are replaced: branches need a mask, and nothing is saved for a gradient.
        forward = dataclasses.replace(family.config, attention="xla", layers="unroll", remat="none")
        self.family = dataclasses.replace(family, config=forward)
        devices = jax.local_devices() if devices is None else devices
        self.mesh = mesh_of(devices)
        self.params = jax.device_put(params, NamedSharding(self.mesh, P()))
        self.tokens = TOKENS.get(devices[0].platform, MOST_TOKENS)

    def score(self, requests: Sequence[Continued]) -> Iterator[tuple[int, TokenScore]]:
        """Yields the index of each request and its score in the order of computation: longest first, so that too little
        memory is detected at once."""
        pending: Any = None
        for shape, rows in self._batches(requests):
            sent = rows, self._send(shape, rows)
            if pending is not None:
                yield from self._fetched(*pending)
            pending = sent
        if pending is not None:
            yield from self._fetched(*pending)

    def _batches(self, requests: Sequence[Continued]) -> Iterator[tuple[tuple[int, int], list[_Row]]]:
        """Batches of rows of one shape, with at most as many rows as all devices read together."""
        waiting = sorted(self._groups(requests), key=lambda group: group.size)  # the longest are taken from the end
        shape, rows = (0, 0), list[_Row]()
        while waiting:
            wanted = rounded(waiting[-1].size[0], SHORTEST), rounded(waiting[-1].size[1], SHORTEST // 4)
            if rows and (wanted[0] != shape[0] or wanted[1] > shape[1] or len(rows) == self._num_rows(shape)):
                yield shape, rows
                rows = []
            if not rows:
                shape = wanted
            rows.append(_filled(waiting, shape, one=not self.family.branches))
        if rows:
            yield shape, rows

    def _num_rows(self, shape: tuple[int, int]) -> int:
        return self.mesh.size * max(1, self.tokens // sum(shape))

    def _groups(self, requests: Sequence[Continued]) -> Iterator[_Group]:
        """The continuations of each context as one group, or as several groups, which each read the context again, if
        one would take more than a batch and more than twice the context."""
        by_context: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
        for index, request in enumerate(requests):
            if not 1 <= request.first < len(request.tokens):
                raise ValueError(f"request {index} scores from token {request.first} of {len(request.tokens)}")
            tokens = tuple(request.tokens)
            by_context.setdefault(tokens[: request.first], []).append((index, tokens[request.first :]))
        for context, continuations in by_context.items():
            own, source = (len(context), 0) if self.family.continues else (0, len(context) - 1)
            begin = 0 if self.family.continues else 1  # a target starts with the token at the end of the prompt
            room = max(self.tokens, 2 * own)
            some: list[tuple[int, tuple[int, ...]]] = []
            size = own
            for each in continuations:
                more = begin + len(each[1]) - 1
                if some and (size + more > room or not self.family.branches):
                    yield _Group(context, some, (size, source))
                    some, size = [], own
                some.append(each)
                size += more
            yield _Group(context, some, (size, source))

    def _send(self, shape: tuple[int, int], rows: list[_Row]) -> Any:
        """Divides the rows over the devices and starts the program; does not wait for the returned arrays."""
        length, source_length = shape
        n = self.mesh.size
        B = 1 << (-(-len(rows) // n) - 1).bit_length()
        names = ("tokens", "segments", "branches", "positions")
        arrays = {name: np.zeros((n * B, length), np.int32) for name in names}
        sources = {name: np.zeros((n * B, source_length), np.int32) for name in ("tokens", "segments", "positions")}
        scored: list[list[tuple[int, int]]] = [[] for _ in range(n)]  # per device: position in its rows, token
        for number, row in enumerate(rows):
            laid = _laid_out(row.groups, self.family.continues)
            for name, values in zip(names, laid.row):
                arrays[name][number, : len(values)] = values
            for name, values in zip(sources, laid.source):
                sources[name][number, : len(values)] = values
            scored[number // B] += [(number % B * length + place, token) for place, token in laid.scored]
        Q = max(SHORTEST, 1 << (max(map(len, scored)) - 1).bit_length())
        asked = np.zeros((n, Q, 2), np.int32)
        for device, pairs in enumerate(scored):
            asked[device, : len(pairs)] = np.array(pairs, np.int32).reshape(-1, 2)
        inputs = [*arrays.values(), *sources.values(), asked.reshape(n * Q, 2)]
        placed = jax.device_put(inputs, NamedSharding(self.mesh, P(AXIS)))
        return B, _score(self.family, self.mesh, self.params, *placed)

    def _fetched(self, rows: list[_Row], sent: Any) -> Iterator[tuple[int, TokenScore]]:
        B, made = sent
        nats, hits = (np.asarray(x).reshape(self.mesh.size, -1) for x in made)
        first = [0] * self.mesh.size
        for number, row in enumerate(rows):
            device = number // B
            for group in row.groups:
                for index, tokens in group.continuations:
                    places = slice(first[device], first[device] + len(tokens))
                    first[device] += len(tokens)
                    total = nats[device, places].sum(dtype=np.float64)
                    yield index, TokenScore(float(total), int(hits[device, places].sum()))


def mesh_of(devices: Sequence[jax.Device]) -> Mesh:
    """The mesh over which rows are divided."""
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def rounded(length: int, shortest: int) -> int:
    """Rounds a length up to 0, or to `shortest` times a power of two or 1.5 times a power of two."""
    if length == 0:
        return 0
    shape = shortest
    while shape < length:
        shape = shape * 3 // 2 if shape & (shape - 1) == 0 else shape * 4 // 3
    return shape


def _filled(waiting: list[_Group], shape: tuple[int, int], one: bool) -> _Row:
    """A row with the last group and, unless `one` is true, the longest others that fit."""
    row = _Row([waiting.pop()], (0, 0))
    row.left = shape[0] - row.groups[0].size[0], shape[1] - row.groups[0].size[1]
    while not one:
        place = bisect.bisect_right(waiting, row.left[0], key=lambda group: group.size[0]) - 1
        tried = range(place, max(place - 16, -1), -1)  # a source that is too long is rare
        fitting = next((place for place in tried if waiting[place].size[1] <= row.left[1]), None)
        if fitting is None:
            break
        group = waiting.pop(fitting)
        row.groups.append(group)
        row.left = row.left[0] - group.size[0], row.left[1] - group.size[1]
    return row


@dataclasses.dataclass
class _Layout:
    """The layout of groups in a row: tokens, segments, branches and positions; the same for sources, without branches;
    and the positions that predict a continuation, each with its target token."""

    row: tuple[list[int], ...] = dataclasses.field(default_factory=lambda: ([], [], [], []))
    source: tuple[list[int], ...] = dataclasses.field(default_factory=lambda: ([], [], []))
    scored: list[tuple[int, int]] = dataclasses.field(default_factory=list)

    def add(self, tokens: Sequence[int], segment: int, branch: int, first: int) -> int:
        """Returns the position of the first token."""
        place, count = len(self.row[0]), len(tokens)
        for values, more in zip(self.row, (tokens, [segment] * count, [branch] * count, range(first, first + count))):
            values.extend(more)
        return place


def _laid_out(groups: Sequence[_Group], continues: bool) -> _Layout:
    layout = _Layout()
    for segment, group in enumerate(groups, 1):
        if continues:
            end = layout.add(group.context, segment, 0, 0) + len(group.context) - 1
        else:
            *source, begin = group.context
            for values, more in zip(layout.source, (source, [segment] * len(source), range(len(source)))):
                values.extend(more)
        for branch, (_, tokens) in enumerate(group.continuations, 1):
            if continues:
                first = layout.add(tokens[:-1], segment, branch, len(group.context))
                places = [end, *range(first, first + len(tokens) - 1)]
            else:
                first = layout.add([begin, *tokens[:-1]], segment, branch, 0)
                places = [*range(first, first + len(tokens))]
            layout.scored += zip(places, tokens)
    return layout


@functools.partial(jax.jit, static_argnums=(0, 1))
def _score(family: Family, mesh: Mesh, params: Any, *inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`_score_places` on each device's part of the inputs."""
    program = functools.partial(_score_places, family)
    specs = (P(), *(P(AXIS),) * len(inputs))
    return jax.shard_map(program, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)(params, *inputs)


def _score_places(
    family: Family,
    params: Any,
    tokens_BT: jax.Array,
    segments_BT: jax.Array,
    branches_BT: jax.Array,
    positions_BT: jax.Array,
    source_BS: jax.Array,
    source_segments_BS: jax.Array,
    source_positions_BS: jax.Array,
    asked_Q2: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """For each q, the log-likelihood of token asked_Q2[q, 1] at position asked_Q2[q, 0], and whether it is the most
    likely token there. Positions are numbered through all rows."""
    seen: dict[str, jax.Array] = {}
    if family.branches:
        seen |= dict(segments_BT=segments_BT, branches_BT=branches_BT, positions_BT=positions_BT)
    if not family.continues:
        seen |= dict(source_BS=source_BS, source_segments_BS=source_segments_BS)
        seen |= dict(source_positions_BS=source_positions_BS)
    model: Any = family.module()
    x_BTD, _ = model.apply({"params": params}, tokens_BT, **seen, method="hidden")
    x_PD = x_BTD.reshape(-1, x_BTD.shape[-1])

    def score_some(asked_q2: jax.Array) -> tuple[jax.Array, jax.Array]:
        tokens_q = asked_q2[:, 1]
        head_DV = model.apply({"params": params}, method="output_matrix")
        logits_qV = softcap(project_float32(x_PD[asked_q2[:, 0]][None], head_DV)[0], model.logit_softcap)
        at_tokens_q = jnp.take_along_axis(logits_qV, tokens_q[:, None], axis=-1)[:, 0]
        return at_tokens_q - jax.nn.logsumexp(logits_qV, axis=-1), jnp.argmax(logits_qV, axis=-1) == tokens_q

    pieces = 1  # the logits of one piece must fit into LOGITS
    while asked_Q2.shape[0] // pieces * family.config.vocab_size > LOGITS and asked_Q2.shape[0] % (2 * pieces) == 0:
        pieces *= 2
    scores = jax.lax.map(score_some, asked_Q2.reshape(pieces, -1, 2))
    return jax.tree.map(lambda x: x.reshape(-1), scores)
