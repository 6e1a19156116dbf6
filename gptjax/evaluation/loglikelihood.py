"""Log-likelihoods of continuations in batches of few shapes, on all devices. A shared context is read only once.

The continuations of one context form a group, which takes a contiguous part of a row: the context, then each
continuation without its last token, which is only predicted. Continuations are branches of the context: each sees the
context and itself, as if it followed the context directly (`attention.Branches`). A row holds several groups, as rows
in training hold several documents, so that a forward pass uses the whole device and has little padding. The output of
the last layer and logits are computed only at positions that predict a continuation. An encoder–decoder reads contexts
as its sources, and continuations as branches without a common beginning.

Each device reads its own rows with a copy of the parameters; cores of a CPU that are devices (`devices.divide_cpu`)
share one copy. If the parameters are split over several devices, these read the same rows together. A batch is sent
before the results of the previous one are fetched, so that the host prepares a batch while the devices compute.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gptjax.evaluation.token_scores import score_tokens
from gptjax.model.family import Family
from gptjax.parallel.compilation import forward_options
from gptjax.parallel.mesh import make_mesh
from gptjax.parallel.sharding import split_vocabulary
from gptjax.settings import MeshSettings

TOKENS = {"cpu": 1 << 10}  # tokens that a device reads together, by platform: on a CPU, more tokens are not faster
MOST_TOKENS = 1 << 14  # on any other platform
LOGITS = {"cpu": 1 << 20}  # float32 logits that a device has at a time: on a CPU, more would not stay in its cache
MOST_LOGITS = 1 << 25  # on any other platform
POSITIONS = 256  # whose logits exist together, if only for a part of the vocabulary: for fewer, the output matrix would
# be read from memory too often
FEWEST_LENGTHS = 6  # of rows, unless fewer hold all groups without unused room
SHORTEST = 256  # tokens of the shortest row; a quarter of that for a source
WANTED_STEPS = 16  # the number of positions whose output is computed is a multiple of this part of a row
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

    Attributes:
      size: the number of tokens that it takes in a row, and in a row's source.
      wanted: the number of those that predict a token of a continuation.
    """

    context: tuple[int, ...]
    continuations: list[tuple[int, tuple[int, ...]]]
    size: tuple[int, int]
    wanted: int


@dataclasses.dataclass
class _Row:
    """Groups that are read in one row, and the remaining room."""

    groups: list[_Group]
    left: tuple[int, int]


