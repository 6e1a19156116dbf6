"""Decodes text of uncertain encoding, for all kinds of source.

It tries in this order: a byte order mark; UTF-16 without a mark, recognized by its zeros; UTF-8, whatever is declared,
since text in another encoding is hardly ever valid UTF-8; damaged UTF-8; the encoding that the text or its sender
declares; the encoding that the bytes look like.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass

# Tried in this order, since the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# How files declare an encoding: Gutenberg's header, HTML, XML, LaTeX's inputenc, coding lines of Python and editors.
_DECLARED = re.compile(
    rb"(?i)character set encoding:\s*(?:ISO-646-US \()?([\w-]+)|charset=[\"']?\s*([\w-]+)"
    rb"|<\?xml[^>]*encoding=[\"']([\w-]+)"
    rb"|\\usepackage\[([\w-]+)\]\{inputenc\}|coding[:=][ \t]*([\w-]+)"
)
_IN_DECLARATIONS = (b"coding", b"charset", b"inputenc")  # each has one of these: fast to find
_BEFORE_WORD = 300  # bytes that a declaration may have before such a word
_LATEX_NAMES = {"latin9": "iso-8859-15", "ansinew": "cp1252", "applemac": "mac-roman", "utf8x": "utf-8"}
# Encodings that a file may declare: not idna, punycode and the like, which are slow or unused.
_FAMILIES = ("ascii", "big5", "cp", "euc", "gb", "hz", "iso", "johab", "koi8", "mac", "shift", "tis", "utf")
# Text declared as the first is decoded as the second, a superset of it (as in WHATWG's Encoding Standard).
_LARGER = {
    **{"ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874"},
    **{"gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949", "shift_jis": "cp932", "big5": "big5hkscs"},
}
_SHIFTING = ("iso2022", "hz")  # these switch between character sets by ASCII characters
_CENTRAL_EUROPEAN = ("cp1250", "iso8859-2", "iso8859-16", "mac_latin2")
DETECTORS = ("resiliparse",)  # the libraries that guess the encoding of text without a mark that is not UTF-8
LOOKED_AT = 16_384  # bytes at the beginning that may declare something
_SEEN = 1 << 16  # bytes, from the first that is not ASCII, from which an encoding is detected


@dataclass(frozen=True)
class Decoded:
    """Decoded text.

    Attributes:
      text: without its byte order mark; U+FFFD replaces bytes that are not text.
      how: mark | utf-8 | declared | detected.
      damage: the first such byte and why it is not text; '' if there is none.
    """

    text: str
    encoding: str
    how: str
    damage: str = ""


def decode(raw: bytes, declared: Sequence[str] = (), detect: bool = True) -> Decoded:
    """Decodes any bytes.

    Args:
      declared: an encoding that someone else declares, such as a server, in addition to the text itself.
      detect: if False, text without a mark is decoded as UTF-8.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return _decoded(raw[len(mark) :], encoding, "mark")
    if detect and (encoding := _unmarked_utf16(raw)):
        return _decoded(raw, encoding, "detected")
    candidates = _names(raw, declared) if detect else []
    shifting = [name for name in candidates if name.startswith(_SHIFTING)]
    for encoding in (*shifting, "utf-8"):
        try:
            return Decoded(raw.decode(encoding), encoding, "utf-8" if encoding == "utf-8" else "declared")
        except ValueError:
            pass
    if not detect or is_damaged_utf8(raw):
        return _decoded(raw, "utf-8", "utf-8")
    for encoding in candidates:
        try:
            return Decoded(raw.decode(encoding), encoding, "declared")
        except ValueError:  # the declaration does not fit this text
            pass
    return _decoded(raw, detected(raw), "detected")


