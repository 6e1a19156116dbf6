"""Streams of the content of a file, plain or compressed, within limits; and the errors that end reading."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from gptjax.corpus.sources import UNREADABLE
from gptjax.corpus.sources.decompression import MAGIC, Decoder, decoder
from gptjax.corpus.sources.limits import RATIO_FREE_BYTES

BLOCK = 1 << 16  # bytes at once


class Unreadable(Exception):
    """The rest of a file, or of a member of an archive, cannot be read. `reason`: the text under which it counts."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Bomb(Unreadable):
    """Decompression bomb: discard everything read from the file."""


@contextmanager
def counted(skipped: Counter[str]) -> Iterator[None]:
    """In the block, Unreadable ends the block and its reason is counted."""
    try:
        yield
    except Unreadable as error:
        skipped[UNREADABLE + error.reason] += 1


class Stream(io.RawIOBase):
    """The content of a plain or compressed file within its limits; several members are read as if they were one.

    `read(n)` returns at most n bytes, often fewer, and none only at the end. So no readable data are lost when a later
    call raises Unreadable: the file is truncated, corrupt, too long, or beyond the allowed compression ratio.
    """

    def __init__(self, file: BinaryIO, compression: str | None, options: Mapping[str, Any], remote: bool = False):
        self._file, self._compression, self._options, self._remote = file, compression or "", options, remote
        self._member: Decoder | None = None  # bytes of the current member read
        self._left = b""  # bytes of the file, read but not yet decoded
        self._consumed = self._produced = 0
        self._corrupt = False  # the decoder of the current member

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Accepts only the current place, since some readers call `seek` to learn it."""
        if (whence, offset) not in ((io.SEEK_CUR, 0), (io.SEEK_SET, self._produced)):
            raise io.UnsupportedOperation("seek")
        return self._produced

    def close(self) -> None:
        self._file.close()
        super().close()

    def resume(self) -> bool:
        """Continues at what looks like the next member's beginning; False if reading did not stop at corruption."""
        if not self._corrupt:
            return False
        magic = MAGIC[self._compression]
        self._left = self._left[1:]
        while (start := self._left.find(magic)) < 0:
            block = self._block(BLOCK)
            self._left = self._left[1 - len(magic) :] + block
            if not block:
                return False
        self._left, self._member, self._corrupt = self._left[start:], None, False
        return True

    def readinto(self, buffer: Any) -> int:
        if self._produced > self._options["max_file_bytes"]:
            raise Unreadable(f"more than {self._options['max_file_bytes']:,} bytes in a file")
        if self._produced > max(RATIO_FREE_BYTES, self._consumed * self._options["max_ratio"]):
            raise Bomb(f"decompresses to more than {self._options['max_ratio']:,} times its size")
        data = self._decoded(len(buffer)) if self._compression else self._block(len(buffer))
        self._produced += len(data)
        buffer[: len(data)] = data
        return len(data)

    def _block(self, most: int) -> bytes:
        try:
            block = self._file.read(most)
        except OSError as error:
            if self._remote:
                raise
            raise Unreadable(type(error).__name__) from None
        self._consumed += len(block)
        return block

    def _decoded(self, most: int) -> bytes:
        """Some bytes of the current or next member; none at the end of the last one."""
        while member := self._member or self._begin_member():
            try:
                data = member.decode(self._left, most)
            except member.errors:
                self._corrupt = True
                raise Unreadable(f"corrupt {self._compression}") from None
            self._left = member.left
            if member.ended:
                self._member = None
            if data:
                return data
            if self._member and not self._left:
                self._left = self._block(member.feed)
                if not self._left:
                    raise Unreadable(f"truncated {self._compression}")
        return b""

    def _begin_member(self) -> Decoder | None:
        """The decoder of the next member; None if there is none. Disk and tape tools pad with zeros after the last."""
        while not (left := self._left.lstrip(b"\0")):
            if not (block := self._block(BLOCK)):
                return None
            self._left = block
        self._left, self._member = left, decoder(self._compression, self._options["max_window_bytes"])
        return self._member
