"""What a model reads for a prompt: its tokens, with those that came before a text in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gptjax.config import ConfigError
from gptjax.display.formatting import counted
from gptjax.inference.text import check_text
from gptjax.model.family import Family
from gptjax.tokenizer import Tokenizer

# Objectives whose prompts are sources of pairs, for a decoder.
COMPLETING = ("completion", "preference", "grpo", "on_policy_distillation")


class FramedPrompt(NamedTuple):
    """A prompt as the model reads it."""

    text: str
    tokens: list[int]  # with the begin token, or those between a source and its target
    begins_text: bool  # whether the text that follows is the beginning of a document


def between_pairs(objective: str, eos_id: int | None, begin_id: int | None) -> list[int]:
    """The tokens between source and target of a pair, if the objective trains a decoder to complete pairs."""
    if objective not in COMPLETING:
        return []
    return [token for token in dict.fromkeys((eos_id, begin_id)) if token is not None]  # both may be the same token


@dataclass(frozen=True)
class Framing:
    """Frames prompts.

    Attributes:
      tokenizer: the tokenizer of prompts.
      begin_id: the token that every document started after in training; None: there is none.
      after_source: from `between_pairs`.
    """

    family: Family
    tokenizer: Tokenizer
    begin_id: int | None
    after_source: Sequence[int]

    @property
    def separator(self) -> str:
        """What stands between a prompt and its text: nothing, or a newline between a source and its target."""
        return "" if self.family.continues and not self.after_source else "\n"

    def framed(self, prompt: str | Sequence[int], begin: bool = True) -> FramedPrompt:
        """What the model reads for a prompt; see `Generator.generate` for the arguments.

        Raises:
          ConfigError: the prompt is not text, has other ids than the model's, is empty or longer than the context.
        """
        config, continues = self.family.config, self.family.continues
        vocab_size = config.vocab_size if continues else config.source_vocab_size
        is_text = isinstance(prompt, str)
        if isinstance(prompt, str):
            check_text("prompt", prompt)
            text, tokens = prompt, self.tokenizer.encode(prompt)
        else:
            text, tokens = "", [int(token) for token in prompt]
        if tokens and not 0 <= min(tokens) <= max(tokens) < vocab_size:
            extremes = f"{min(tokens)} to {max(tokens)}"
            raise ConfigError(f"prompt = token ids from {extremes}: must be from 0 to {vocab_size - 1}")
        if not is_text:  # padding of the vocabulary stands for no text
            text = self.tokenizer.decode([id for id in tokens if id < self.tokenizer.vocab_size])
        own_tokens = len(tokens)
        begin = begin and (is_text or not tokens or not continues)
        if is_text:
            tokens += self.after_source
        tokens = self.family.framed(tokens, self.begin_id if begin else None, self.tokenizer.eos_id)
        if not tokens:
            raise ConfigError("prompt = '': must not be empty without a begin token before it")
        field = self.family.prompt_field
        length, most = len(tokens) - (not continues), config[field]
        if length > most:
            added = (" with the begin token" if continues else " with its EOS") * (length > own_tokens)
            raise ConfigError(f"prompt = {counted(length, 'token')}{added}: must be at most model.{field} = {most}")
        return FramedPrompt(
            text, tokens, begins_text=begin and (own_tokens == 0 or not continues or bool(self.after_source))
        )
