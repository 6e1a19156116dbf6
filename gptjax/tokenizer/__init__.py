"""Converts text to token ids and back: one interface (`Tokenizer`) for SentencePiece models, bytes, characters, and
tokenizers of Hugging Face.

interface.py             the interface
sentencepiece_model.py   SentencePiece models; words.py, merges.py: the same ids, faster
bytes_and_characters.py  tokenizers that need no training
huggingface.py           tokenizer.json of the `tokenizers` library; byte_level.py: how it writes bytes
loading.py               from a file, a prepared folder, a run, or a folder of Hugging Face
training.py              learns a vocabulary from text
sentencepiece_file.py    reads settings from the file of a SentencePiece model

    tokenizer = gptjax.tokenizer.load("data/mine")
    ids = tokenizer.encode("def f(x):")
"""

from gptjax.tokenizer.bytes_and_characters import ByteTokenizer, CharacterTokenizer
from gptjax.tokenizer.huggingface import HuggingFaceTokenizer
from gptjax.tokenizer.interface import CONTROL_TOKENS, Tokenizer
from gptjax.tokenizer.loading import load, load_of_sources
from gptjax.tokenizer.sentencepiece_model import SentencePieceTokenizer

__all__ = [
    "CONTROL_TOKENS",
    "ByteTokenizer",
    "CharacterTokenizer",
    "HuggingFaceTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "load",
    "load_of_sources",
]
