"""Repairs text: broken encodings (ftfy), several forms of one character. Most texts need no repair.

A cheap test decides whether a text is repaired at all, and ftfy is given only the lines that look broken. Unchanged are
quotes, dashes and width (they carry meaning), HTML entities (they may be the subject), and '▁' (U+2581), which the
tokenizer keeps apart from a space. In code a character may be there on purpose: only its line ends are unified.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable

from gptjax.config import ConfigError


def repair(text: str, code: bool = False) -> tuple[str, tuple[str, ...]]:
    """(the text, the names of the repairs that changed it); most texts stay as they are.

    Raises:
      ConfigError: ftfy is needed and not installed.
    """
    done = []
    for name, mend in _CODE_REPAIRS if code else _ASCII_REPAIRS if text.isascii() else _REPAIRS:
        mended = mend(text)
        if mended != text:
            done.append(name)
            text = mended
    return text, tuple(done)


# --- Encoding: UTF-8 that was read as something else ------------------------------------------------------------------


def _read_as(encoding: str, first: int, last: int) -> str:
    """The characters of these bytes, as a set of a regular expression."""
    characters = {bytes([byte]).decode(encoding, "ignore") for byte in range(first, last + 1)}
    if encoding == "cp1252":  # bytes without a character there are Latin-1's control characters
        characters |= {chr(code) for code in range(first, last + 1)}
    return "[" + "".join(re.escape(character) for character in sorted(characters)) + "]"


_LATIN = _read_as("cp1252", 0xC2, 0xF4) + _read_as("cp1252", 0x80, 0xBF)
# Cyrillic letters may precede quotes and dashes, so two pairs are needed here.
_CYRILLIC = 2 * (_read_as("cp1251", 0xC2, 0xF4) + _read_as("cp1251", 0x80, 0xBF))
_MOJIBAKE = tuple(map(re.compile, (_LATIN, _CYRILLIC, "[\x80-\x84\x86-\x9f]")))


def _mend_encoding(text: str) -> str:
    if not any(pattern.search(text) for pattern in _MOJIBAKE):
        return text
    fix = _ftfy()
    lines = text.split("\n")
    return "\n".join(fix(line) if any(pattern.search(line) for pattern in _MOJIBAKE) else line for line in lines)


@functools.cache
def _ftfy() -> Callable[[str], str]:
    try:
        import ftfy
    except ImportError:
        raise ConfigError("cleaning.repair needs pip install 'gptjax[corpus]'") from None
    off = "unescape_html remove_terminal_escapes fix_latin_ligatures fix_character_width uncurl_quotes fix_line_breaks"
    options = dict.fromkeys([*off.split(), "fix_surrogates", "remove_control_chars", "explain"], False)
    return functools.partial(ftfy.fix_text, config=ftfy.TextFixerConfig(**options, normalization=None))


# --- Characters -------------------------------------------------------------------------------------------------------


def _replacing(pattern: str, replacement: str | Callable[[re.Match], str]) -> Callable[[str], str]:
    compiled = re.compile(pattern)
    return lambda text: compiled.sub(replacement, text) if compiled.search(text) else text


_mend_line_ends = _replacing("\r\n?|[\x0b\x0c\x85\u2028\u2029]", "\n")
# Characters that instruct a terminal or an editor and that a reader never sees; a soft hyphen is only a possible break.
_drop_invisible = _replacing(
    "\x1b\\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u206a-\u206f\ufeff\ufff9-\ufffb]", ""
)
_drop_invisible_ascii = _replacing("\x1b\\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0e-\x1f\x7f]", "")
_mend_spaces = _replacing("[\xa0\u1680\u2000-\u200a\u202f\u205f]", " ")  # not U+3000, the space of Chinese type
_part_ligatures = _replacing("[\ufb00-\ufb06]", lambda match: unicodedata.normalize("NFKC", match[0]))


def _compose(text: str) -> str:
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


_CODE_REPAIRS = (("line ends", _replacing("\r\n?", "\n")),)
_ASCII_REPAIRS = (("line ends", _mend_line_ends), ("invisible characters", _drop_invisible_ascii))
_REPAIRS = (
    ("encoding", _mend_encoding),
    ("line ends", _mend_line_ends),
    ("invisible characters", _drop_invisible),
    ("spaces", _mend_spaces),
    ("ligatures", _part_ligatures),
    ("composition", _compose),
)
REPAIRS = tuple(name for name, _ in _REPAIRS)
