"""The interface of a model family for the code that trains it, counts its parameters or generates text with it."""

from __future__ import annotations

import abc
import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax

from gptjax.config import ConfigError, suggestion
from gptjax.config.named_functions import is_named, named_function
from gptjax.model import lora
from gptjax.model.checks import check_length
from gptjax.model.flops import CAUSAL_LAYERS
from gptjax.model.lora import check_adapters
from gptjax.model.parameters import declarations_of
from gptjax.model.placement import ONE_DEVICE, Placement
from gptjax.model.resolve import resolve_model
from gptjax.settings import ModelSettings


class Cache(Protocol):
    """A pytree whose arrays have the batch as their first axis, so that a row of one can replace a row of another.

    Each family has its own class. Generation uses only what is declared here, so that it also works for a model with a
    second, fixed cache (an encoder's output).
    """

    @property
    def num_slots(self) -> int:
        """The maximum number of tokens that a row can hold."""

    def grown(self, more: int) -> Cache:
        """The same rows with room for `more` further tokens."""

    def with_slots(self, slots: int) -> Cache:
        """The same rows, none of which has more than `slots` tokens, with room for this number."""


@dataclass(frozen=True)
class Family(abc.ABC):
    """A kind of model: its parameters, its training, its generation and its cost.

    A new family is a file with a subclass and a row of `families.FAMILIES`. For a family outside of the package, set
    `model.family = 'module:Class'`. Families are hashable, because a compiled program is kept for each.

    Attributes:
      config: the `model` section, resolved.
      placement: how the work of `prefill` and `step` is divided over devices.
      objectives: the built-in objectives that can train it.
      writes: whether it can generate text.
      continues: whether generated text continues the prompt; otherwise the prompt is a source and the text its target.
      prompt_field: the field of `model` that limits the tokens of a prompt.
      reads_in_pieces: whether it has `empty_cache`, `read` and `logits`, so that several calls may read a prompt,
        and its cache is a `KeyValueCache`, so that the keys and values of a prompt's beginning may be kept.
      branches: whether `hidden` takes ends_BT, for texts in a row that share their beginning, and wanted_BQ,
        the places whose output is wanted; otherwise the context is read again for each continuation.
      warm_part: the part of its parameters that a run of another family can provide (`training.init_from`); '': all.
    """

    objectives: ClassVar[tuple[str, ...]] = (
        *("next_token", "completion", "instruction", "distillation", "preference", "grpo", "on_policy_distillation"),
    )
    writes: ClassVar[bool] = True
    continues: ClassVar[bool] = True
    prompt_field: ClassVar[str] = "max_positions"
    reads_in_pieces: ClassVar[bool] = False
    branches: ClassVar[bool] = False
    warm_part: ClassVar[str] = ""

    config: ModelSettings
    placement: Placement = ONE_DEVICE

    # --- Config

    @classmethod
    def validate(cls, config_model: Any, sequence_length: int) -> None:
        """Checks the family's own fields of the `model` section, where 0 and `auto` may still stand for "derived".

        This method only compares `max_positions` with the length of a row, and checks the fields of adapters.
        model/checks.py has the checks that families share.

        Raises:
          ConfigError: names the field, its value and what is allowed.
        """
        check_length(config_model, sequence_length)
        check_adapters(config_model)

    @classmethod
    def resolve(
        cls,
        config_model: Any,
        *,
        platform: str,
        vocab_size: int,
        sequence_length: int,
        packed: bool = False,
        source_vocab_size: int = 0,
        source_length: int = 0,
    ) -> ModelSettings:
        """The `model` section with every `auto` and every 0 that stands for "derived" replaced.

        The first arguments are those of `resolve_model`, which this method calls. A family may override this method.

        Args:
          source_vocab_size: the size of the sources' own vocabulary; 0: they have none.
          source_length: S of the sources of pairs; 0: the data are not pairs.

        Raises:
          ConfigError: as for `validate`, or a field cannot work on this platform or with these data.
        """
        cls.validate(config_model, sequence_length)
        return resolve_model(
            config_model, platform=platform, vocab_size=vocab_size, sequence_length=sequence_length, packed=packed
        )

    # --- Parameters and training

    @abc.abstractmethod
    def module(self, placement: Placement = ONE_DEVICE) -> nn.Module:
        """The Linen module. It has the attributes `config` and `logit_softcap` (0: none), and these methods:

            declare()                   visits every parameter without a forward pass; initialization calls it
            hidden(tokens_BT, segments_BT=None, positions_BT=None, dropout_keys_B=None) → (x_BTD, statistics)
                                        the vectors that the output matrix turns into logits, and the statistics of
                                        the blocks, a dict of arrays [L, B, …] that may be empty
            output_matrix() → head_DV   the output matrix; logits are then squashed to within ±logit_softcap

        `hidden` and `output_matrix` are what the objective next_token calls; an objective that needs other inputs
        needs a family whose `hidden` takes them.

        Args:
          placement: says how the work is divided over devices (see `Placement`).
        """

    @property
    def declarations(self) -> dict[str, Any]:
        """The `Parameter` of each array, in a nested dict like that of the parameters; nothing is allocated.

        Raises as `declarations_of` and, if the model has adapters, as `lora.with_adapters` does.
        """
        return _declarations(self)

    def init_params(self, key: jax.Array) -> dict[str, Any]:
        """Fresh parameters, a nested dict."""
        return _init_params(self, key)

    @property
    def flop_formulas(self) -> Mapping[str, str]:
        """The formulas of `flops_per_token` as text, one for each of flops.CONVENTIONS."""
        return CAUSAL_LAYERS

    @abc.abstractmethod
    def flops_per_token(self, sequence_length: int, source_length: int = 0) -> dict[str, float]:
        """FLOPs of training on one token, for each of flops.CONVENTIONS.

        For pairs, this is one token of a target together with its share of the source.
        """

    # --- Generation: read the prompts (`prefill`), then one token after another (`step`)

    def framed(self, tokens: list[int], begin_id: int | None, eos_id: int | None) -> list[int]:
        """The prompt that `prefill` reads, from its text's tokens.

        Args:
          begin_id: the token that a document starts after; None: the text is from inside a document.
          eos_id: the token that ends a document; None: the tokenizer has none.

        Raises:
          ConfigError: the family cannot start a text that way.
        """
        return tokens if begin_id is None else [begin_id, *tokens]

    def room(self, prompt_tokens: int) -> int:
        """The maximum number of new tokens after a prompt. The last new token is generated, but not read."""
        return self.config.max_positions - prompt_tokens + 1

    @abc.abstractmethod
    def prefill(
        self, params: Any, prompt_BT: jax.Array, lengths_B: jax.Array, *, room: int, piece: int
    ) -> tuple[Cache, jax.Array]:
        """Reads each row's prompt.

        Args:
          params: from `inference.decode.decoding_params`, where stacks of layers are lists.
          prompt_BT: int32; row b's prompt is its first lengths_B[b] ≥ 1 tokens, and what follows is ignored.
          room: the minimum number of further tokens for which the cache of every row has room afterwards.
          piece: the maximum number of tokens that are read at a time. T must be a multiple of it, or smaller.

        Returns:
          the cache, and the logits [B, V] of the token that follows each prompt.
        """

    @abc.abstractmethod
    def step(self, params: Any, cache: Any, token_B: jax.Array, going_B: jax.Array) -> tuple[Any, jax.Array]:
        """Reads one more token in each row; returns the cache and the logits [B, V] of the next token.

        Args:
          going_B: bool; rows where it is False do not change, and their logits have no meaning.
        """

    # --- The same in smaller steps, for families that read in pieces

    def empty_cache(self, batch: int, slots: int) -> Cache:
        """The cache of rows that have read nothing."""
        raise NotImplementedError

    def read(
        self,
        params: Any,
        cache: Any,
        tokens_BT: jax.Array,
        num_new_B: jax.Array,
        wanted_BQ: jax.Array | None = None,
    ) -> tuple[Any, jax.Array]:
        """Reads the first num_new_B[b] ≤ T tokens in row b; the cache must have T free slots in every row.

        Args:
          wanted_BQ: the places of those of the T tokens whose x is wanted, which is then [B, Q, D]. None: all.

        Returns:
          the cache, and x_BTD, which `logits` turns into the logits of the tokens that follow each token; it has no
          meaning after the first num_new_B[b].
        """
        raise NotImplementedError

    def logits(self, params: Any, x_BTD: jax.Array) -> jax.Array:
        """Logits [B, T, V] in float32 from what `read` returns."""
        raise NotImplementedError


