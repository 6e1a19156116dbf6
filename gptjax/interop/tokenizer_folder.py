"""Writes a tokenizer's files into a folder of `transformers`.

  tokenizer.json                text → ids
  tokenizer_config.json         names of special tokens, and how a conversation is written
  special_tokens_map.json       the same names
  generation_config.json        where an answer ends
  tokenizer.model               the SentencePiece model, if it is one

One source decides what begins a text, what ends it, and what is written around messages, so that no two of these files
can say different things.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gptjax.conversation import Template
from gptjax.files import write_aside
from gptjax.interop.tokenizer_json import control_names, tokenizer_json
from gptjax.tokenizer import SentencePieceTokenizer, Tokenizer

GUESSED = (49152, 32016)  # llama.cpp's converter takes models with so many tokens for models of others


def write_tokenizer(
    folder: Path, tokenizer: Tokenizer, template: Template | None, *, begin_id: int | None, context: int
) -> tuple[list[str], list[str]]:
    """Writes the files, and returns their names and what the user should know.

    Args:
      template: of the conversations that the model was trained on; None: it was not.
      begin_id: the token that begins a text; None: there is none.
      context: the number of tokens that the model can read.

    Raises:
      ConfigError: the `tokenizers` library cannot express the tokenizer exactly.
    """
    names = special_names(tokenizer, template, begin_id)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        **names,
    }
    if template is not None:
        settings["chat_template"] = chat_template(template)
    contents = {
        "tokenizer.json": tokenizer_json(tokenizer, begin_id),
        "tokenizer_config.json": _json(settings),
        "special_tokens_map.json": _json(names),
        "generation_config.json": _json(special_ids(tokenizer, template, begin_id)),
    }
    if isinstance(tokenizer, SentencePieceTokenizer):
        contents[tokenizer.file_name] = tokenizer.file_bytes
    for name, content in contents.items():
        with write_aside(folder / name) as file:
            file.write(content)
    return list(contents), _notes(tokenizer)


def chat_template(template: Template, generation: bool = True) -> str:
    """A template in Jinja that also writes the token that begins a text."""
    return "{{- bos_token -}}\n" + template.jinja(generation)


def special_ids(
    tokenizer: Tokenizer, template: Template | None, begin_id: int | None
) -> dict[str, int | list[int] | None]:
    """bos_token_id, eos_token_id and pad_token_id, as in generation_config.json and config.json.

    A model of conversations stops at the end of its turn, or of a text.
    """
    end = tokenizer.eos_id
    ends = [end] if template is None else list(dict.fromkeys([tokenizer.control_ids[template.end], end]))
    stops = [each for each in ends if each is not None]
    return {
        "bos_token_id": begin_id,
        "eos_token_id": stops[0] if len(stops) == 1 else stops,
        "pad_token_id": end if tokenizer.pad_id is None else tokenizer.pad_id,
    }


def special_names(tokenizer: Tokenizer, template: Template | None, begin_id: int | None) -> dict[str, str]:
    """bos_token, eos_token, pad_token and unk_token, those that there are."""
    ids = special_ids(tokenizer, template, begin_id)
    end = ids["eos_token_id"]
    found = {
        "bos_token": begin_id,
        "eos_token": end[0] if isinstance(end, list) else end,
        "pad_token": ids["pad_token_id"],
        "unk_token": tokenizer.unk_id,
    }
    names = control_names(tokenizer)
    return {name: names[token] for name, token in found.items() if isinstance(token, int)}


def _notes(tokenizer: Tokenizer) -> list[str]:
    notes = [
        "transformers turns the name of a control token within a text into its id; split_special_tokens=True "
        "prevents that"
    ]
    if tokenizer.vocab_size in GUESSED:
        notes.append(
            f"a vocabulary of exactly {tokenizer.vocab_size:,} tokens makes the converter of llama.cpp take the model "
            "for another one: use --format=gguf"
        )
    return notes


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
