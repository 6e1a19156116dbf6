"""Cuts a stream into lines, records between separators, JSON values or parts of one long document, and decodes it."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, overload

from gptjax.config import ConfigError
from gptjax.corpus.formats import encoding
from gptjax.corpus.sources import KEPT, UNREADABLE, skip
from gptjax.corpus.sources.opening import bare_name, open_stream
from gptjax.corpus.sources.streams import BLOCK, Bomb, Stream, Unreadable

HEAD = 1 << 16  # first bytes of a file, from which its encoding is detected
_HOW = {"mark": "by its byte order mark", "declared": "as declared", "detected": "judging by its bytes"}


class Readable(Protocol):
    """Something to read bytes from: a `Stream`, or the like."""

    def read(self, size: int, /) -> bytes: ...


def lines(stream: Readable, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line without its newline); lines above max_line_bytes are counted and skipped."""
    return split(stream, b"\n", options, skipped)


def split(
    stream: Readable, separator: bytes, options: Mapping[str, Any], skipped: Counter[str]
) -> Iterator[tuple[int, bytes]]:
    """(number from 1, record) for the records between separators; records above max_line_bytes are skipped.

    A truncated stream gives the records that are complete.
    """
    most = options["max_line_bytes"]
    held, number, over = bytearray(), 1, False
    for block in _blocks(stream, skipped, detect=options.get("encoding_errors", "detect") == "detect"):
        start, search = 0, max(0, len(held) - len(separator) + 1)
        held += block
        while (end := held.find(separator, search)) >= 0:
            if over or end - start > most:
                skipped[f"{UNREADABLE}record of more than {most:,} bytes"] += 1
            else:
                yield number, bytes(held[start:end])
            start = search = end + len(separator)
            number, over = number + 1, False
        del held[:start]
        if len(held) > most:
            over = True
            del held[: len(held) - len(separator) + 1]  # a separator may have begun here
    if over:
        skipped[f"{UNREADABLE}record of more than {most:,} bytes"] += 1
    elif held:
        yield number, bytes(held)


def parts(stream: Stream, most: int) -> Iterator[bytes]:
    """The whole stream in parts of at most `most` bytes, cut after a newline if the second half has one.

    There is at least one part, which may be empty. A truncated stream gives all that it has, then raises Unreadable. A
    decompression bomb gives nothing of what is still held.
    """
    held, cut_any, failure = bytearray(), False, None
    blocks = iter(lambda: stream.read(BLOCK), b"")
    while failure is None:
        try:
            block = next(blocks, b"")
        except Unreadable as error:
            failure, block = error, b""
        if not block:
            break
        held += block
        while len(held) > most:
            cut = held.rfind(b"\n", most // 2, most) + 1 or _character_start(held, most)
            yield bytes(held[:cut])
            del held[:cut]
            cut_any = True
    if (held and not isinstance(failure, Bomb)) or not (cut_any or failure):
        yield bytes(held)
    if failure:
        raise failure


def _character_start(text: bytearray, place: int) -> int:
    """The beginning of the UTF-8 character that contains `place`; `place` itself if there is none."""
    return next((i for i in range(place, max(place - 4, 0), -1) if text[i] & 0xC0 != 0x80), place)


def _blocks(stream: Readable, skipped: Counter[str], detect: bool) -> Iterator[bytes]:
    """A stream of text as UTF-8 without a mark. Invalid bytes in a file that begins as UTF-8 are not changed.

    detect: also detect other encodings from the beginning of a file, and count them; otherwise only a byte order mark.
    """
    head, failure = b"", None
    while len(head) < HEAD:
        try:
            block = stream.read(BLOCK)
        except Unreadable as error:
            failure = error
            break
        if not block:
            break
        head += block
    name, mark = encoding.of_head(head, detect)
    decoder = None if name == "utf-8" else codecs.getincrementaldecoder(name)("replace")
    if decoder and head:
        skipped[f"{KEPT}files read as {name}"] += 1
    for start in range(mark, len(head), BLOCK):
        block = head[start : start + BLOCK]
        yield decoder.decode(block).encode() if decoder else block
    if failure:
        raise failure
    while block := stream.read(BLOCK):
        yield decoder.decode(block).encode() if decoder else block
    if decoder and (last := decoder.decode(b"", final=True)):
        yield last.encode()


def json_values(uri: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[tuple[int, Any]]:
    """(number from 1, value) of each line of JSON; lines that are not JSON are counted and skipped.

    A file whose name ends in .json may be a single value instead; if that is an array, its elements are given.

    Args:
      options: limits.READING and, if the kind has it, encoding_errors.

    Raises:
      Unreadable: the rest of the file cannot be read.
      ConfigError: text is not UTF-8 and `encoding_errors` is 'error'.
    """
    if bare_name(uri).endswith(".json") and (values := _one_json(uri, options, skipped)) is not None:
        yield from enumerate(values, 1)
        return
    with open_stream(uri, options) as stream:
        for number, line in lines(stream, options, skipped):
            if not line.strip():
                continue
            text = decode(line, f"{uri}:{number}", options.get("encoding_errors", "detect"), skipped)
            try:
                if text is not None:
                    yield number, json.loads(text)
            except (ValueError, RecursionError):
                skip(skipped, f"{UNREADABLE}broken JSON line", f"{uri}:{number}")


def _one_json(uri: str, options: Mapping[str, Any], skipped: Counter[str]) -> list[Any] | None:
    """The elements of a file that is one JSON value; None if it is JSON by lines, or too long."""
    noted: Counter[str] = Counter()
    with open_stream(uri, options) as stream:
        pieces = parts(stream, options["max_document_bytes"])
        try:
            text = decode(next(pieces), uri, options.get("encoding_errors", "detect"), noted)
            value = json.loads(text or "")
        except (ValueError, RecursionError):
            return None
    skipped.update(noted)
    return value if isinstance(value, list) else [value]


@overload
def decode(
    raw: bytes, uri: str, encoding_errors: Literal["detect"], skipped: Counter[str], declared: Sequence[str] = ()
) -> str: ...


@overload
def decode(
    raw: bytes, uri: str, encoding_errors: str, skipped: Counter[str], declared: Sequence[str] = ()
) -> str | None: ...


def decode(
    raw: bytes, uri: str, encoding_errors: str, skipped: Counter[str], declared: Sequence[str] = ()
) -> str | None:
    """Decodes text by formats/encoding.py; text that was not UTF-8 is counted.

    encoding_errors: for text without a mark that is not UTF-8: detect its encoding; replace by U+FFFD; skip (None).

    Raises:
      ConfigError: `encoding_errors` is 'error' for such text.
    """
    found = encoding.decode(raw, declared, detect=encoding_errors == "detect")
    if "\0" in found.text:  # most callers leave such bytes out, and count them as what they are: not a text
        return found.text
    name = "UTF-8" if found.encoding == "utf-8" else found.encoding
    if not found.damage:
        if found.encoding != "utf-8":
            skipped[f"{KEPT}read as {name}, {_HOW[found.how]}"] += 1
        return found.text
    if encoding_errors == "error":
        raise ConfigError(
            f"{uri}: not {name} {found.damage}; set encoding_errors to detect, replace or skip to continue"
        )
    if encoding_errors == "skip":
        skipped[f"{UNREADABLE}not {name}"] += 1
        return None
    skipped[f"{KEPT}bytes that are not {name} became U+FFFD"] += 1
    return found.text
