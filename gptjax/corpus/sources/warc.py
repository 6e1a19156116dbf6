"""Records of web archives (WARC and WET), also of truncated, corrupt or invalid ones.

Records are separated here, so that a bad one does not affect the others; fastwarc reads what is in a record.

ISO 28500, The WARC file format; Bevendorff et al., Elastic ChatNoir, 2018 (fastwarc).
"""

from __future__ import annotations

import contextlib
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gptjax.corpus.sources import KEPT, UNREADABLE
from gptjax.corpus.sources.limits import READING
from gptjax.corpus.sources.streams import BLOCK, Stream, Unreadable

HTML = ("text/html", "application/xhtml+xml")
HEADER_BYTES = 1 << 16  # at most, of a record
RECORD_BYTES = 1 << 20  # bytes of a record besides its page: headers, and sizes of chunks

_START = re.compile(rb"WARC/\d\.\d+\r?\n")
_NEXT = re.compile(rb"\n(?=WARC/\d\.\d+\r?\n)")
_HEADER_END = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,18})([ \t]*\r?\n.*)", re.IGNORECASE | re.DOTALL)
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")


@dataclass(frozen=True)
class Capture:
    """The page in a record.

    Attributes:
      number: the number of the record in its file, from 1.
      uri: the address that was fetched.
      payload: HTML, or text if `is_text`.
      charset: stated by the server, or ''; languages: stated by a WET file, such as 'eng,fra'.
    """

    number: int
    uri: str
    payload: bytes
    is_text: bool = False
    charset: str = ""
    languages: str = ""


def captures(stream: Stream, most: int, skipped: Counter[str]) -> Iterator[Capture]:
    """The pages of a WARC, or the texts of a WET; records without a page, and bad ones, are counted.

    Args:
      most: the largest size of a page in bytes; larger ones are left out.
    """
    for number, raw in records(stream, most + RECORD_BYTES, skipped):
        try:
            capture = _capture(number, raw, most, skipped)
        except OSError:
            skipped[f"{UNREADABLE}corrupt WARC record"] += 1
            continue
        if capture is not None:
            yield capture


def records(stream: Stream, most: int, skipped: Counter[str]) -> Iterator[tuple[int, bytes]]:
    """(number from 1, header and block) of each record of at most `most` bytes.

    If a length is wrong or data are missing, a record ends before the next line that begins a record.
    """
    buffer, number, counted = _Buffer(stream, skipped), 0, False
    while buffer.seek_record(counted):
        number += 1
        begin = buffer.header_end()
        length = _LENGTH.search(buffer.held, 0, begin) if begin else None
        end = begin + int(length[1]) if length else 0
        done, counted = begin or len(b"WARC/"), True
        if length and end <= most and buffer.fill(end) and buffer.ends_record(end):
            yield number, bytes(buffer.held[:end])
            done, counted = end, False
        elif not length:
            skipped[f"{UNREADABLE}corrupt WARC header"] += 1
        elif found := buffer.next_record(begin, most):
            skipped[f"{KEPT}WARC records whose stated length is wrong"] += 1
            block = bytes(buffer.held[begin:found]).removesuffix(b"\r\n\r\n")
            yield number, b"%s%d%s%s" % (buffer.held[: length.start(1)], len(block), length[2], block)
            done = found
        elif end > most:
            skipped[f"WARC record of more than {most:,} bytes"] += 1
        else:
            skipped[f"{UNREADABLE}truncated WARC record"] += 1
        buffer.drop(done)


