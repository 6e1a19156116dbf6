"""Converts text to token ids and back: one interface (`Tokenizer`) for SentencePiece models, bytes and characters.

kinds.py               the interface and its implementations
training.py            learns a vocabulary from text
sentencepiece_file.py  reads settings from the file of a SentencePiece model

    tokenizer = gptjax.tokenizer.load("data/mine")
    ids = tokenizer.encode("def f(x):")
"""

from gptjax.tokenizer.kinds import (
    CONTROL_TOKENS,
    ByteTokenizer,
    CharacterTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    load,
    load_of_sources,
)

__all__ = [
    "CONTROL_TOKENS",
    "ByteTokenizer",
    "CharacterTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "load",
    "load_of_sources",
]
