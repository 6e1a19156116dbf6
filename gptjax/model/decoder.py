"""The decoder: tokens in, next-token logits out.

    x = embed(tokens) [+ positions]
    for each layer:  x = x + attention(norm(x));  x = x + feedforward(norm(x))
    logits = norm(x) @ head

Parameters are a plain nested dict of float32 arrays, those of the layers stacked on a leading L axis under 'layers',
whether the layers run in a `lax.scan` or unrolled. A PyTorch module holds its parameters; this one is only told them:
`Decoder(config).apply({'params': params}, tokens_BT)` is a function of its arguments alone.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gptjax.config import ConfigError
from gptjax.model.attention import Attention
from gptjax.model.cache import KeyValueCache
from gptjax.model.dropout import dropout, fold_in
from gptjax.model.feedforward import FeedForward
from gptjax.model.initialization import embedding_init, head_init
from gptjax.model.norm import make_norm
from gptjax.model.parameters import head_DV, lookup, matrix, stacked, unstack_layers
from gptjax.model.position import rope_amplitude, rope_frequencies, rope_rotation, sinusoidal
from gptjax.model.precision import PRODUCT, project_float32
from gptjax.model.softcap import softcap
from gptjax.settings import ModelSettings


class Block(nn.Module):
    """One layer. `window` is what its attention sees (0: everything before, and after it where it is not causal)."""

    config: ModelSettings
    window: int
    causal: bool = True

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        *,
        rotation: Any = None,
        segments_BT: jax.Array | None = None,
        dropout_keys_B: jax.Array | None = None,
        cache: tuple[jax.Array, ...] | None = None,
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        """Returns x_BTD, the layer's new cache (None without one), and statistics: what the layer reports of itself, a
        dict of arrays [B, …] by name (for a loss of its own; see `Decoder.hidden`), here none.

        Each branch's output is dropped out before it is added to the residual stream, and so are attention
        probabilities; without keys nothing is.

        Norms stand before the branches (`pre`), after them (`post`: OLMo 2, arXiv:2501.00656) or on both sides
        (`sandwich`: Gemma 2). With a parallel residual both branches read the block's input (GPT-J, GPT-NeoX).
        """
        config = self.config
        of_attention, of_feedforward, of_probabilities = (
            (None,) * 3 if dropout_keys_B is None else (fold_in(dropout_keys_B, use) for use in range(3))
        )

        def normed(h_BTD: jax.Array, name: str, side: str) -> jax.Array:
            wanted = config.norm_placement in (side, "sandwich")
            return make_norm(config, name=name)(h_BTD) if wanted else h_BTD

        def added(x_BTD: jax.Array, h_BTD: jax.Array, keys_B: jax.Array | None) -> jax.Array:
            h_BTD = dropout(h_BTD, config.dropout, keys_B)
            return x_BTD + (h_BTD if config.residual_multiplier == 1 else h_BTD * config.residual_multiplier)

        h_BTD = normed(x_BTD, "attention_norm", "pre")
        h_BTD, cache = Attention(config, self.window, self.causal, name="attention")(
            h_BTD, rotation=rotation, segments_BT=segments_BT, cache=cache, dropout_keys_B=of_probabilities
        )
        attended_BTD = added(x_BTD, normed(h_BTD, "attention_post_norm", "post"), of_attention)

        h_BTD = normed(x_BTD if config.parallel_residual else attended_BTD, "feedforward_norm", "pre")
        h_BTD = FeedForward(config, name="feedforward")(h_BTD)
        return added(attended_BTD, normed(h_BTD, "feedforward_post_norm", "post"), of_feedforward), cache, {}


class Decoder(nn.Module):
    """A GPT-style language model.

    Attributes:
      config: the resolved, frozen `model` section.
      constrain: applied to the residual stream [B, T, D] after the embedding and after every block; for sharding
        constraints. Hashable, as all of a module is.
      block: what a layer is: a module that is made and called as `Block`.
    """

    config: ModelSettings
    constrain: Callable[[jax.Array], jax.Array] | None = None
    block: type[nn.Module] = Block

    def setup(self) -> None:
        config = self.config
        width, init, tied = {"embed": config.width}, embedding_init(config), config.tied_embeddings
        self.embedding = lookup(self, "embedding", {"vocab": config.vocab_size}, width, init, tied=tied)
        if config.position == "learned":
            self.positions = lookup(self, "positions", {"position": config.max_positions}, width, init)
        if self.is_initializing():
            # Parameters are the same for every backend; this one runs on any device, in any type and length. `stacked`
            # uses `jax.vmap`, which makes of a function of one key a function of L keys, here of one layer all layers:
            # whatever the function returned has one more axis, the first.
            block = self.block(dataclasses.replace(config, attention="reference"), 0, parent=None)
            stacked(self, "layers", config.num_layers, block, jnp.zeros((1, 1, config.width)))
        self.final_norm = make_norm(config)
        if not tied:
            matrix(self, "head", width, {"vocab": config.vocab_size}, head_init(config))

    def __call__(
        self,
        tokens_BT: jax.Array,
        segments_BT: jax.Array | None = None,
        positions_BT: jax.Array | None = None,
        dropout_keys_B: jax.Array | None = None,
    ) -> jax.Array:
        """Logits [B, T, V] in float32.

        Args:
          segments_BT: int32 document numbers of a packed row, 0 for padding; documents do not see each other.
          positions_BT: int32 positions within each document; None counts from 0 along the row.
          dropout_keys_B: a key for each row (`dropout.row_keys`), with which it is dropped out; None: nothing is.
        """
        return self.logits(self.hidden(tokens_BT, segments_BT, positions_BT, dropout_keys_B)[0])

    def hidden(
        self,
        tokens_BT: jax.Array,
        segments_BT: jax.Array | None = None,
        positions_BT: jax.Array | None = None,
        dropout_keys_B: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The final-normed residual stream [B, T, D] in the compute dtype, before the head; and the statistics of the
        blocks, each [L, B, …].

        Statistics keep the rows of the batch apart, so that whoever sums over rows gets the same from one batch, from
        micro-batches and from any mesh.
        """
        config = self.config
        if positions_BT is None:
            positions_BT = jnp.arange(tokens_BT.shape[1])[None]
        dropout_keys = None  # [L + 1, B]: of each layer, and of the embedding
        if dropout_keys_B is not None and (config.dropout or config.attention_dropout):
            dropout_keys = fold_in(dropout_keys_B, jnp.arange(config.num_layers + 1)[:, None])
        x_BTD = self._embed(tokens_BT, positions_BT, None if dropout_keys is None else dropout_keys[-1])
        run = self._run_scanned if config.layers == "scan" else self._run_unrolled
        layers = self.variables["params"]["layers"]
        x_BTD, statistics = run(layers, x_BTD, self._rotations(positions_BT), segments_BT, dropout_keys)
        return self._finish(x_BTD), statistics

    def read(
        self, tokens_BT: jax.Array, cache: KeyValueCache, num_new_B: jax.Array | None = None
    ) -> tuple[jax.Array, KeyValueCache]:
        """Reads each row on from where its cache ends: `hidden` of these tokens [B, T, D], and the cache with them.

        Args:
          num_new_B: the row's own tokens among the T, from 0 to T; those after them are padding, whose output means
            nothing. None: all T. The cache needs slots for all T.
        """
        positions_BT = cache.lengths_B[:, None] + jnp.arange(tokens_BT.shape[1])
        positions_BT = jnp.minimum(positions_BT, self.config.max_positions - 1)  # padding may stand beyond the last one
        x_BTD = self._embed(tokens_BT, positions_BT)
        keys: list[Any] = []
        values: list[Any] = []
        rotations = self._rotations(positions_BT)
        # Always unrolled: a scan would copy each layer's slice of the cache and of the weights at every token.
        for index, params in enumerate(unstack_layers(self.variables["params"]["layers"], self.config.num_layers)):
            block = self.block(self.config, layer_windows(self.config)[index], parent=None)
            layer_cache = (cache.keys[index], cache.values[index], cache.lengths_B)
            rotation = rotations[layer_marks(self.config)[index]]
            made: Any = block.apply({"params": params}, x_BTD, rotation=rotation, cache=layer_cache)
            x_BTD, (k_BKSH, v_BKSH), _ = made
            x_BTD = x_BTD if self.constrain is None else self.constrain(x_BTD)
            keys.append(k_BKSH)
            values.append(v_BKSH)
        lengths_B = cache.lengths_B + (tokens_BT.shape[1] if num_new_B is None else num_new_B)
        return self._finish(x_BTD), KeyValueCache(keys=tuple(keys), values=tuple(values), lengths_B=lengths_B)

    @property
    def logit_softcap(self) -> float:
        return self.config.logit_softcap

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """Logits [B, T, V] in float32 from what `hidden` and `read` return."""
        return softcap(project_float32(x_BTD, self.output_matrix()), self.logit_softcap)

    def output_matrix(self) -> jax.Array:
        """[D, V]: the head, or the embedding where they are tied."""
        return head_DV(self.variables["params"])

    def declare(self) -> None:
        """Visits every parameter without a forward pass: all that initialisation needs."""
        self.final_norm(jnp.zeros((1, self.config.width)))  # the others are declared by `setup`

    def _embed(
        self, tokens_BT: jax.Array, positions_BT: jax.Array, dropout_keys_B: jax.Array | None = None
    ) -> jax.Array:
        config = self.config
        x_BTD = self.embedding[tokens_BT]
        if config.embedding_multiplier != 1:
            x_BTD *= config.embedding_multiplier
        if config.position == "learned":
            if tokens_BT.shape[1] > config.max_positions:
                raise ConfigError(
                    f"model.max_positions = {config.max_positions}: must be at least {tokens_BT.shape[1]}, the "
                    "length of the sequence"
                )
            x_BTD += self.positions[positions_BT]
        elif config.position == "sinusoidal":  # sines have size 1: embeddings are scaled up to be heard beside them
            x_BTD = x_BTD * config.width**0.5 + sinusoidal(positions_BT, config.width)
        x_BTD = dropout(x_BTD.astype(config.dtype), config.dropout, dropout_keys_B)
        return x_BTD if self.constrain is None else self.constrain(x_BTD)

    def _finish(self, x_BTD: jax.Array) -> jax.Array:
        """The last norm. Logits are multiplied here: the head is linear, and so every loss sees it."""
        x_BTD, multiplier = self.final_norm(x_BTD), self.config.logit_multiplier
        return x_BTD if multiplier == 1 else x_BTD * multiplier

    def _rotations(self, positions_BT: jax.Array) -> dict:
        """Of queries and keys in each kind of layer, by its mark in the window pattern; None: they are not rotated."""
        config = self.config
        if config.position != "rope":
            return dict.fromkeys("SLN")
        full = rope_rotation(positions_BT, rope_frequencies(config), rope_amplitude(config))
        local = rope_rotation(positions_BT, rope_frequencies(config, local=True)) if config.rope_local_theta else full
        return {"S": local, "L": full, "N": None}

    def _block(
        self,
        layer: int,
        params: Any,
        x_BTD: jax.Array,
        rotations: dict[str, Any],
        segments_BT: jax.Array | None,
        dropout_keys_B: jax.Array | None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """A layer of the kind of layer `layer`, with the given parameters."""
        block = self.block(self.config, layer_windows(self.config)[layer], parent=None)
        made: Any = block.apply(
            {"params": params},
            x_BTD,
            rotation=rotations[layer_marks(self.config)[layer]],
            segments_BT=segments_BT,
            dropout_keys_B=dropout_keys_B,
        )
        x_BTD, _, statistics = made
        return x_BTD if self.constrain is None else self.constrain(x_BTD), statistics

    def _run_unrolled(
        self,
        layers: Any,
        x_BTD: jax.Array,
        rotations: dict[str, Any],
        segments_BT: jax.Array | None,
        dropout_keys: jax.Array | None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        statistics: list[dict[str, jax.Array]] = []
        for index, params in enumerate(unstack_layers(layers, self.config.num_layers)):
            block = rematerialized(functools.partial(self._block, index), self.config.remat)
            dropout_keys_B = None if dropout_keys is None else dropout_keys[index]
            x_BTD, of_layer = block(params, x_BTD, rotations, segments_BT, dropout_keys_B)
            statistics.append(of_layer)
        return x_BTD, _stack(statistics)

    def _run_scanned(
        self,
        layers: Any,
        x_BTD: jax.Array,
        rotations: dict[str, Any],
        segments_BT: jax.Array | None,
        dropout_keys: jax.Array | None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """`lax.scan` is a for loop over the leading axis of its inputs that is compiled once, whatever the number of
        turns: `run_group` gets the stream and one slice of the stacked parameters, and returns the stream. (A PyTorch
        loop over modules is what `_run_unrolled` is: each layer is compiled by itself.)

        A turn runs one period of the window pattern, so that each kind of layer is static in the program; layers that
        do not fill a period run after the scan."""
        num_layers, period = self.config.num_layers, scan_period(self.config)
        scanned = num_layers // period * period
        stacked = (layers, None if dropout_keys is None else dropout_keys[:-1])

        def run(first: int, count: int, x_BTD: jax.Array, group: Any, in_scan: bool) -> tuple[jax.Array, Any]:
            statistics: list[dict[str, jax.Array]] = []
            for index in range(count):
                params, dropout_keys_B = jax.tree.map(operator.itemgetter(index), group)
                block = rematerialized(functools.partial(self._block, first + index), self.config.remat, in_scan)
                x_BTD, of_layer = block(params, x_BTD, rotations, segments_BT, dropout_keys_B)
                statistics.append(of_layer)
            return x_BTD, _stack(statistics)

        def run_group(x_BTD: jax.Array, group: Any) -> tuple[jax.Array, Any]:
            return run(0, period, x_BTD, group, in_scan=True)

        groups = jax.tree.map(lambda x: x[:scanned].reshape(-1, period, *x.shape[1:]), stacked)
        x_BTD, statistics = jax.lax.scan(run_group, x_BTD, groups)
        statistics = jax.tree.map(lambda x: x.reshape(scanned, *x.shape[2:]), statistics)
        if scanned < num_layers:
            rest = jax.tree.map(lambda x: x[scanned:], stacked)
            x_BTD, of_rest = run(scanned, num_layers - scanned, x_BTD, rest, in_scan=False)
            statistics = jax.tree.map(lambda *both: jnp.concatenate(both), statistics, of_rest)
        return x_BTD, statistics


def _stack(trees: list[dict[str, jax.Array]]) -> dict[str, jax.Array]:
    """One tree of equal trees: its arrays have a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def layer_marks(config: ModelSettings) -> str:
    """The mark of each layer: `window_pattern`, repeated.

    S: it sees the last `window` keys. L: the whole context. N: the whole context, without rotary positions (NoPE,
    arXiv:2305.19466; SmolLM3). Without a window S is L.
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
    """How many layers one step of the scan holds: the pattern's length, or 1 where all layers are of one kind."""
    return 1 if len(set(layer_marks(config))) == 1 else len(config.window_pattern)


def rematerialized(block: Callable, remat: str, in_scan: bool = False) -> Callable:
    """`block`, whose backward pass recomputes nothing (none), all but the matrix products (dots), everything (full).

    `jax.checkpoint` is PyTorch's `torch.utils.checkpoint`: what the block computes between its input and its output is
    not kept for the backward pass but computed again there, except for what the policy names. It has nothing to do with
    checkpoints on disk.

    `dots` keeps the attention output by name: its products have batch axes, and a second flash attention would be the
    dearest thing to recompute.
    """
    policies = jax.checkpoint_policies
    if remat == "none":
        return block
    if remat == "full":
        policy = None
    elif remat == "dots":
        policy = policies.save_only_these_names(PRODUCT, "attention_output")
    else:
        raise ConfigError(f"model.remat = {remat!r}: expected one of none, dots, full")
    # In a scan, forward and backward are two loops and cannot be merged; unrolled, XLA would undo the recomputation.
    return jax.checkpoint(block, policy=policy, prevent_cse=not in_scan)
