"""Text to token ids and back: one interface (`Tokenizer`) for SentencePiece models, bytes and characters.

kinds.py             the interface and what implements it
training.py          learning a vocabulary from text
sentencepiece_file.py  what a SentencePiece model's file says of itself

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
)

__all__ = ["CONTROL_TOKENS", "ByteTokenizer", "CharacterTokenizer", "SentencePieceTokenizer", "Tokenizer", "load"]
