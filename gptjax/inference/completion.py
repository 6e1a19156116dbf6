"""The continuation of a prompt: finished (`Completion`), and while its tokens arrive (`GrowingCompletion`)."""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass, field

import numpy as np

from gptjax.config import RunError
from gptjax.inference.text import TextStream

FINISH_REASONS = {  # the limit that a text reached first
    "eos": "the end-of-text token",
    "stop": "a stop string",
    "max_new_tokens": "max_new_tokens",
    "context": "the end of the context",
}


@dataclass(frozen=True)
class Completion:
    """One continuation of one prompt."""

    prompt: str
    text: str  # without the prompt, cut before a stop string; a cut-off last character is U+FFFD
    tokens: list[int]  # all tokens drawn for the text, including EOS or the stop string
    # Log-probabilities of the tokens under the model's own distribution, before temperature and truncation.
    logprobs: list[float]
    finish_reason: str  # one of FINISH_REASONS
    seed: int
    unknown_characters: str = ""  # characters of the prompt for which the tokenizer only has <unk>
    score: float | None = None  # beam search: the score by which texts are compared (inference/beam.py)


@dataclass
class GrowingCompletion:
    """A completion in progress."""

    prompt: str
    prompt_tokens: list[int]
    seed: int
    limit: int  # new tokens
    limited_by: str  # 'max_new_tokens' or 'context'
    eos_id: int | None
    text: TextStream
    unknown_characters: str
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str | None = None
    score: float | None = None

    def add(self, tokens: np.ndarray, logprobs: np.ndarray) -> None:
        """Adds the next tokens until one of them ends the text.

        Raises:
          RunError: a token was drawn from logits that are not all finite.
        """
        for token, logprob in zip(tokens.tolist(), logprobs.tolist()):
            if self.finish_reason is not None:
                return
            if math.isnan(logprob):
                which = f"prompt = {reprlib.repr(self.prompt)}: the model's logits for new token {len(self.tokens) + 1}"
                raise RunError(
                    f"{which} are not finite, so no token can be drawn: the parameters hold NaN, or activations "
                    "overflow (an earlier checkpoint or --weights=float32 may help)"
                )
            self.tokens.append(token)
            self.logprobs.append(logprob)
            if token == self.eos_id:
                self.finish_reason = "eos"
            elif self.text.push(token):
                self.finish_reason = "stop"
            elif len(self.tokens) == self.limit:
                self.finish_reason = self.limited_by
            if self.finish_reason is not None:
                self.text.close()

    def finished(self) -> Completion:
        """The completion, once it has a `finish_reason`."""
        assert self.finish_reason is not None
        return Completion(
            self.prompt,
            self.text.text,
            self.tokens,
            self.logprobs,
            self.finish_reason,
            self.seed,
            self.unknown_characters,
            self.score,
        )
