"""Log-likelihoods of continuations in batches of few shapes, on all devices. A shared context is read only once.

The continuations of one context form a group, and contexts that begin alike may share one, such as questions after the
same examples. A group is read as a tree: what its texts begin with stands in the row once, and each token sees what
comes before it in its text (`attention.Branches`). The last token of a text is only predicted. A row holds several
groups, as rows in training hold several documents, so that a forward pass uses the whole device and has little padding.
The output of the last layer and logits are computed only at positions that predict a continuation. An encoder–decoder
reads contexts as its sources, and the continuations of one source as a tree.

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
SHARED = 8  # tokens that two contexts must have in common to be read as one tree
WANTED_STEPS = 16  # the number of positions whose output is computed is a multiple of this part of a row
AXIS = "data"
NO_SOURCE = np.zeros(0, np.int32)


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
class _Text:
    """A request as it is read: with its context or, for an encoder–decoder, after the token that begins a target.

    Attributes:
      tokens: int32 [length]; the last one is only predicted.
      shared: how many of those that are read stand in the row already, for the text before it in its group.
    """

    index: int
    tokens: np.ndarray
    first: int
    shared: int = 0

    @property
    def read(self) -> np.ndarray:
        return self.tokens[:-1]

    @property
    def more(self) -> int:
        """How many tokens the row gets for this text."""
        return len(self.tokens) - 1 - self.shared


@dataclasses.dataclass(frozen=True)
class _Group:
    """Texts that are read as one tree, depth first, and their source.

    Attributes:
      tokens, ends, positions: int32 [size], of the tree (see `attention.Branches`).
      scored: int32 [scored tokens, 2]: text by text, the place that predicts each scored token, and the token.
    """

    texts: list[_Text]
    source: np.ndarray
    tokens: np.ndarray
    ends: np.ndarray
    positions: np.ndarray
    scored: np.ndarray

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """The number of tokens that the group takes in a row, and in a row's source."""
        return len(self.tokens), len(self.source)

    @functools.cached_property
    def wanted(self) -> int:
        """The number of places that predict a scored token."""
        return len(np.unique(self.scored[:, 0]))


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
        """Groups of texts: all with the same context or, if they begin with the same tokens, with several contexts."""
        by_context: dict[bytes, tuple[np.ndarray, list[_Text]]] = {}
        for index, request in enumerate(requests):
            if not 1 <= request.first < len(request.tokens):
                raise ValueError(f"request {index} scores from token {request.first} of {len(request.tokens)}")
            tokens = np.asarray(request.tokens, np.int32)
            context = tokens[: request.first]
            begin = 0 if self.family.continues else request.first - 1
            text = _Text(index, tokens[begin:], request.first - begin)
            by_context.setdefault(_in_order(context), (context, []))[1].append(text)
        held: list[_Text] = []  # a group that may grow
        size = common = 0  # the tokens of its tree, and how many of them all of its texts share
        for key in sorted(by_context):
            context, of_context = by_context[key]
            for texts in self._parts(of_context):
                if not (self.family.branches and self.family.continues):
                    yield _group(texts, NO_SOURCE if self.family.continues else context[:-1])
                    continue
                more = sum(text.more for text in texts)
                with_held = _num_common(held[-1].read, texts[0].read) if held else 0
                most = max(SHORTEST, 2 * min(common, with_held))  # a longer row costs more attention
                if with_held >= SHARED and size + more - with_held <= most:
                    held += [dataclasses.replace(texts[0], shared=with_held), *texts[1:]]
                    size, common = size + more - with_held, min(common, with_held)
                    continue
                if held:
                    yield _group(held)
                held, size, common = texts, more, min((text.shared for text in texts[1:]), default=len(texts[0].read))
        if held:
            yield _group(held)

    def _parts(self, texts: Sequence[_Text]) -> Iterator[list[_Text]]:
        """The texts of one context in the order of their tokens, together or, if their tree would take more than a
        batch and more than twice the context, in several parts, which each read the context again."""
        some, size = list[_Text](), 0
        room = max(self.tokens, 2 * texts[0].first)
        for text in sorted(texts, key=lambda text: _in_order(text.tokens)):
            shared = _num_common(some[-1].read, text.read) if some else 0
            if some and (size + text.more - shared > room or not self.family.branches):
                yield some
                some, size, shared = [], 0, 0
            some.append(dataclasses.replace(text, shared=shared) if shared else text)
            size += some[-1].more
        yield some

    def _send(self, shape: tuple[int, int], rows: list[_Row], Q: int) -> Any:
        """Divides the rows over the devices and starts the program; does not wait for the returned arrays.

        Q: the number of places in each row whose output is computed.
        """
        length, source_length = shape
        n = self.readers
        B = min(1 << (-(-len(rows) // n) - 1).bit_length(), self._num_rows(shape) // n)
        Q = Q if self.family.branches else length
        wanted = np.zeros((n * B, Q), np.int32)
        names = ("tokens", "segments", "ends", "positions")
        arrays = {name: np.zeros((n * B, length), np.int32) for name in names}
        sources = {name: np.zeros((n * B, source_length), np.int32) for name in ("tokens", "segments", "positions")}
        scored: list[list[np.ndarray]] = [[] for _ in range(n)]  # per device: [number of the place in `wanted`, token]
        for number, row in enumerate(rows):
            pairs = _lay_out(row.groups, *([each[number] for each in of.values()] for of in (arrays, sources)))
            places = np.arange(length) if Q == length else np.unique(pairs[:, 0])
            wanted[number, : len(places)] = places
            chosen = number % B * Q + np.searchsorted(places, pairs[:, 0])
            scored[number // B].append(np.stack([chosen, pairs[:, 1]], axis=1))
        # A place may predict a token of several texts, so more tokens may be scored than there are places. The number
        # of pieces is part of the program; doubling it keeps the programs few.
        pieces = 2 * -(-B * length // self.piece)
        while pieces * self.piece < max(sum(map(len, of_device)) for of_device in scored):
            pieces *= 2
        asked = np.zeros((n, pieces * self.piece, 2), np.int32)
        used = np.zeros(n, np.int32)
        for device, of_device in enumerate(scored):
            count = sum(map(len, of_device))
            used[device] = -(-count // self.piece)
            if count:
                asked[device, :count] = np.concatenate(of_device)
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
            for text in (text for group in row.groups for text in group.texts):
                places = slice(first[device], first[device] + len(text.tokens) - text.first)
                first[device] = places.stop
                total = nats[device, places].sum(dtype=np.float64)
                yield text.index, TokenScore(float(total), int(hits[device, places].sum()))


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


def _in_order(tokens: np.ndarray) -> bytes:
    """Bytes that are ordered as the tokens are."""
    return tokens.astype(">i4").tobytes()


def _num_common(a: np.ndarray, b: np.ndarray) -> int:
    """The number of tokens that both texts begin with."""
    length = min(len(a), len(b))
    differs = a[:length] != b[:length]
    first = int(differs.argmax()) if length else 0
    return first if length and differs[first] else length


def _group(texts: list[_Text], source: np.ndarray = NO_SOURCE) -> _Group:
    """The group of texts in the order of their tokens: of each, the tree gets what the text before does not share."""
    tokens, ends, positions = np.zeros((3, sum(text.more for text in texts)), np.int32)
    scored = np.zeros((sum(len(text.tokens) - text.first for text in texts), 2), np.int32)
    path, count, done = np.zeros(max(len(text.tokens) for text in texts), np.int32), 0, 0  # path: places of the text
    length = 0  # of the text before
    for text in texts:
        ends[path[text.shared : length]] = count - 1
        length, new = len(text.tokens) - 1, slice(count, count + text.more)
        path[text.shared : length] = positions[new] = np.arange(text.shared, length)
        path[text.shared : length] += count - text.shared
        tokens[new] = text.tokens[text.shared : length]
        of_text = scored[done : done + length + 1 - text.first]
        of_text[:, 0], of_text[:, 1] = path[text.first - 1 : length], text.tokens[text.first :]
        count, done = new.stop, done + len(of_text)
    ends[path[:length]] = count - 1
    return _Group(texts, source, tokens, ends, positions, scored)


def _lay_out(groups: Sequence[_Group], row: Sequence[np.ndarray], source: Sequence[np.ndarray]) -> np.ndarray:
    """Writes groups into a row and its source, and returns their `scored` with places in this row.

    Args:
      row: its tokens, segments, ends and positions. source: its tokens, segments and positions.
    """
    scored, start, source_start = list[np.ndarray](), 0, 0
    for segment, group in enumerate(groups, 1):
        for values, more in zip(row, (group.tokens, segment, group.ends + start, group.positions)):
            values[start : start + group.size[0]] = more
        for values, more in zip(source, (group.source, segment, np.arange(group.size[1]))):
            values[source_start : source_start + group.size[1]] = more
        scored.append(group.scored + np.array([start, 0], np.int32))
        start, source_start = start + group.size[0], source_start + group.size[1]
    return np.concatenate(scored)


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
    ends_BT: jax.Array,
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
        seen |= dict(segments_BT=segments_BT, ends_BT=ends_BT, positions_BT=positions_BT)
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
