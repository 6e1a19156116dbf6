"""Tokens as clients see them: a string each, its bytes, and its place in the text."""

from __future__ import annotations

import functools

from gptjax.inference.text import TextStream
from gptjax.tokenizer import Tokenizer


class TokenTexts:
    """The strings of a tokenizer's tokens.

    A control token, which stands for no text, has its name. A token that is only a part of a character is written as
    OpenAI does: 'bytes:\\xe2\\x82'.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self._controls = {id: name for name, id in tokenizer.control_ids.items()}
        self.text = functools.lru_cache(maxsize=1 << 16)(self._text)

    def bytes(self, token: int) -> list[int] | None:
        """The token's bytes; None for a control token, which has none."""
        return list(self.tokenizer.decode_bytes([token])) or None if self.has_text(token) else None

    def has_text(self, token: int) -> bool:
        """Whether it stands for bytes of a text."""
        return token not in self._controls and token < self.tokenizer.vocab_size

    def _text(self, token: int) -> str:
        if token in self._controls:
            return self._controls[token]
        if token >= self.tokenizer.vocab_size:  # a row of the embedding that no token uses
            return f"<unused {token}>"
        value = self.tokenizer.decode_bytes([token])
        try:
            return value.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in value)


class Places:
    """The place of each token in a growing text: the number of whole characters before it.

    begins: whether the first token begins a document.
    """

    def __init__(self, texts: TokenTexts, begins: bool = False):
        self._texts, self._stream = texts, TextStream(texts.tokenizer, begins=begins)

    def next(self, token: int) -> int:
        place = len(self._stream.text)
        if self._texts.has_text(token):
            self._stream.push(token)
        return place
