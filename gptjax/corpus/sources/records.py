"""What a stream is cut into: lines, records between separators, JSON, parts of one long document; and its decoding."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from gptjax.config import ConfigError
from gptjax.corpus.sources import KEPT, UNREADABLE
from gptjax.corpus.sources.opening import bare_name, open_stream
from gptjax.corpus.sources.streams import BLOCK, Bomb, Stream, Unreadable


def lines(stream: Stream, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line without its newline); those above max_line_bytes are counted and passed over."""
    return split(stream, b"\n", options, skipped)


def split(
    stream: Stream, separator: bytes, options: Mapping[str, Any], skipped: Counter[str]
) -> Iterator[tuple[int, bytes]]:
    """(number from 1, record) of what stands between separators; those above max_line_bytes are passed over.

    Of a truncated stream, the records that have ended are given.
    """
    most = options["max_line_bytes"]
    held, number, over = bytearray(), 1, False
    while block := stream.read(BLOCK):
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
            del held[: len(held) - len(separator) + 1]  # it may have begun
    if over:
        skipped[f"{UNREADABLE}record of more than {most:,} bytes"] += 1
    elif held:
        yield number, bytes(held)


def parts(stream: Stream, most: int) -> Iterator[bytes]:
    """All that a stream has, in parts of at most `most` bytes, cut after a newline where the second half has one.

    At least one, empty where the stream is; of a truncated stream all that there is, then Unreadable is raised. Of a
    bomb, nothing that is still held.
    """
    held, cut_any, failure = bytearray(), False, None
    while failure is None:
        try:
            block = stream.read(BLOCK)
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
    """Of the UTF-8 character that stands at `place`; `place` itself where there is none."""
    return next((i for i in range(place, max(place - 4, 0), -1) if text[i] & 0xC0 != 0x80), place)


def json_values(uri: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[tuple[int, Any]]:
    """(number from 1, value) of each line of JSON; those that are none are counted and passed over.

    A file whose name ends in .json may be one value instead: where that is an array, its elements are given.

    Args:
      options: limits.READING and, where the kind has it, encoding_errors.

    Raises:
      Unreadable: after what could be read.
      ConfigError: text that is not UTF-8, where `encoding_errors` is 'error'.
    """
    if bare_name(uri).endswith(".json") and (values := _one_json(uri, options)) is not None:
        yield from enumerate(values, 1)
        return
    with open_stream(uri, options) as stream:
        for number, line in lines(stream, options, skipped):
            if not line.strip():
                continue
            text = decode(line, f"{uri}:{number}", options.get("encoding_errors", "replace"), skipped)
            try:
                if text is not None:
                    yield number, json.loads(text)
            except (ValueError, RecursionError):
                skipped[f"{UNREADABLE}broken JSON line"] += 1


def _one_json(uri: str, options: Mapping[str, Any]) -> list[Any] | None:
    """The elements of a file that is one JSON value; None where it is JSON by lines, or too long for one."""
    with open_stream(uri, options) as stream:
        pieces = parts(stream, options["max_document_bytes"])
        try:
            value = json.loads(next(pieces))
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else [value]


def decode(raw: bytes, uri: str, encoding_errors: str, skipped: Counter[str]) -> str | None:
    """Text from UTF-8; what is not UTF-8 is replaced by U+FFFD or skipped (None), and counted.

    Raises:
      ConfigError: it is not UTF-8 and `encoding_errors` is 'error'.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if encoding_errors == "error":
            raise ConfigError(
                f"{uri}: not UTF-8 at byte {error.start} ({error.reason}); encoding_errors = replace or skip goes on"
            ) from error
        if encoding_errors == "skip":
            skipped[f"{UNREADABLE}not UTF-8"] += 1
            return None
        skipped[f"{KEPT}bytes that are not UTF-8 became U+FFFD"] += 1
        return raw.decode("utf-8", errors="replace")