class _Buffer:
    """A window of a stream, which begins where a record begins or might begin."""

    def __init__(self, stream: Stream, skipped: Counter[str]):
        self.held = bytearray()
        self._stream, self._skipped, self._ended = stream, skipped, False

    def fill(self, size: int) -> bool:
        """Reads until `size` bytes are held; False if there are fewer."""
        while len(self.held) < size and not self._ended:
            try:
                block = self._stream.read(BLOCK)
            except Unreadable as error:
                self._skipped[UNREADABLE + error.reason] += 1
                # What comes next does not belong here, so it begins a new line.
                block = b"\r\n\r\n" if self._stream.resume() else b""
            self.held += block
            self._ended = not block
        return len(self.held) >= size

    def drop(self, size: int) -> None:
        del self.held[:size]

    def seek_record(self, counted: bool) -> bool:
        """Drops bytes between records; False at the end. Bytes other than newlines are counted, once."""
        while self.fill(1) and self.held[:1] in (b"\r", b"\n"):
            self.drop(len(self.held) - len(self.held.lstrip(b"\r\n")))
        self.fill(16)
        if not self.held or _START.match(self.held):
            return bool(self.held)
        if not counted:
            self._skipped[f"{UNREADABLE}bytes between WARC records"] += 1
        while (found := _NEXT.search(self.held)) is None:
            self.drop(len(self.held) - 16)  # the beginning of a record may have begun here
            if not self.fill(len(self.held) + 1):
                return False
        self.drop(found.end())
        return True

    def header_end(self) -> int:
        """The size of the header, including the empty line after it; 0: it has no end."""
        searched = 0
        while (found := _HEADER_END.search(self.held, searched)) is None:
            searched = max(0, len(self.held) - 2)
            if len(self.held) > HEADER_BYTES or not self.fill(len(self.held) + 1):
                return 0
        return found.end()

    def next_record(self, begin: int, most: int) -> int:
        """The place of the next record from `begin` on; 0: not within `most` bytes."""
        while (found := _NEXT.search(self.held, begin)) is None:
            begin = max(begin, len(self.held) - 16)
            if len(self.held) > most or not self.fill(len(self.held) + 1):
                return 0
        return found.end()

    def ends_record(self, size: int) -> bool:
        """Whether `size` bytes are followed by what must follow a record."""
        self.fill(size + 16)
        after = bytes(self.held[size : size + 16])
        return after.startswith(b"\r\n\r\n") or after.lstrip(b"\r\n")[:5] in (b"", b"WARC/")


def _capture(number: int, raw: bytes, most: int, skipped: Counter[str]) -> Capture | None:
    from fastwarc.warc import WarcRecord
    from fastwarc.warc import WarcRecordType as Type

    record = WarcRecord.from_bytes(raw)
    if record.record_type not in (Type.response, Type.resource, Type.conversion):
        return None  # a record about a page, without the page
    fields = record.headers
    uri = _valid(fields.get("WARC-Target-URI") or "").strip("<>")
    content_type, charset = (fields.get("Content-Type") or "").partition(";")[0].strip().lower(), ""
    is_text, is_http = record.record_type == Type.conversion, record.record_type == Type.response
    if is_http:
        record.parse_http(auto_decode="none")
        if record.http_headers is None or record.http_headers.status_code != 200:
            skipped["HTTP status other than 200"] += 1
            return None
        content_type = (record.http_content_type or fields.get("WARC-Identified-Payload-Type") or "").lower()
        charset = record.http_charset or ""
    if content_type not in (("text/plain",) if is_text else HTML):
        skipped["not HTML"] += 1
        return None
    try:
        payload = _payload(WarcRecord.from_bytes(raw), is_http, most)
    except OSError:  # chunks or compression are broken
        if not (payload := _salvaged(record, most)):
            raise
        skipped[f"{KEPT}pages cut where their HTTP encoding is broken"] += 1
    if len(payload) > most:
        skipped[f"page of more than {most:,} bytes"] += 1
        return None
    languages = _valid(fields.get("WARC-Identified-Content-Language") or "")
    return Capture(number, uri, payload, is_text, charset, languages)


def _payload(record: Any, is_http: bool, most: int) -> bytes:
    """The decoded content of a record; at most slightly more than `most` bytes."""
    if is_http:
        record.parse_http(auto_decode="all")
    payload = bytearray()
    while len(payload) <= most and (block := record.reader.read(BLOCK)):
        payload += block
    return bytes(payload)


def _salvaged(record: Any, most: int) -> bytes:
    """What can be decoded of a record whose HTTP headers were read."""
    body, headers = record.reader.read(most), record.http_headers
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        body = _unchunked(body)
    encoding = headers.get("Content-Encoding", "").lower()
    if encoding in ("", "identity"):
        return body
    payload = bytearray()
    if encoding in ("gzip", "x-gzip"):
        with contextlib.suppress(Unreadable), Stream(io.BytesIO(body), "gzip", READING) as stream:
            while len(payload) <= most and (block := stream.read(BLOCK)):
                payload += block
    return bytes(payload)


def _unchunked(body: bytes) -> bytes:
    """A body without the sizes of its chunks; from the first invalid size on, it is unchanged."""
    payload, place = bytearray(), 0
    while size := _CHUNK.match(body, place):
        if not int(size[1], 16):
            return bytes(payload)
        payload += body[size.end() : size.end() + int(size[1], 16)]
        place = size.end() + int(size[1], 16)
        place += 2 if body[place : place + 2] == b"\r\n" else 0
    return bytes(payload + body[place:])


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
