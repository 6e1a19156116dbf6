"""Decoders of gzip, bzip2, xz and zstd members, which return at most as many bytes as the caller wants."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Protocol

from gptjax.config import ConfigError

SUFFIXES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}  # suffixes of files, and their compression
MAGIC = {
    "gzip": b"\x1f\x8b\x08",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\0",
    "zstd": b"\x28\xb5\x2f\xfd",
}  # the beginning of a member


class Decoder(Protocol):
    """A decoder of one member.

    Attributes:
      feed: the number of bytes to give it at a time.
      errors: what `decode` raises if the data are corrupt.
      ended: whether the member's last byte was decoded; `left`: bytes not decoded yet, or of the next member.
    """

    feed: int
    errors: tuple[type[Exception], ...]
    ended: bool
    left: bytes

    def decode(self, data: bytes, most: int) -> bytes:
        """Decodes at most `most` bytes; if there are none, it needs more data or has ended."""


def decoder(compression: str, window_bytes: int) -> Decoder:
    """Args: compression: a value of SUFFIXES; window_bytes: memory that xz and zstd may ask for.

    Raises:
      ConfigError: the package for it is not installed.
    """
    if compression == "gzip":
        return _Gzip()
    if compression == "zstd":
        return _Zstd(window_bytes)
    return _Stream(
        lzma.LZMADecompressor(lzma.FORMAT_XZ, window_bytes) if compression == "xz" else bz2.BZ2Decompressor()
    )


class _Gzip:
    feed = 1 << 16
    errors: tuple[type[Exception], ...] = (zlib.error,)

    def __init__(self):
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.ended, self.left = False, b""

    def decode(self, data: bytes, most: int) -> bytes:
        decoded = self._inflate.decompress(data, most)
        self.ended = self._inflate.eof
        self.left = self._inflate.unused_data if self.ended else self._inflate.unconsumed_tail
        return decoded


class _Stream:
    """bzip2 or xz, which keep the bytes that they have not decoded yet."""

    feed = 1 << 16
    errors: tuple[type[Exception], ...] = (OSError, ValueError, lzma.LZMAError)

    def __init__(self, stream: bz2.BZ2Decompressor | lzma.LZMADecompressor):
        self._stream = stream
        self.ended, self.left = False, b""

    def decode(self, data: bytes, most: int) -> bytes:
        decoded = self._stream.decompress(data, most)
        self.ended, self.left = self._stream.eof, self._stream.unused_data
        return decoded


class _Zstd:
    # A block of 4 bytes may give 128 KiB, all at once: feed few bytes at a time, so that the output stays small.
    feed = 1 << 10
    errors: tuple[type[Exception], ...]

    def __init__(self, window_bytes: int):
        try:
            import zstandard
        except ImportError:
            raise ConfigError("a file ends in .zst: needs pip install 'gptjax[corpus]'") from None
        self.errors = (zstandard.ZstdError,)
        self._frame = zstandard.ZstdDecompressor(max_window_size=window_bytes).decompressobj()
        self._decoded = memoryview(b"")
        self.ended, self.left = False, b""

    def decode(self, data: bytes, most: int) -> bytes:
        self.left = data
        if not self._decoded and not self._frame.eof and data:
            self._decoded = memoryview(self._frame.decompress(data[: self.feed]))
            self.left = self._frame.unused_data + data[self.feed :]
        decoded, self._decoded = self._decoded[:most], self._decoded[most:]
        self.ended = self._frame.eof and not self._decoded
        return bytes(decoded)
