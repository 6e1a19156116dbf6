"""Reads members of zip archives, such as EPUB, within limits of size."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gptjax.corpus.sources.limits import RATIO_FREE_BYTES
from gptjax.corpus.sources.opening import open_file
from gptjax.corpus.sources.streams import Unreadable


def is_debris(name: str) -> bool:
    """Whether a member was put there by an operating system: AppleDouble files, folders' settings, thumbnails."""
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "__MACOSX" or parts[-1].startswith("._") or parts[-1].lower() in _DEBRIS


_DEBRIS = (".ds_store", "thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r")


@contextmanager
def open_zip(uri: str) -> Iterator[zipfile.ZipFile]:
    """A zip archive, such as an EPUB.

    Raises:
      Unreadable: it is not a zip archive, or corrupt.
    """
    with open_file(uri) as file:
        with _zip_errors():
            archive = zipfile.ZipFile(file)
        yield archive


def read_member(archive: zipfile.ZipFile, name: str, options: Mapping[str, Any]) -> bytes:
    """One member of at most max_document_bytes.

    Raises:
      Unreadable: it is corrupt, encrypted, too large, or beyond the allowed compression ratio.
    """
    with _zip_errors():
        entry = archive.getinfo(name)  # no more bytes come out than the header says
        if entry.file_size > options["max_document_bytes"]:
            raise Unreadable(f"zip member of more than {options['max_document_bytes']:,} bytes")
        if entry.file_size > max(RATIO_FREE_BYTES, entry.compress_size * options["max_ratio"]):
            raise Unreadable(f"decompresses to more than {options['max_ratio']:,} times its size")
        return archive.read(entry)


@contextmanager
def _zip_errors() -> Iterator[None]:
    try:
        yield
    except Unreadable:
        raise
    # RuntimeError: encrypted, or an unknown compression; the others: headers that contradict each other
    except (
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
        *(EOFError, KeyError, OSError, RuntimeError, ValueError),
    ):
        raise Unreadable("corrupt zip") from None
