"""What every tokenizer does: text to token ids and back.

Every tokenizer made here begins with the same control tokens (`CONTROL_TOKENS`). No text encodes to a control token,
and control tokens decode to nothing.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import xxhash

from gptjax.config import ConfigError
from gptjax.files import write_aside

CONTROL_TOKENS = (
    *("<unk>", "<s>", "</s>", "<pad>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"),  # turns of a chat
)
REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()


class Tokenizer(abc.ABC):
    """Converts text to token ids and back. If the tokenizer is lossless, `decode(encode(text)) == text`.

    Attributes:
      kind: 'bpe', 'unigram', 'byte' or 'char'; a SentencePiece model may also be 'word'.
      lossless: whether every text is decoded exactly.
      vocab_size: V.
      unk_id, bos_id, eos_id, pad_id: ids, or `None` if the vocabulary has no such token.
      control_ids: name → id of every control token.
      file_bytes: the content of the file that `save` writes.
      hash: its hash; equal hashes mean equal ids.
      libraries: the libraries whose versions may change the ids.
      threads: how many threads encoding may use; by default one per core.
    """

    kind: str
    file_name: str
    lossless = True
    libraries: tuple[str, ...] = ()
    first_bytes = b""  # bytes that the tokenizer adds before a text; `decode` removes them

    def __init__(self, file_bytes: bytes, token_values: list[bytes], control_ids: dict[str, int]):
        self.file_bytes = file_bytes
        self._token_values = token_values
        self.vocab_size = len(token_values)
        self.control_ids = control_ids
        self.unk_id, self.bos_id, self.eos_id, self.pad_id = map(control_ids.get, CONTROL_TOKENS[:4])
        self.hash = xxhash.xxh3_128_hexdigest(file_bytes)
        self.threads = os.cpu_count() or 1

    @abc.abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns one array of ids per text, in order; in parallel if that helps this kind of tokenizer."""

    @abc.abstractmethod
    def with_controls(self, names: Sequence[str]) -> Tokenizer:
        """Returns the tokenizer with these control tokens after all of its own; see `extended`."""

    def extended(self, names: Iterable[str]) -> Tokenizer:
        """Returns a tokenizer that has these control tokens, too; the ids of all others and of every text stay.

        Raises:
          ConfigError: a name is that of a token of text, which a text could contain.
        """
        missing = [name for name in dict.fromkeys(names) if name not in self.control_ids]
        for name in missing:
            if name.encode() in self._token_values:
                raise ConfigError(f"tokenizer: {name!r} is a token of text, so it cannot be a control token")
        return self.with_controls(missing) if missing else self

    def extends(self, other: Tokenizer) -> bool:
        """Whether this is the other tokenizer, or that one with further control tokens."""
        added = [
            name for name, i in sorted(self.control_ids.items(), key=lambda item: item[1]) if i >= other.vocab_size
        ]
        return self.hash == (other.with_controls(added) if added else other).hash

    def encode(self, text: str) -> list[int]:
        """Returns the ids of one text, without BOS or EOS. Raises UnicodeEncodeError for a lone surrogate."""
        return self.encode_batch([text])[0].tolist()

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Returns the bytes that the ids stand for; they may begin or end within a character."""
        return b"".join([self._token_values[i] for i in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text that the ids stand for; bytes that are not a character become U+FFFD."""
        return self.decode_bytes(ids).removeprefix(self.first_bytes).decode("utf-8", errors="replace")

    def token_bytes(self) -> np.ndarray:
        """Returns int32 [V]: the number of UTF-8 bytes of each token; 0 for control tokens, 1 for the unknown token."""
        lengths = np.array([len(value) for value in self._token_values], np.int32)
        if self.unk_id is not None:
            lengths[self.unk_id] = 1
        return lengths

    def save(self, folder: str | Path, prefix: str = "") -> Path:
        """Writes the tokenizer's file into `folder`, atomically, and returns its path. prefix: of the file's name."""
        path = Path(folder) / f"{prefix}{self.file_name}"
        with write_aside(path) as file:
            file.write(self.file_bytes)
        return path