class ReadingFamily(Family):
    """A family that reads text and cannot generate it. Check `writes` before calling these methods."""

    writes: ClassVar[bool] = False

    def prefill(
        self, params: Any, prompt_BT: jax.Array, lengths_B: jax.Array, *, room: int, piece: int
    ) -> tuple[Cache, jax.Array]:
        raise ConfigError(f"model.family = {self.config.family!r}: such a model reads text and cannot write it")

    def step(self, params: Any, cache: Any, token_B: jax.Array, going_B: jax.Array) -> tuple[Any, jax.Array]:
        raise ConfigError(f"model.family = {self.config.family!r}: such a model reads text and cannot write it")


@functools.cache
def _declarations(family: Family) -> dict[str, Any]:
    declared = declarations_of(family.module(), method="declare")
    return lora.with_adapters(declared, family.config, family.warm_part) if family.config.lora_rank else declared


@functools.partial(jax.jit, static_argnums=0)
def _init_params(family: Family, key: jax.Array) -> dict[str, Any]:
    params = family.module().init(key, method="declare")["params"]
    return lora.completed(family.declarations, params, key) if family.config.lora_rank else params


def named_family(families: Mapping[str, type[Family]], field: str, name: str) -> type[Family]:
    """The family that a field of the config names: a key of `families`, or a user's own 'module:Class'.

    Raises:
      ConfigError: there is no such family, or the class is not a Family or lacks a method.
    """
    if not is_named(name):
        if name not in families:
            raise ConfigError(
                f"{field} = {name!r}: expected one of {', '.join(families)}, or module:Class of your own"
                f"{suggestion(name, families)}"
            )
        return families[name]
    own = named_function(field, name)
    if not (inspect.isclass(own) and issubclass(own, Family)):
        raise ConfigError(f"{field} = {name!r}: must be a subclass of gptjax.model.family.Family")
    if missing := sorted(own.__abstractmethods__):
        raise ConfigError(f"{field} = {name!r}: must define {', '.join(missing)}")
    return own
