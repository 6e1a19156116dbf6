"""A stack of blocks: runs the layers of every model, unrolled or in a `lax.scan`, and embeds their input.

Parameters of the layers are stacked on a leading L axis under 'layers', however they run. In a mixture of experts, the
first layers may be dense (`model.first_dense_layers`); these are stacked under 'first_layers'.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gptjax.config import ConfigError
from gptjax.model.attention import Branches
from gptjax.model.blocks import taken
from gptjax.model.dropout import dropout, fold_in, has_dropout
from gptjax.model.initialization import embedding_init
from gptjax.model.norm import make_norm
from gptjax.model.parameters import lookup, stacked, unstack_layers
from gptjax.model.placement import ONE_DEVICE, Placement
from gptjax.model.position import rope_amplitude, rope_frequencies, rope_rotation, sinusoidal
from gptjax.model.rematerialization import LAYER_INPUT, kept_of_layers, rematerialized
from gptjax.settings import ModelSettings


class Seen(NamedTuple):
    """The inputs that all layers share.

    Attributes:
      rotations: of queries and keys in each kind of layer, by its mark in the window pattern; None: not rotated.
      segments_BT: int32 document numbers; None: a row is one document.
      branches: describes rows of texts that branch; None: no text does.
      context: the other stream for cross-attention (see `decoder.Block`); None: there is no other stream.
      wanted_BQ: the places of the tokens whose output the model's last layer computes; None: all.
    """

    rotations: dict[str, Any]
    segments_BT: jax.Array | None = None
    branches: Branches | None = None
    context: dict[str, Any] | None = None
    wanted_BQ: jax.Array | None = None


class Stack(nn.Module):
    """Consecutive layers, with the positions added to their input and the norm of their output.

    Attributes:
      config: the resolved, frozen `model` section.
      placement: how its work is divided over devices.
      block: the class of a layer, which is constructed and called like `decoder.Block`.
    """

    config: ModelSettings
    placement: Placement = ONE_DEVICE
    block: Callable[..., nn.Module] | None = None

    def setup(self) -> None:
        config = self.config
        if config.position == "learned":
            rows, width = {"position": config.max_positions}, {"embed": config.width}
            self.positions = lookup(self, "positions", rows, width, embedding_init(config))
        if self.is_initializing():
            # Parameters are the same for every backend; this one runs on any device, in any type and length. `stacked`
            # uses `jax.vmap`, which turns a function of one key into a function of L keys. Here it turns the
            # initialization of one layer into that of all layers: every array gets an additional first axis.
            assert self.block is not None
            for name, layers in layer_stacks(config).items():
                of_layer = dataclasses.replace(settings_of_layer(config, layers[0]), attention="reference")
                block = self.block(of_layer, 0, parent=None)
                stacked(self, name, len(layers), block, jnp.zeros((1, 1, config.width)), axis=name)
        if config.norm_placement != "post_residual":  # there, the last layer's output is already normalized
            self.final_norm = make_norm(config)

    def transform(
        self,
        x_BTD: jax.Array,
        positions_BT: jax.Array,
        dropout_keys_LB: jax.Array | None = None,
        wanted_BQ: jax.Array | None = None,
        **seen: Any,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The final-normed residual stream [B, T, D] after all layers, and the statistics of the blocks, [L, B, …].

        Statistics that the first dense layers do not report are [L - first_dense_layers, B, …].

        Args:
          x_BTD: from `embedded`.
          dropout_keys_LB: a key for each layer and row; None: nothing is dropped out.
          wanted_BQ: int32; the places of the tokens whose output is wanted, which is then [B, Q, D]. The last layer
            computes no others if it can be run by itself (`_chooses`). Statistics then count only what it computes.
          seen: segments_BT, branches and context of `Seen`.
        """
        run = self._run_scanned if self.config.layers == "scan" else self._run_unrolled
        params, by_all = self.variables["params"], Seen(self._rotations(positions_BT), **seen)
        chooses = wanted_BQ is not None and dropout_keys_LB is None and self._chooses(params["layers"])
        by_all = by_all._replace(wanted_BQ=wanted_BQ if chooses else None)
        first = self.config.first_dense_layers
        before: dict[str, jax.Array] = {}
        if first:  # these belong to no pipeline stage: they run where the embedding does
            keys_LB = None if dropout_keys_LB is None else dropout_keys_LB[:first]
            x_BTD, before = run(0, params["first_layers"], x_BTD, by_all, keys_LB)
            dropout_keys_LB = None if dropout_keys_LB is None else dropout_keys_LB[first:]
        run, keep = functools.partial(run, first), kept_of_layers(self.config.remat)
        x_BTD, statistics = self.placement.layers(run, params["layers"], x_BTD, by_all, dropout_keys_LB, keep=keep)
        if wanted_BQ is not None and not chooses:
            x_BTD = self.placement.residual(taken(self.placement.gathered(x_BTD), wanted_BQ))
        return self._finish(x_BTD), before | _joined(before, statistics)

    def transform_cached(
        self,
        x_BTD: jax.Array,
        positions_BT: jax.Array,
        caches: list[tuple[jax.Array, ...]],
        contexts: list[dict[str, Any]] | None = None,
        wanted_BQ: jax.Array | None = None,
    ) -> tuple[jax.Array, list[tuple[jax.Array, ...]]]:
        """Like `transform`, continuing from each layer's cache. It also returns the layers' new caches.

        The layers are always unrolled, since a scan would copy each layer's slice of cache and weights at every token.
        """
        made_by_layers = []
        rotations = self._rotations(positions_BT)
        stacks = layer_stacks(self.config).items()
        all_params = [unstack_layers(self.variables["params"][name], len(layers)) for name, layers in stacks]
        for index, params in enumerate(itertools.chain.from_iterable(all_params)):
            rotation = rotations[layer_marks(self.config)[index]]
            options: dict[str, Any] = {} if contexts is None else {"context": contexts[index]}
            options |= self._choice(index, wanted_BQ)
            made: Any = self._block_of(index).apply(
                {"params": params}, x_BTD, rotation=rotation, cache=caches[index], **options
            )
            x_BTD, new, _ = made
            x_BTD = self.placement.residual(x_BTD)
            made_by_layers.append(new)
        return self._finish(x_BTD), made_by_layers

    def embedded(
        self,
        table_VD: jax.Array,
        tokens_BT: jax.Array,
        positions_BT: jax.Array,
        dropout_keys_B: jax.Array | None = None,
    ) -> jax.Array:
        """The input of the first layer [B, T, D]: rows of the table, with learned or sinusoidal positions added."""
        config = self.config
        tables, indices = [table_VD], [tokens_BT]
        if config.position == "learned":
            tables, indices = [table_VD, self.positions], [tokens_BT, positions_BT]

        def looked_up(tables: Sequence[jax.Array], indices: Sequence[jax.Array]) -> jax.Array:
            x_BTd = tables[0][indices[0]]
            if config.embedding_multiplier != 1:
                x_BTd *= config.embedding_multiplier
            for table, index in zip(tables[1:], indices[1:]):
                x_BTd += table[index]
            return x_BTd if config.position == "sinusoidal" else x_BTd.astype(config.dtype)

        x_BTD = self.placement.lookup(looked_up, tables, indices)
        if config.position == "sinusoidal":  # sines have magnitude 1, so embeddings are scaled up to a similar size
            x_BTD = x_BTD * config.width**0.5 + sinusoidal(positions_BT, config.width)
        x_BTD = dropout(x_BTD.astype(config.dtype), config.dropout, dropout_keys_B)
        return self.placement.residual(x_BTD)

    def counted(self, tokens_BT: jax.Array) -> jax.Array:
        """Positions from 0 along the row, [1, T]."""
        length = tokens_BT.shape[1]
        if self.config.position == "learned" and length > self.config.max_positions:
            raise ConfigError(
                f"model.max_positions = {self.config.max_positions}: must be at least {length}, the length of the "
                "sequence"
            )
        return jnp.arange(length)[None]

    def dropout_keys(self, dropout_keys_B: jax.Array | None) -> tuple[jax.Array | None, jax.Array | None]:
        """Derives keys of all layers [L, B] and of the embedding [B] from a key per row; None without dropout."""
        if dropout_keys_B is None or not has_dropout(self.config):
            return None, None
        keys = fold_in(dropout_keys_B, jnp.arange(self.config.num_layers + 1)[:, None])
        return keys[:-1], keys[-1]

    def declare(self) -> None:
        """Visits every parameter without a forward pass, which is enough for initialization."""
        if self.config.norm_placement != "post_residual":
            self.final_norm(jnp.zeros((1, self.config.width)))  # the others are declared by `setup`

    def _finish(self, x_BTD: jax.Array) -> jax.Array:
        normed = self.config.norm_placement == "post_residual"
        return self.placement.gathered(x_BTD if normed else self.final_norm(x_BTD))

    def _rotations(self, positions_BT: jax.Array) -> dict:
        """The rotation of queries and keys in each kind of layer, by its mark in the window pattern; None: none."""
        config = self.config
        if config.position != "rope":
            return dict.fromkeys("SLN")
        full = rope_rotation(positions_BT, rope_frequencies(config), rope_amplitude(config))
        local = rope_rotation(positions_BT, rope_frequencies(config, local=True)) if config.rope_local_theta else full
        return {"S": local, "L": full, "N": None}

    def _block_of(self, layer: int) -> nn.Module:
        """The module of a layer, without its parameters."""
        assert self.block is not None
        config, window = settings_of_layer(self.config, layer), layer_windows(self.config)[layer]
        return self.block(config, window, placement=self.placement, parent=None)

    def _chooses(self, layers: Any) -> bool:
        """Whether the last layer can leave out tokens: it is not one of several in a scan or of a pipeline's stage,
        whose layers are stacked, and its experts do not drop tokens because of others."""
        drops = self.config.num_experts and self.config.expert_capacity
        return self.config.layers == "unroll" and isinstance(layers, list | tuple) and not drops

    def _choice(self, layer: int, wanted_BQ: jax.Array | None) -> dict[str, jax.Array]:
        """The argument by which a layer leaves out tokens, if it is the last one."""
        is_last = layer == self.config.num_layers - 1
        return {"wanted_BQ": wanted_BQ} if is_last and wanted_BQ is not None else {}

    def _run_one(
        self,
        layer: int,
        params: Any,
        x_BTD: jax.Array,
        seen: Seen,
        dropout_keys_B: jax.Array | None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Runs a layer of the same kind as layer `layer` with the given parameters."""
        x_BTD = checkpoint_name(x_BTD, LAYER_INPUT)
        options: dict[str, Any] = {} if seen.context is None else {"context": seen.context}
        options |= self._choice(layer, seen.wanted_BQ)
        made: Any = self._block_of(layer).apply(
            {"params": params},
            x_BTD,
            rotation=seen.rotations[layer_marks(self.config)[layer]],
            segments_BT=seen.segments_BT,
            branches=seen.branches,
            dropout_keys_B=dropout_keys_B,
            **options,
        )
        x_BTD, _, statistics = made
        return self.placement.residual(x_BTD), statistics

    def _run_unrolled(
        self,
        first: int,
        layers: Any,
        x_BTD: jax.Array,
        seen: Seen,
        dropout_keys_LB: jax.Array | None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Runs any number L of layers, given as [L, …], whose kinds are those of the model's layers from `first` on."""
        each = unstack_layers(layers, _length(layers))
        keys = [None] * len(each) if dropout_keys_LB is None else [dropout_keys_LB[index] for index in range(len(each))]
        return self._run_in_turn(first, zip(each, keys), x_BTD, seen)

    def _run_in_turn(
        self, first: int, layers: Iterable[tuple[Any, Any]], x_BTD: jax.Array, seen: Seen, in_scan: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Runs layers one after another, each compiled separately.

        layers: (parameters, dropout keys [B] or None) of each, whose kinds are those of the layers from `first` on.
        """
        statistics: list[dict[str, jax.Array]] = []
        for index, (params, dropout_keys_B) in enumerate(layers):
            one = functools.partial(self._run_one, first + index)
            block = rematerialized(one, self.config.remat, in_scan)
            x_BTD, of_layer = block(params, x_BTD, seen, dropout_keys_B)
            statistics.append(of_layer)
        return x_BTD, _stack(statistics)

    def _run_scanned(
        self,
        first: int,
        layers: Any,
        x_BTD: jax.Array,
        seen: Seen,
        dropout_keys_LB: jax.Array | None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """`lax.scan` is a for loop over the leading axis of its inputs whose body is compiled once, whatever the number
        of iterations: `run_group` gets the stream and one slice of the stacked parameters, and returns the stream.
        (`_run_unrolled` is like a PyTorch loop over modules: each layer is compiled separately.)

        An iteration runs one period of the window pattern, so that each kind of layer is static in the program. Layers
        that do not fill a period run after the scan."""
        num_layers, period = _length(layers), scan_period(self.config)
        if num_layers < period:
            return self._run_unrolled(first, layers, x_BTD, seen, dropout_keys_LB)
        scanned = num_layers // period * period
        stacked = (layers, dropout_keys_LB)

        def each(group: Any, count: int) -> Iterable[Any]:
            return (jax.tree.map(operator.itemgetter(index), group) for index in range(count))

        def run_group(x_BTD: jax.Array, group: Any) -> tuple[jax.Array, Any]:
            layers = [group] if period == 1 else each(group, period)
            return self._run_in_turn(first, layers, x_BTD, seen, in_scan=True)

        groups = stacked
        if period > 1:  # [L, 1, …] instead of [L, …] would have XLA copy all parameters on the CPU
            groups = jax.tree.map(lambda x: x[:scanned].reshape(-1, period, *x.shape[1:]), stacked)
        x_BTD, statistics = jax.lax.scan(run_group, x_BTD, groups)
        statistics = jax.tree.map(lambda x: x.reshape(scanned, *x.shape[2:]), statistics)
        if scanned < num_layers:
            rest = jax.tree.map(lambda x: x[scanned:], stacked)
            layers = each(rest, num_layers - scanned)
            x_BTD, of_rest = self._run_in_turn(first + scanned, layers, x_BTD, seen)
            statistics = jax.tree.map(lambda *both: jnp.concatenate(both), statistics, of_rest)
        return x_BTD, statistics


def _length(layers: Any) -> int:
    """The number of layers in a tree of arrays [L, …], or in a list of them."""
    return len(layers) if isinstance(layers, list | tuple) else jax.tree.leaves(layers)[0].shape[0]


def _stack(trees: list[dict[str, jax.Array]]) -> dict[str, jax.Array]:
    """Stacks trees of the same structure into one tree whose arrays have a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _joined(before: dict[str, jax.Array], after: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Concatenates statistics of the same name along their first axis, `before` first; other statistics come from
    `after`."""
    return {name: jnp.concatenate([before[name], x]) if name in before else x for name, x in after.items()}


def layer_stacks(config: ModelSettings) -> dict[str, range]:
    """The layer numbers in each stack of parameters, by the stack's name, in the order of the model."""
    first = config.first_dense_layers
    stacks = {"first_layers": range(first), "layers": range(first, config.num_layers)}
    return {name: layers for name, layers in stacks.items() if layers}


def settings_of_layer(config: ModelSettings, layer: int) -> ModelSettings:
    """The settings of a layer: the first dense layers have no experts and their own width."""
    if layer >= config.first_dense_layers:
        return config
    return dataclasses.replace(config, num_experts=0, feedforward_width=config.first_dense_width)


def layer_marks(config: ModelSettings) -> str:
    """The mark of each layer: `window_pattern`, repeated.

    S: the layer sees the last `window` keys. L: the whole context. N: the whole context, without rotary positions
    (NoPE, arXiv:2305.19466; SmolLM3). Without a window S is L.
    """
    pattern = config.window_pattern if config.window else config.window_pattern.replace("S", "L")
    if not pattern or set(pattern) - set("SLN"):
        raise ConfigError(
            f"model.window_pattern = {pattern!r}: must be made of S (sliding window), L (full context) and N (full "
            "context, no rotary positions)"
        )
    return (pattern * -(-config.num_layers // len(pattern)))[: config.num_layers]


def layer_windows(config: ModelSettings) -> tuple[int, ...]:
    """The window of each layer, 0 where it sees the whole context."""
    return tuple(config.window if mark == "S" else 0 for mark in layer_marks(config))


def scan_period(config: ModelSettings) -> int:
    """The number of layers per iteration of the scan: the pattern's length, or 1 if all layers are of one kind."""
    return 1 if len(set(layer_marks(config))) == 1 else len(config.window_pattern)
