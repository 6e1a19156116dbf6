"""Turns tokens, one at a time, into text to show: only whole characters, and no part of a stop string."""

from __future__ import annotations

import codecs
import reprlib
from collections.abc import Sequence

from gptjax.errors import ConfigError, setting_text
from gptjax.tokenizer import Tokenizer


def check_text(name: str, text: str) -> None:
    """Raises ConfigError, whose message begins with `name`, if the text contains bytes that were not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{setting_text(name, reprlib.repr(text))}: must be UTF-8 text ({error.reason})") from None


def stop_strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    """The stop strings as a tuple. Raises ConfigError for one that is empty or not text."""
    strings = (stop,) if isinstance(stop, str) else tuple(stop)
    for string in strings:
        if not string:
            raise ConfigError("stop = '': must have at least one character")
        check_text("stop", string)
    return strings


def unknown_characters(tokenizer: Tokenizer, text: str) -> str:
    """The distinct characters for which the tokenizer has only <unk>."""
    if tokenizer.unk_id is None or tokenizer.unk_id not in tokenizer.encode(text):
        return ""
    return "".join(each for each in dict.fromkeys(text) if tokenizer.unk_id in tokenizer.encode(each))


class TextStream:
    """The growing text of one row.

    A character whose bytes are spread over several tokens is held back until it is complete. Text that may be the
    beginning of a stop string is held back until that is decided. The pieces that `take` returns are therefore `text`
    when joined. Bytes that are not UTF-8 become U+FFFD, as Python's decoder replaces them.

    begins: whether the text begins a document, where the tokenizer may add a space that is not part of the text.
    min_tokens: stop strings that begin within this number of tokens are part of the text.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), begins: bool = False, min_tokens: int = 0):
        self.text = ""  # all decoded text, cut before a stop string
        self.stopped_by: str | None = None  # the stop string that is complete
        self._unstoppable = min_tokens  # the number of tokens to come that cannot complete a stop string
        self._search_from = 0  # stop strings begin here or later
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._first = tokenizer.first_bytes if begins else b""  # tokens that are not text
        self._taken = 0

    def push(self, token: int) -> bool:
        """Adds a token; returns True if it completes a stop string, after which no token may be added."""
        piece = self._tokenizer.decode_bytes([token])
        if piece:
            piece, self._first = piece.removeprefix(self._first), b""
        self._append(self._decoder.decode(piece))
        if self._unstoppable:
            self._unstoppable -= 1
            self._search_from = len(self.text)
        return self.stopped

    def close(self) -> None:
        """Ends the row: an incomplete character is replaced, and no text is held back."""
        if not self.stopped:
            self._append(self._decoder.decode(b"", final=True))
            self._stop = ()

    @property
    def stopped(self) -> bool:
        """Whether a stop string is complete."""
        return self.stopped_by is not None

    def take(self) -> str:
        """The final text since the last call."""
        settled = len(self.text) - self._pending()  # never decreases: held-back text only grows with the text
        piece = self.text[self._taken : settled]
        self._taken = settled
        return piece

    def _append(self, new: str) -> None:
        reach = max(map(len, self._stop), default=1) - 1  # a stop string may begin this far before the end
        search_from = max(self._search_from, len(self.text) - reach)
        self.text += new
        if self._unstoppable:
            return
        found = [(at, stop) for stop in self._stop if (at := self.text.find(stop, search_from)) >= 0]
        if found:
            at, self.stopped_by = min(found)
            self.text = self.text[:at]

    def _pending(self) -> int:
        """Characters at the end of the text that may be the beginning of a stop string."""
        if self.stopped:
            return 0
        longest = min(len(self.text) - self._search_from, max(map(len, self._stop), default=1) - 1)
        return next(
            (n for n in range(longest, 0, -1) if any(stop.startswith(self.text[-n:]) for stop in self._stop)),
            0,
        )