def of_head(head: bytes, detect: bool) -> tuple[str, int]:
    """(encoding, bytes of its mark) of a file that begins like this; for readers of lines, which see only parts."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    if not detect:
        return "utf-8", 0
    if encoding := _unmarked_utf16(head):
        return encoding, 0
    whole = head[: head.rfind(b"\n") + 1] or head  # the last character may be incomplete
    try:
        whole.decode("utf-8")
        return "utf-8", 0
    except UnicodeDecodeError as error:
        if error.end == len(whole) or is_damaged_utf8(whole):
            return "utf-8", 0
    return detected(whole), 0


def is_damaged_utf8(raw: bytes) -> bool:
    """Whether most of the bytes that are not ASCII are valid UTF-8: one bad byte does not make a book Latin-1.

    Lone surrogates, which JSON can escape, count as damage.
    """
    try:
        raw.decode("utf-8", "surrogatepass")
        return True
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "replace")
    bad = text.count("\N{REPLACEMENT CHARACTER}")
    return len(text) - len(text.encode("ascii", "ignore")) - bad > bad


def detected(raw: bytes) -> str:
    """The likely encoding of bytes that are not UTF-8; cp1252 if no other fits better or no detector is installed.

    cp1252 is Latin-1 with printable characters in place of controls.
    """
    first = re.search(rb"[\x80-\xff]", raw)
    start = raw.rfind(b"\n", 0, first.start() if first else 0) + 1
    seen = raw[start : start + _SEEN]
    try:
        from resiliparse.parse.encoding import detect_encoding
    except ImportError:  # pip install 'gptjax[corpus]'
        return "cp1252"
    encoding = codecs.lookup(detect_encoding(seen) or "cp1252").name
    if encoding == "utf-8":  # a wrong answer: nothing fits, or it is Korean, which the library does not name
        encoding = "euc_kr"
    encoding = _LARGER.get(encoding, encoding)
    text = seen.decode(encoding, "replace")
    letters = [one for one in text if one.isalpha()]
    # Central European text is full of accents; a single one among English words is a pound sign or the like.
    if encoding in _CENTRAL_EUROPEAN and sum(not one.isascii() for one in letters) < max(4, 0.02 * len(letters)):
        return "cp1252"
    return "cp1252" if text.count("\N{REPLACEMENT CHARACTER}") > 0.01 * len(text) else encoding


def unix_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(raw: bytes, encoding: str, how: str) -> Decoded:
    try:
        return Decoded(raw.decode(encoding), encoding, how)
    except UnicodeDecodeError as error:
        damage = f"at byte {error.start} ({error.reason})"
        return Decoded(raw.decode(encoding, "replace"), encoding, how, damage)


def _unmarked_utf16(raw: bytes) -> str:
    """'utf-16-le' or '-be' if all zeros are at every other byte, and decoding gives words of text; else ''."""
    head = raw[:LOOKED_AT]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if len(raw) % 2 or bool(even) == bool(odd):
        return ""
    encoding = "utf-16-le" if odd else "utf-16-be"
    try:
        text = head.decode(encoding)
    except UnicodeDecodeError as error:
        if error.end < len(head):
            return ""
        text = head[: error.start].decode(encoding)
    is_text = re.search(r"[ \n]", text) and not re.search(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]", text)
    return encoding if is_text else ""


def _names(raw: bytes, declared: Sequence[str]) -> list[str]:
    """Python's names of the declared encodings, if they are encodings of text."""
    candidates = [*declared]
    head = raw[:LOOKED_AT].lower()
    words = [place for word in _IN_DECLARATIONS if (place := head.find(word)) >= 0]
    if words and (found := _DECLARED.search(raw, max(0, min(words) - _BEFORE_WORD), LOOKED_AT)):
        candidates.append(next(group for group in found.groups() if group).decode("ascii", "replace"))
    names = []
    for name in candidates:
        try:
            encoding = codecs.lookup(_LATEX_NAMES.get(name.lower(), name)).name
        except (LookupError, ValueError):
            continue
        if encoding.startswith(_FAMILIES):
            names.append(_LARGER.get(encoding, encoding))
    return names
