"""Writes a tokenizer as a `tokenizer.json` of the `tokenizers` library, with the same ids for every text.

Whatever cannot be written exactly is refused. A SentencePiece model becomes a BPE of that library: its merges are those
pairs of pieces that join to a piece, in the order of the pieces' scores. Pieces hold a plain space instead of
SentencePiece's '▁', so that a literal '▁' of a text stays what it is.

The `tokenizers` library finds the names of control tokens in a text and replaces them by their ids, which no tokenizer
here does. For a text that is not to be trusted, `transformers` has to be called with split_special_tokens=True; the ids
are then equal for these texts, too.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import tokenizers

from gptjax.config import ConfigError
from gptjax.tokenizer import ByteTokenizer, CharacterTokenizer, HuggingFaceTokenizer, SentencePieceTokenizer, Tokenizer
from gptjax.tokenizer.byte_level import CHARACTERS
from gptjax.tokenizer.sentencepiece_file import (
    BYTE,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    pieces,
    settings,
)
from gptjax.tokenizer.sentencepiece_model import SPACE_MARK

CHECKED = 1000  # texts of random pieces, beside those below
CHECKED_TEXTS = (
    *("", " ", "  two ", "\n\n\n", "\t\tx", "a\r\nb\r", "a\0b", SPACE_MARK, f"a{SPACE_MARK} b", "e\u0301", "\u0301"),
    *(
        "👩‍👩‍👧‍👦🏳️‍🌈",
        "\ufeffx",
        "\u200b\u202e",
        "\uffff\U0010ffff",
        "<s>hi</s>",
        "<0x0A>",
        "<unk>",
        "ﬁ ½ Å",
        "日本語 שלום",
    ),
)


def tokenizer_json(tokenizer: Tokenizer, begin_id: int | None = None) -> bytes:
    """The content of a tokenizer.json.

    Args:
      begin_id: the token that `transformers` puts before a text.

    Raises:
      ConfigError: the `tokenizers` library cannot express the tokenizer; the message names the setting.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        parts = _sentencepiece(tokenizer)
    elif isinstance(tokenizer, ByteTokenizer):
        parts = _bytes(tokenizer)
    elif isinstance(tokenizer, CharacterTokenizer):
        parts = _characters(tokenizer)
    elif isinstance(tokenizer, HuggingFaceTokenizer):
        return json.dumps(tokenizer.content, ensure_ascii=False, indent=1).encode() + b"\n"
    else:
        raise ConfigError(f"tokenizer.kind = {tokenizer.kind!r}: cannot be written as tokenizer.json")
    parts = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None if begin_id is None else _begins_with(control_names(tokenizer)[begin_id], begin_id),
    } | parts
    written = json.dumps(parts, ensure_ascii=False, indent=1).encode() + b"\n"
    _check(written, tokenizer)
    return written


