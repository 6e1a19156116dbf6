"""Bytes of text whose encoding is not sure → text."""

from __future__ import annotations

import codecs
import re

# Tried in this order, since the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What files say of themselves: Gutenberg's header, HTML, XML, LaTeX's inputenc, the coding lines of Python and editors.
_DECLARED = re.compile(
    rb"(?i)character set encoding:\s*(?:ISO-646-US \()?([\w-]+)|charset=[\"']?([\w-]+)"
    rb"|<\?xml[^>]*encoding=[\"']([\w-]+)"
    rb"|\\usepackage\[([\w-]+)\]\{inputenc\}|coding[:=][ \t]*([\w-]+)"
)
_LATEX_NAMES = {"latin9": "iso-8859-15", "ansinew": "cp1252", "applemac": "mac-roman", "utf8x": "utf-8"}
# Of what can be declared: not idna, punycode and the like, which are slow on purpose or nobody's.
_FAMILIES = ("ascii", "big5", "cp", "euc", "gb", "hz", "iso", "johab", "koi8", "mac", "shift", "tis", "utf")
_LOOKED_AT = 16_384  # bytes


def decode(raw: bytes) -> str:
    """By a byte order mark; else UTF-8 where it is valid, whatever is declared; else as declared; else cp1252.

    Lines end in "\\n". Text in a single-byte encoding is next to never valid UTF-8 unless it is ASCII; cp1252 is
    Latin-1 with printable characters in place of controls.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return _lines(raw[len(mark) :].decode(encoding, "replace"))
    try:
        return _lines(raw.decode("utf-8"))
    except UnicodeDecodeError:
        return _lines(_decode_other(raw))


def _decode_other(raw: bytes) -> str:
    if found := _DECLARED.search(raw, 0, _LOOKED_AT):
        name = next(group for group in found.groups() if group).decode("ascii").lower()
        try:
            encoding = codecs.lookup(_LATEX_NAMES.get(name, name)).name
            if encoding.startswith(_FAMILIES):
                return raw.decode(encoding)
        except (LookupError, ValueError):  # not a text encoding, or not this text's
            pass
    return raw.decode("cp1252", "replace")


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