class LogLikelihoods:
    """Scores token sequences with a model.

    Args:
      family: if its placement is for one device, each device has a copy of the parameters.
      params: from `inference.decode.decoding_params`.
      mesh: from `mesh_of`; None: all devices of this process.
    """

    def __init__(self, family: Family, params: Any, mesh: Mesh | None = None):
        # Some training settings are replaced: branches need a mask, nothing is saved for a gradient, and experts drop
        # no tokens, which would depend on what else is in a row.
        changes: dict[str, Any] = dict(attention="xla", layers="unroll", remat="none", expert_capacity=0.0)
        forward = dataclasses.replace(family.config, **changes)
        self.family = dataclasses.replace(family, config=forward)
        self.mesh = mesh_of(jax.local_devices()) if mesh is None else mesh
        self.params = jax.tree.map(functools.partial(_copied, mesh=self.mesh), params)
        self.readers = self.mesh.shape[AXIS]  # devices, or groups of devices, that read their own rows
        platform = self.mesh.devices.flat[0].platform
        self.tokens = TOKENS.get(platform, MOST_TOKENS)
        logits, V = LOGITS.get(platform, MOST_LOGITS), family.config.vocab_size
        split = self.mesh.shape["tensor"] > 1  # each device then has its own part of the vocabulary
        positions = logits // V if split else max(logits // V, POSITIONS)
        self.piece = min(self.tokens, _power_of_two(positions))  # positions whose logits exist at the same time
        self.vocabulary = V if split else max(1, logits // self.piece)  # tokens whose logits exist at the same time

    def score(self, requests: Sequence[Continued]) -> Iterator[tuple[int, TokenScore]]:
        """Yields the index of each request and its score in the order of computation: longest first, so that too little
        memory is detected at once."""
        pending: Any = None
        batches = list(self._batches(requests))
        wanted: dict[tuple[int, int], int] = {}  # by shape, since each number is a program to compile
        for shape, rows in batches:
            most = max(sum(group.wanted for group in row.groups) for row in rows)
            wanted[shape] = max(wanted.get(shape, 0), num_wanted(shape[0], most))
        for shape, rows in batches:
            sent = rows, self._send(shape, rows, wanted[shape])
            if pending is not None:
                yield from self._fetched(*pending)
            pending = sent
        if pending is not None:
            yield from self._fetched(*pending)

    def _batches(self, requests: Sequence[Continued]) -> Iterator[tuple[tuple[int, int], list[_Row]]]:
        """Batches of rows of one shape, with at most as many rows as all devices read together."""
        waiting = sorted(self._groups(requests), key=lambda group: group.size)  # the longest are taken from the end
        lengths = row_lengths([group.size[0] for group in waiting])
        shape, rows = (0, 0), list[_Row]()
        while waiting:
            length, source_length = waiting[-1].size
            wanted = lengths[bisect.bisect_left(lengths, length)], rounded(source_length, SHORTEST // 4)
            if rows and (wanted[0] != shape[0] or wanted[1] > shape[1] or len(rows) == self._num_rows(shape)):
                yield shape, rows
                rows = []
            if not rows:
                shape = wanted
            rows.append(_filled(waiting, shape, one=not self.family.branches))
        if rows:
            yield shape, rows

    def _num_rows(self, shape: tuple[int, int]) -> int:
        return self.readers * max(1, self.tokens // sum(shape))

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
                    yield _Group(context, some, (size, source), size - own + min(own, 1))
                    some, size = [], own
                some.append(each)
                size += more
            yield _Group(context, some, (size, source), size - own + min(own, 1))

    def _send(self, shape: tuple[int, int], rows: list[_Row], Q: int) -> Any:
        """Divides the rows over the devices and starts the program; does not wait for the returned arrays.

        Q: the number of positions in each row whose output is computed.
        """
        length, source_length = shape
        n = self.readers
        B = min(1 << (-(-len(rows) // n) - 1).bit_length(), self._num_rows(shape) // n)
        Q = Q if self.family.branches else length
        wanted = np.zeros((n * B, Q), np.int32)
        names = ("tokens", "segments", "branches", "positions")
        arrays = {name: np.zeros((n * B, length), np.int32) for name in names}
        sources = {name: np.zeros((n * B, source_length), np.int32) for name in ("tokens", "segments", "positions")}
        scored: list[list[tuple[int, int]]] = [[] for _ in range(n)]  # per device: place in `wanted`, token
        for number, row in enumerate(rows):
            laid = _laid_out(row.groups, self.family.continues)
            for name, values in zip(names, laid.row):
                arrays[name][number, : len(values)] = values
            for name, values in zip(sources, laid.source):
                sources[name][number, : len(values)] = values
            at, tokens = np.transpose(laid.scored)
            places = np.arange(length) if Q == length else np.unique(at)
            wanted[number, : len(places)] = places
            scored[number // B] += zip(number % B * Q + np.searchsorted(places, at), tokens)
        # A context's end predicts a token of each of its continuations, so more tokens may be scored than there are
        # positions. The number of pieces is part of the program; doubling it keeps the programs few.
        pieces = 2 * -(-B * length // self.piece)
        while pieces * self.piece < max(map(len, scored)):
            pieces *= 2
        asked = np.zeros((n, pieces * self.piece, 2), np.int32)
        for device, pairs in enumerate(scored):
            asked[device, : len(pairs)] = np.array(pairs, np.int32).reshape(-1, 2)
        used = np.array([-(-len(pairs) // self.piece) for pairs in scored], np.int32)
        inputs = [*arrays.values(), wanted, *sources.values(), asked.reshape(n * pieces, self.piece, 2), used]
        placed = jax.device_put(inputs, NamedSharding(self.mesh, P(AXIS)))
        with jax.set_mesh(self.mesh):
            return B, _score(self.family, self.mesh, self.vocabulary, self.params, *placed)

    def _fetched(self, rows: list[_Row], sent: Any) -> Iterator[tuple[int, TokenScore]]:
        B, made = sent
        nats, hits = (np.asarray(x).reshape(self.readers, -1) for x in made)
        first = [0] * self.readers
        for number, row in enumerate(rows):
            device = number // B
            for group in row.groups:
                for index, tokens in group.continuations:
                    places = slice(first[device], first[device] + len(tokens))
                    first[device] += len(tokens)
                    total = nats[device, places].sum(dtype=np.float64)
                    yield index, TokenScore(float(total), int(hits[device, places].sum()))


def mesh_of(devices: Sequence[jax.Device], together: int = 1) -> Mesh:
    """The mesh over which rows are divided (its axis `data`).

    together: the number of devices that read the same rows, each with a part of the model (the axis `tensor`). Devices
      that are left over do nothing.
    """
    readers = len(devices) // together
    return make_mesh(MeshSettings(data=readers, tensor=together), devices[: readers * together])


def _copied(x: jax.Array, mesh: Mesh) -> jax.Array:
    """A copy of a parameter for each of the readers, split as the parameter is. Readers that are cores of one CPU share
    a whole parameter's memory."""
    sharding = getattr(x, "sharding", None)
    to = NamedSharding(mesh, sharding.spec if isinstance(sharding, NamedSharding) else P())
    if to.is_fully_replicated and mesh.devices.flat[0].platform == "cpu":
        view = np.asarray(x)  # JAX takes NumPy's memory as it is, while it copies an array of another device
        return jax.make_array_from_single_device_arrays(
            x.shape, to, [jax.device_put(view, device) for device in to.addressable_devices]
        )
    return jax.device_put(x, to)


def _power_of_two(number: int) -> int:
    """The largest power of two up to a number, at least 1."""
    return 1 << max(0, number.bit_length() - 1)


def rounded(length: int, shortest: int, steps: int = 4) -> int:
    """Rounds a length up to 0, to `shortest`, or to one of `steps` equally spaced lengths up to each of its
    doublings."""
    if length <= shortest:
        return shortest if length else 0
    step = shortest // steps
    while length > 2 * steps * step:
        step *= 2
    return -(-length // step) * step


def num_wanted(length: int, needed: int) -> int:
    """`needed` of the positions of a row, rounded up: tasks and runs of similar lengths then share programs."""
    step = length // WANTED_STEPS
    return min(length, -(-needed // step) * step)


def row_lengths(sizes: Sequence[int]) -> list[int]:
    """The lengths of rows that leave the least room unused if each group is in the shortest row that holds it.

    There are as many as `rounded` would give, since each length is a program to compile, but at least FEWEST_LENGTHS.
    They are chosen among 16 per doubling by dynamic programming: the best k lengths for the groups up to a size are
    this size and the best k - 1 lengths for the groups up to some smaller size.
    """
    counts = collections.Counter(rounded(size, SHORTEST, steps=16) for size in sizes)
    lengths = np.array(sorted(counts))
    up_to = np.cumsum([0, *(counts[length] for length in lengths.tolist())])  # groups that the first n lengths hold
    most = min(len(lengths), max(FEWEST_LENGTHS, len({rounded(size, SHORTEST) for size in sizes})))
    room = np.full(len(lengths) + 1, np.inf)  # the least room of rows for the groups of the first n lengths
    room[0] = 0
    before = []  # for each k and n: the number of lengths before the last of the chosen ones
    for _ in range(most):
        tried = room[None, :-1] + (up_to[1:, None] - up_to[None, :-1]) * lengths[:, None]
        tried[np.triu_indices(len(lengths), 1)] = np.inf
        before.append(tried.argmin(axis=1))
        room = np.concatenate([[np.inf], tried.min(axis=1)])
    chosen, n = [], len(lengths)
    for of_k in reversed(before):
        chosen.append(int(lengths[n - 1]))
        n = int(of_k[n - 1])
    return chosen[::-1]


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


def _score(family: Family, mesh: Mesh, most: int, params: Any, *inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`_score_rows`, compiled for the mesh's platform."""
    options = forward_options(mesh, family.config.dtype) or {}
    return _program(tuple(options.items()))(family, mesh, most, params, *inputs)


@functools.cache
def _program(options: tuple[tuple[str, str | bool], ...] = ()) -> Any:
    """`_score_rows`, compiled with some options of the compiler."""
    return jax.jit(_score_rows, static_argnums=(0, 1, 2), compiler_options=dict(options) or None)


def _score_rows(family: Family, mesh: Mesh, most: int, params: Any, *inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`_score_places` on each reader's part of the inputs."""
    program = functools.partial(_score_places, family, most)
    specs = (P(), *(P(AXIS),) * len(inputs))
    by_reader = jax.shard_map(program, mesh=mesh, in_specs=specs, out_specs=P(AXIS), axis_names={AXIS}, check_vma=False)
    return by_reader(params, *inputs)


def _score_places(
    family: Family,
    most: int,
    params: Any,
    tokens_BT: jax.Array,
    segments_BT: jax.Array,
    branches_BT: jax.Array,
    positions_BT: jax.Array,
    wanted_BQ: jax.Array,
    source_BS: jax.Array,
    source_segments_BS: jax.Array,
    source_positions_BS: jax.Array,
    asked_Pq2: jax.Array,
    used_1: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """For each q of a piece p, the log-likelihood of token asked_Pq2[p, q, 1] at the wanted position with number
    asked_Pq2[p, q, 0], numbered through all rows, and whether it is the most likely token there. Only the first
    used_1[0] pieces are computed: their number differs between batches, and is no part of the program. Logits exist for
    at most `most` tokens of the vocabulary at a time."""
    seen: dict[str, jax.Array] = {}
    if family.branches:
        seen |= dict(segments_BT=segments_BT, branches_BT=branches_BT, positions_BT=positions_BT)
        if wanted_BQ.shape != tokens_BT.shape:  # otherwise all are wanted
            seen |= dict(wanted_BQ=wanted_BQ)
    if not family.continues:
        seen |= dict(source_BS=source_BS, source_segments_BS=source_segments_BS)
        seen |= dict(source_positions_BS=source_positions_BS)
    model: Any = family.module(family.placement)
    x_BQD, _ = model.apply({"params": params}, tokens_BT, **seen, method="hidden")
    x_PD = x_BQD.reshape(-1, x_BQD.shape[-1])

    def head() -> jax.Array:
        return model.apply({"params": params}, method="output_matrix")

    def score_some(asked_q2: jax.Array) -> tuple[jax.Array, jax.Array]:
        x_qD = x_PD[asked_q2[:, 0]]
        if most < family.config.vocab_size:
            return score_tokens(x_qD, head, asked_q2[:, 1], model.logit_softcap, most)
        x_1qD, head_DV = split_vocabulary(x_qD[None], head())
        return score_tokens(x_1qD[0], lambda: head_DV, asked_q2[:, 1], model.logit_softcap, most)

    def score_piece(p: jax.Array, made: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        of_piece = score_some(jax.lax.dynamic_index_in_dim(asked_Pq2, p, keepdims=False))
        return jax.tree.map(lambda all_Pq, some_q: all_Pq.at[p].set(some_q), made, of_piece)

    blank = jnp.zeros(asked_Pq2.shape[:2], jnp.float32), jnp.zeros(asked_Pq2.shape[:2], bool)
    return jax.lax.fori_loop(0, used_1[0], score_piece, blank)
