"""Reads prompts from a file or a pipe (UTF-8, with or without a byte order mark), and checks the prompt of a config."""

from __future__ import annotations

import json
from pathlib import Path

from gptjax.config import ConfigError
from gptjax.inference.text import check_text
from gptjax.model.families import family_named
from gptjax.settings import Settings
from gptjax.tokenizer import Tokenizer


def read_prompts(path: Path, what: str = "prompt") -> list[str]:
    """One prompt per line; only \\n ends a line. A .jsonl file has one JSON string per line.

    what: the word for a prompt in messages; their flag is --prompts_file.

    Raises:
      ConfigError: the file cannot be read, is not UTF-8, is empty, or has other lines.
    """
    name = f"--{what}s_file={path}"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}: must be a file that can be read ({error.strerror})") from None
    lines = decoded(f"{name}:", raw).removesuffix("\n").split("\n") if raw else []
    lines = [line.removesuffix("\r") for line in lines]  # as Windows writes it
    try:
        prompts = [json.loads(line) for line in lines if line] if path.suffix == ".jsonl" else lines
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}: must hold one JSON string per line ({error})") from None
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise ConfigError(f"{name}: must hold at least one {what}, and nothing but strings")
    for number, prompt in enumerate(prompts, 1):
        check_text(f"{name}: {what} {number}", prompt)
    return prompts


def decoded(name: str, raw: bytes) -> str:
    """Decodes `raw` as UTF-8 text. name: the beginning of the error message.

    Raises:
      ConfigError: it is not UTF-8.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} must be UTF-8 text ({error})") from None


def check_sample_prompt(config: Settings, tokenizer: Tokenizer) -> None:
    """Raises ConfigError before training if the samples of `evaluation.sample_every` could not be generated."""
    evaluation, context = config.evaluation, config.model.max_positions
    if not family_named(config.model.family).writes:
        raise ConfigError(
            f"evaluation.sample_every = {evaluation.sample_every!r}: must be '' with model.family = "
            f"{config.model.family!r}, which cannot write text"
        )
    try:
        length = len(tokenizer.encode(evaluation.sample_prompt)) + 1  # the begin token
    except UnicodeEncodeError:
        raise ConfigError(f"evaluation.sample_prompt = {evaluation.sample_prompt!r}: must be text") from None
    if length > context:
        raise ConfigError(
            f"evaluation.sample_prompt = {evaluation.sample_prompt[:40]!r}: its {length} tokens, with the begin token, "
            f"must not exceed the context, model.max_positions = {context}"
        )
    if not evaluation.sample_tokens:
        raise ConfigError("evaluation.sample_tokens = 0: must be at least 1 if evaluation.sample_every is set")
