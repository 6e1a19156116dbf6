"""A tokenizer in a GGUF file: SentencePiece's BPE, bytes, and byte-level BPE whose words llama.cpp finds, too."""

from __future__ import annotations

from typing import Any, NamedTuple

from gptjax.config import ConfigError
from gptjax.conversation import Template
from gptjax.interop.tokenizer_folder import chat_template, special_ids
from gptjax.interop.tokenizer_json import control_names
from gptjax.tokenizer import ByteTokenizer, HuggingFaceTokenizer, SentencePieceTokenizer, Tokenizer
from gptjax.tokenizer.byte_level import CHARACTERS
from gptjax.tokenizer.sentencepiece_file import USER_DEFINED, pieces, settings

NORMAL, CONTROL, SYMBOL, UNUSED_ROW = 1, 3, 4, 5  # types of tokens; those of SentencePiece have the same numbers
LEAST_SCORE = -1e4  # of rows that no token has
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
# How a text is divided into words → llama.cpp's name for it, and whether it takes a word that is a token whole.
WORDS = {
    _WORDS % "{1,3}": ("llama-bpe", True),
    _WORDS % "": ("qwen2", False),
}
GPT2_WORDS = ("gpt-2", False)


class Vocabulary(NamedTuple):
    model: str  # llama.cpp's kind of tokenizer
    words: str  # how it divides a text into words
    tokens: list[bytes]
    types: list[int]
    scores: list[float]  # of SentencePiece
    merges: list[str]  # of byte-level BPE
    space: bool = False  # whether a space is added before a text


def add_tokenizer(
    writer: Any, tokenizer: Tokenizer, template: Template | None, begin_id: int | None, rows: int
) -> list[str]:
    """Adds the tokenizer, its special tokens and the template of conversations; returns what the user should know.

    Args:
      writer: of the gguf package.
      rows: of the model's table of tokens; rows that no token has get a name of their own.

    Raises:
      ConfigError: llama.cpp would give other ids; the message names the setting.
    """
    vocabulary = _vocabulary(tokenizer)
    unused = range(len(vocabulary.tokens), rows)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.words)
    writer.add_token_list([*vocabulary.tokens, *(f"[PAD{i}]".encode() for i in unused)])
    writer.add_token_types([*vocabulary.types, *(UNUSED_ROW for _ in unused)])
    if vocabulary.scores:
        writer.add_token_scores([*vocabulary.scores, *(LEAST_SCORE for _ in unused)])
    else:
        writer.add_token_merges(vocabulary.merges)
    writer.add_add_space_prefix(vocabulary.space)
    ids = special_ids(tokenizer, template, begin_id)
    end = ids["eos_token_id"]
    writer.add_eos_token_id(end[0] if isinstance(end, list) else end)
    if template is not None:
        writer.add_eot_token_id(tokenizer.control_ids[template.end])
        writer.add_chat_template(chat_template(template, generation=False))
    if ids["pad_token_id"] is not None:
        writer.add_pad_token_id(ids["pad_token_id"])
    if tokenizer.unk_id is not None:
        writer.add_unk_token_id(tokenizer.unk_id)
    if begin_id is not None:
        writer.add_bos_token_id(begin_id)
    writer.add_add_bos_token(begin_id is not None)
    writer.add_add_eos_token(False)
    return _notes(tokenizer)


def _vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    if isinstance(tokenizer, SentencePieceTokenizer):
        return _sentencepiece(tokenizer)
    if isinstance(tokenizer, ByteTokenizer):
        names = {i: CHARACTERS[byte] for i in range(tokenizer.vocab_size) for byte in tokenizer.decode_bytes([i])}
        # llama.cpp wants at least one merge: this one is of bytes that no text has.
        return _byte_level(tokenizer, names, [f"{CHARACTERS[255]} {CHARACTERS[255]}"], "gpt-2")
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return _hugging_face(tokenizer)
    raise ConfigError(f"--format=gguf: tokenizer.kind = {tokenizer.kind!r}: llama.cpp has no such tokenizer")


def _sentencepiece(tokenizer: SentencePieceTokenizer) -> Vocabulary:
    stated, found = settings(tokenizer.file_bytes), pieces(tokenizer.file_bytes)
    symbols = [piece.text for piece in found if piece.type == USER_DEFINED]
    problem = ""
    if tokenizer.kind != "bpe":
        problem = f"tokenizer.kind = {tokenizer.kind!r}: llama.cpp has only 'bpe' of SentencePiece"
    elif not tokenizer.lossless:
        problem = "the SentencePiece model has no byte_fallback, or changes texts before it encodes them"
    elif long := [text for text in symbols if len(text) > 1]:
        problem = f"the user-defined symbol {long[0]!r}: must be a single character"
    if problem:
        raise ConfigError(f"--format=gguf: {problem}")
    return Vocabulary(
        "llama",
        "default",
        [piece.text.encode() for piece in found],
        [piece.type for piece in found],
        [piece.score for piece in found],
        [],
        space=stated.dummy_prefix,
    )


def _byte_level(tokenizer: Tokenizer, names: dict[int, str], merges: list[str], words: str) -> Vocabulary:
    """names: id → name of each token that is no control token."""
    controls = control_names(tokenizer)
    tokens, types = [], []
    for i in range(tokenizer.vocab_size):
        tokens.append((controls.get(i) or names.get(i) or f"[PAD{i}]").encode())
        types.append(CONTROL if i in controls else NORMAL if i in names else UNUSED_ROW)
    return Vocabulary("gpt2", words, tokens, types, [], merges)


def _hugging_face(tokenizer: HuggingFaceTokenizer) -> Vocabulary:
    content = tokenizer.content
    model = content["model"]
    words, takes_whole = _words(content)
    if bool(model.get("ignore_merges")) is not takes_whole:
        raise ConfigError(f"--format=gguf: model.ignore_merges = {not takes_whole}: {words} of llama.cpp has the other")
    names = {i: name for name, i in model["vocab"].items()}
    symbols = {token["id"]: token["content"] for token in content["added_tokens"] if not token["special"]}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    made = _byte_level(tokenizer, names | symbols, merges, words)
    for i in symbols:
        made.types[i] = SYMBOL
    return made


def _words(content: dict[str, Any]) -> tuple[str, bool]:
    """llama.cpp's name for the way in which a text is divided into words, and whether it takes tokens whole."""
    part = content["pre_tokenizer"] or {}
    steps = part["pretokenizers"] if part.get("type") == "Sequence" else [part]
    *before, last = steps
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        if not before and last.get("use_regex", True):
            return GPT2_WORDS
        if len(before) == 1 and before[0].get("type") == "Split" and not last.get("use_regex", True):
            pattern = before[0]["pattern"].get("Regex")
            if pattern in WORDS and before[0]["behavior"] == "Isolated" and not before[0]["invert"]:
                return WORDS[pattern]
    raise ConfigError(
        "--format=gguf: pre_tokenizer: llama.cpp divides texts into words in other ways; those of GPT-2, Llama 3 and "
        "Qwen 2 can be written"
    )


def _notes(tokenizer: Tokenizer) -> list[str]:
    if isinstance(tokenizer, SentencePieceTokenizer):
        return ["llama.cpp reads a literal '▁' (U+2581) in a text as a space"]
    if isinstance(tokenizer, HuggingFaceTokenizer) and tokenizer.content.get("normalizer"):
        return ["llama.cpp does not normalize texts, as the tokenizer does: for few texts the ids differ"]
    return []
