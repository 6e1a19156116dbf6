"""The settings of one request to the engine, with the names and meanings of vLLM's `SamplingParams`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gptjax.config import ConfigError
from gptjax.inference.text import stop_strings

MOST_LOGPROBS = 20  # alternatives per token; the programs compute this many for all rows, or none
MOST_STOP_TOKENS = 16  # token ids that end a text, beside the end-of-text token
MOST_BIASES = 300  # entries of logit_bias, as OpenAI allows
MOST_SAMPLES = 128  # n


@dataclass(frozen=True)
class SamplingParams:
    """How the texts of a request are drawn, and where they end. All values are checked when it is made.

    Attributes:
      n: the number of texts for the prompt; text i is drawn with the seed `seed + i`.
      max_tokens: a text has at most this many tokens; None: as many as the context has room for. 0: only the prompt is
        read, for its log-probabilities.
      min_tokens: no end-of-text token, stop token or stop string ends a text with fewer tokens.
      temperature: 0: always the most probable token.
      top_p, top_k, min_p: truncations of the distribution (see inference/sampling.py); off at 1, 0 (or -1) and 0.
      repetition_penalty: divides the logits of tokens that the prompt or the text already has; 1: off.
      presence_penalty: is subtracted from the logit of each token that the text already has.
      frequency_penalty: the same, once for each time that the text has the token.
      seed: from 0 to 2^32 - 1; None: a random one, which `Request.seed` then has.
      stop: the text ends before the first of these strings.
      stop_token_ids: the text ends before the first of these tokens.
      ignore_eos: the end-of-text token is a token like any other, and does not end the text.
      logprobs: for each token its log-probability, and this many most probable alternatives; None: neither.
      prompt_logprobs: the same for the tokens of the prompt; the first token has none. The whole prompt is then read,
        also where an earlier request had the same beginning.
      logit_bias: token id → a number from -100 to 100 that is added to the token's logit.
    """

    n: int = 1
    max_tokens: int | None = 16
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ConfigError with the name, the value and what is allowed, for the first value that is not."""
        self._check_integer("n", 1, MOST_SAMPLES)
        self._check_integer("max_tokens", 0, optional=True)
        self._check_integer("min_tokens", 0, 2**31 - 1)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            self._refuse("min_tokens", f"at most max_tokens = {self.max_tokens}")
        self._check_number("temperature", 0.0, 1e30, "0 (greedy) or a positive number up to 1e30")
        self._check_number("top_p", 0.0, 1.0, "above 0 and at most 1 (off)", above=True)
        self._check_integer("top_k", -1, 2**31 - 1, says="0 or -1 (off) or a positive integer")
        self._check_number("min_p", 0.0, 1.0, "from 0 (off) to 1")
        self._check_number("repetition_penalty", 1e-30, 1e30, "a number from 1e-30 to 1e30 (1: off)")
        self._check_number("presence_penalty", -2.0, 2.0, "from -2 to 2 (0: off)")
        self._check_number("frequency_penalty", -2.0, 2.0, "from -2 to 2 (0: off)")
        self._check_integer("seed", 0, 2**32 - 1, optional=True)
        if self.seed is not None and self.seed + self.n > 2**32:
            self._refuse("seed", f"at most 2^32 - {self.n}, so that each of the n = {self.n} texts has its own")
        self._check_integer("logprobs", 0, MOST_LOGPROBS, optional=True)
        self._check_integer("prompt_logprobs", 0, MOST_LOGPROBS, optional=True)
        if not isinstance(self.ignore_eos, bool):
            self._refuse("ignore_eos", "true or false")
        self._check_stops()
        if not isinstance(self.logit_bias, Mapping) or len(self.logit_bias) > MOST_BIASES:
            self._refuse("logit_bias", f"an object of at most {MOST_BIASES} token ids and numbers")
        for token, bias in self.logit_bias.items():
            if not (_is_integer(token) and token >= 0 and _is_number(bias) and -100 <= bias <= 100):
                self._refuse("logit_bias", "token ids with numbers from -100 to 100")

    @property
    def stops(self) -> tuple[str, ...]:
        return stop_strings(self.stop)

    def _check_stops(self) -> None:
        is_list = isinstance(self.stop, Sequence) and all(isinstance(stop, str) for stop in self.stop)
        if not is_list:
            self._refuse("stop", "a string or a list of strings")
        self.stops  # noqa: B018  # raises for an empty string
        ids = self.stop_token_ids
        if isinstance(ids, str) or not isinstance(ids, Sequence) or not all(_is_integer(i) and i >= 0 for i in ids):
            self._refuse("stop_token_ids", "a list of token ids")
        if len(set(ids)) > MOST_STOP_TOKENS:
            self._refuse("stop_token_ids", f"at most {MOST_STOP_TOKENS} token ids")

    def _check_integer(
        self, name: str, least: int, most: int | None = None, *, optional: bool = False, says: str = ""
    ) -> None:
        value = getattr(self, name)
        if optional and value is None:
            return
        if not _is_integer(value) or value < least or (most is not None and value > most):
            limits = f"an integer from {least} to {most}" if most is not None else f"an integer of at least {least}"
            self._refuse(name, says or limits)

    def _check_number(self, name: str, least: float, most: float, says: str, above: bool = False) -> None:
        value = getattr(self, name)
        if not _is_number(value) or not least <= value <= most or (above and value == least):
            self._refuse(name, says)

    def _refuse(self, name: str, allowed: str) -> None:
        raise ConfigError(f"{name} = {getattr(self, name)!r}: must be {allowed}")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