def control_names(tokenizer: Tokenizer) -> dict[int, str]:
    """id → name of each control token in the tokenizer's own file."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        vocabulary = pieces(tokenizer.file_bytes)
        return {i: vocabulary[i].text for i in tokenizer.control_ids.values()}
    return {i: name for name, i in reversed(tokenizer.control_ids.items())}


def _sentencepiece(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    stated, vocabulary = settings(tokenizer.file_bytes), pieces(tokenizer.file_bytes)
    _check_sentencepiece(tokenizer)
    joined = {piece.text: piece.score for piece in vocabulary if piece.type == NORMAL}
    # SentencePiece looks for symbols in a text whose spaces are '▁' already: one with a plain space is never found.
    symbols = [i for i, each in enumerate(vocabulary) if each.type == USER_DEFINED and " " not in each.text]
    names = [
        piece.text.replace(SPACE_MARK, " ") if piece.type in (NORMAL, USER_DEFINED) else piece.text
        for piece in vocabulary
    ]
    merges = _merges(joined, [piece.text for piece in vocabulary]) if tokenizer.kind == "bpe" else []
    decoders: list[dict[str, Any]] = [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if stated.dummy_prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(tokenizer)},
        "added_tokens": _added(tokenizer, [(names[i], i) for i in symbols]),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _bpe(
            {name: i for i, name in enumerate(names)},
            [[left.replace(SPACE_MARK, " "), right.replace(SPACE_MARK, " ")] for left, right in merges],
            unk_token=names[tokenizer.unk_id or 0],
            fuse_unk=True,
            byte_fallback=any(piece.type == BYTE for piece in vocabulary),
        ),
    }


def _check_sentencepiece(tokenizer: SentencePieceTokenizer) -> None:
    """Raises ConfigError for a setting that the `tokenizers` library does not have."""
    stated, vocabulary = settings(tokenizer.file_bytes), pieces(tokenizer.file_bytes)
    kinds = [piece.type for piece in vocabulary]
    scores = [piece.score for piece in vocabulary if piece.type == NORMAL and len(piece.text) > 1]
    if tokenizer.kind not in ("bpe", "char"):
        why = {"unigram": "sums scores in another precision, so that some texts would have other ids"}
        problem = f"kind = {tokenizer.kind!r}: the tokenizers library {why.get(tokenizer.kind, 'has no such kind')}"
    elif not stated.marks_spaces:
        problem = "escape_whitespaces = False: not supported"
    elif stated.spaces_are_suffixes:
        problem = "treat_whitespace_as_suffix = True: not supported"
    elif USER_DEFINED in kinds and stated.dummy_prefix:
        problem = "add_dummy_prefix = True with user-defined symbols: a space would be added after each symbol"
    elif USER_DEFINED in kinds and stated.removes_spaces:
        problem = "remove_extra_whitespaces = True with user-defined symbols: spaces around a symbol would be removed"
    elif stated.rewrites:
        problem = "normalization_rule_name other than identity: the tokenizers library rewrites some texts otherwise"
    elif any(piece.type == NORMAL and " " in piece.text for piece in vocabulary):
        problem = "pieces with a plain space: not supported"
    elif UNUSED in kinds:
        problem = f"pieces of type UNUSED, such as {vocabulary[kinds.index(UNUSED)].text!r}: not supported"
    elif tokenizer.kind == "bpe" and len({*scores}) < len(scores):
        problem = "several pieces with the same score: the order of merges would be another"
    else:
        return
    raise ConfigError(f"tokenizer: cannot be written as tokenizer.json with the same ids: {problem}")


def _merges(scores: dict[str, float], order: list[str]) -> list[tuple[str, str]]:
    """Pairs of pieces that join to a piece; the pair of the highest score first."""
    number = {text: i for i, text in enumerate(order)}
    found = [
        (-score, number[text[:cut]], text[:cut], text[cut:])
        for text, score in scores.items()
        for cut in range(1, len(text))
        if text[:cut] in scores and text[cut:] in scores
    ]
    return [(left, right) for _, _, left, right in sorted(found)]


def _normalizers(tokenizer: SentencePieceTokenizer) -> list[dict[str, Any]]:
    """What SentencePiece does to a text before it looks for pieces."""
    stated = settings(tokenizer.file_bytes)
    steps = []
    if stated.removes_spaces:
        steps += [_replace(r"\A +", ""), _replace(" {2,}", " ")]
    if not tokenizer.lossless:  # only then is a literal '▁' a space, as SentencePiece has it
        steps.append(_replace(SPACE_MARK, " "))
    if stated.removes_spaces:
        steps.append(_replace(r" +\z", ""))
    if stated.dummy_prefix:  # before every text but an empty one, and one that begins with a literal '▁'
        steps.append(_replace(rf"\A(?=[^{SPACE_MARK}])", " "))
    return steps


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _bytes(tokenizer: ByteTokenizer) -> dict[str, Any]:
    names = {CHARACTERS[byte]: i for i in range(tokenizer.vocab_size) for byte in tokenizer.decode_bytes([i])}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "added_tokens": _added(tokenizer),
        "pre_tokenizer": level,
        "decoder": level,
        "model": _bpe(tokenizer.control_ids | names, []),
    }


def _characters(tokenizer: CharacterTokenizer) -> dict[str, Any]:
    controls = set(tokenizer.control_ids.values())
    names = {tokenizer.decode([i]): i for i in range(tokenizer.vocab_size) if i not in controls}
    return {
        "added_tokens": _added(tokenizer),
        "decoder": {"type": "Fuse"},
        "model": _bpe(tokenizer.control_ids | names, [], unk_token=control_names(tokenizer)[tokenizer.unk_id or 0]),
    }


def _bpe(vocabulary: dict[str, int], merges: list[list[str]], **options: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
    fields |= {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    vocabulary = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    return fields | options | {"vocab": vocabulary, "merges": merges}


def _added(tokenizer: Tokenizer, symbols: Sequence[tuple[str, int]] = ()) -> list[dict[str, Any]]:
    """The control tokens, and symbols: (text, id) of tokens that are found before all others."""
    found = [(i, name, True) for i, name in control_names(tokenizer).items()] + [
        (i, text, False) for text, i in symbols
    ]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [{"id": i, "content": text, **plain, "special": special} for i, text, special in sorted(found)]


def _begins_with(name: str, token: int) -> dict[str, Any]:
    """Puts a token before a text, or before the first of two."""
    special, first = {"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [special, first],
        "pair": [special, first, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {name: {"id": name, "ids": [token], "tokens": [name]}},
    }


def _check(written: bytes, tokenizer: Tokenizer) -> None:
    """Raises ConfigError if one of many texts has other ids."""
    made = tokenizers.Tokenizer.from_str(written.decode())
    made.encode_special_tokens = True
    draw, texts = random.Random(0), list(CHECKED_TEXTS)
    for _ in range(CHECKED):
        drawn = [draw.randrange(tokenizer.vocab_size) for _ in range(draw.randrange(1, 12))]
        texts.append(tokenizer.decode(drawn) + " " * draw.randrange(4))
    for text, ids in zip(texts, tokenizer.encode_batch(texts)):
        theirs = made.encode(text, add_special_tokens=False).ids
        if theirs != ids.tolist():
            raise ConfigError(
                f"tokenizer: cannot be written as tokenizer.json with the same ids: {text!r} would become "
                f"{theirs} instead of {ids.tolist()}"
            )
