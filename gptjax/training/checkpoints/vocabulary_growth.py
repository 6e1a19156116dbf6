"""A warm start with control tokens that the other run does not know: its parameters get rows for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptjax.config import ConfigError
from gptjax.data.mixture import parse_mixture
from gptjax.settings import Settings
from gptjax.tokenizer import load


@dataclasses.dataclass(frozen=True)
class Growth:
    """How the vocabulary of a run differs from that of the run from which it starts.

    Attributes:
      before, after: the numbers of tokens of the two models.
      names: the control tokens of this run's tokenizer that the other's does not have.
    """

    before: int
    after: int
    names: tuple[str, ...]

    def note(self) -> str:
        rows = f"; {self.after - self.before} rows for them begin near the mean of all others" * self.is_of_rows
        return f"new control tokens: {', '.join(self.names)}{rows}"

    @property
    def is_of_rows(self) -> bool:
        """False if the other model has rows to spare, which no token of its tokenizer uses."""
        return self.before < self.after


def growth_of(config: Settings, saved: Mapping[str, Any]) -> Growth | None:
    """None unless the tokenizer of `data.path` is that of the run of `saved`, with further control tokens.

    config: resolved. saved: the metadata of the newest checkpoint of `training.init_from`.
    """
    ours = load(parse_mixture(config.data.path)[0][0])
    try:
        theirs = load(config.training.init_from)
    except ConfigError:  # the message about different tokenizers says what is wrong
        return None
    expected = saved["fingerprint"]["tokenizer_hash"]
    if ours.hash == expected or theirs.hash != expected or not ours.extends(theirs):
        return None
    names = tuple(name for name, i in ours.control_ids.items() if i >= theirs.vocab_size)
    return Growth(saved["config"]["model"]["vocab_size"], config.model.vocab_size, names)


def grown(params: Any, fresh: Any) -> Any:
    """Parameters with the shapes of `fresh`. Old rows stay bit-equal; a new row is the mean of the old ones plus the
    fresh values.

    The mean keeps the logits of new tokens within the range of the others (Hewitt 2021, "Initializing new word
    embeddings for pretrained language models"). The fresh values are small and random, so that new tokens differ.
    """

    def one(old: jax.Array, new: jax.Array) -> jax.Array:
        for axis, (before, after) in enumerate(zip(old.shape, new.shape)):
            if before < after:
                added = jax.lax.slice_in_dim(new, before, after, axis=axis)
                old = jnp.concatenate([old, old.mean(axis, keepdims=True) + added], axis)
        return old

    return jax.tree.map(one, params, fresh)
