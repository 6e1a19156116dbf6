"""All the text of an HTML or XHTML page without navigation, such as a chapter: headings, paragraphs, lists."""

from __future__ import annotations

import re

from gptjax.config import ConfigError

MADE_OF = ("resiliparse",)  # its libraries

# XHTML may close any element at once (<a/>); for an HTML parser it would stay open and contain what follows.
_CLOSED_AT_ONCE = re.compile(
    r"<(title|script|style|iframe|textarea|a|span|div|p|i|b|em|td|th|li)\b([^<>]*)/>", re.IGNORECASE
)
_XML_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_MANY_EMPTY_LINES = re.compile(r"\n{3,}")


def text_of(page: str) -> str:
    """Text with a newline per line break, an empty line between paragraphs, and a bullet before list items."""
    try:
        from resiliparse.extract.html2text import extract_plain_text
    except ImportError:
        raise ConfigError("HTML and EPUB need pip install 'gptjax[corpus]'") from None
    page = _CLOSED_AT_ONCE.sub(r"<\1\2></\1>", _XML_DECLARATION.sub("", page, count=1))
    text = extract_plain_text(page, preserve_formatting=True, alt_texts=False).replace("\xa0", " ")
    return _MANY_EMPTY_LINES.sub("\n\n\n", text).strip()
