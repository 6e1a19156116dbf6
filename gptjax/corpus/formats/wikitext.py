"""Converts MediaWiki markup to plain text, in time linear in its length, whatever it contains.

One pass over the brackets ({{ }}, [[ ]], {| |}) and tags, with a stack, gives text without templates, tables,
references and pictures; then the markup of lines is removed. A bracket that is never closed is text.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Collection
from dataclasses import dataclass, field

from gptjax.corpus.formats import wikitext_templates

# Sections that are only lists of links after their templates are removed.
APPENDICES = (
    "bibliography citations external_links footnotes further_reading gallery notes notes_and_references references "
    "references_and_notes see_also sources works_cited"
).split()

_MAX_DEPTH = 60  # brackets within brackets; deeper ones are text
_TOKEN = re.compile(
    r"\[\[([^\[\]{}|:<>#_\n]+)(?:\|([^\[\]{}|<>\n]+))?\]\]"  # most links: a page, or a page and a label
    r"|\{\{|\}\}|\[\[|\]\]|^[ \t:]*\{\||^[ \t]*\|\}(?!\})|<!--|</?[A-Za-z][A-Za-z0-9]*(?=[\s/>])[^<>]*>",
    re.MULTILINE,
)
# Tags that are removed with their content, and tags whose content is not markup.
_DROPPED = frozenset(
    "ref references gallery timeline imagemap score hiero graph mapframe maplink templatedata templatestyles section "
    "categorytree inputbox indicator style script".split()
)
_LITERAL = frozenset("nowiki pre math chem ce code source syntaxhighlight".split())
_LINE_BREAKS = frozenset("br p div blockquote li tr table center poem hr".split())
# Namespaces of links that are not text, in Wikipedia's larger languages.
_SILENT = frozenset(
    "file image media category wikipedia_category datei bild kategorie fichier image catégorie archivo imagen "
    "categoría immagine categoria ficheiro imagem bestand afbeelding categorie plik grafika kategoria файл "
    "изображение категория файл категорія ファイル 画像 カテゴリ 文件 图像 分类 檔案 ملف تصنيف fil "
    "soubor kategori dosya berkas tập_tin thể_loại 파일 분류".split()
)
_LANGUAGE_PREFIX = re.compile(r"[a-z]{2,3}(?:-[a-z-]{2,12})?|simple")


def to_text(markup: str, leave_out: Collection[str] = APPENDICES) -> str:
    """The text of an article: empty lines between paragraphs and headings, "- " before list items.

    Args:
      leave_out: titles of sections, in lower case with "_" for spaces.
    """
    return tidy(_lines(_without_brackets(markup), leave_out))


# --- Brackets and tags ------------------------------------------------------------------------------------------------


@dataclass
class _Open:
    """An open bracket: what closes it, and the text after it."""

    opening: str
    closing: str
    texts: list[str] = field(default_factory=list)


_CLOSING = {"{{": "}}", "[[": "]]", "{|": "|}"}


def _without_brackets(markup: str) -> str:
    stack = [_Open("", "")]
    never: set[str] = set()  # ends that do not occur any more
    place = 0
    for found in _TOKEN.finditer(markup):
        if found.start() < place:  # inside something that was removed with a tag
            continue
        stack[-1].texts.append(markup[place : found.start()])
        place = found.end()
        token = found[0]
        if found[1]:
            stack[-1].texts.append((found[2] or found[1]).strip())
        elif token[0] == "<":
            place = _tag(token, markup, place, stack[-1].texts, never)
        elif (bracket := token.lstrip(" \t:")) in _CLOSING:
            if len(stack) <= _MAX_DEPTH:
                stack.append(_Open(bracket, _CLOSING[bracket]))
        else:
            _close(bracket, stack, markup, place)
    stack[-1].texts.append(markup[place:])
    while len(stack) > 1:
        _give_up(stack)
    return "".join(stack[0].texts)


def _close(bracket: str, stack: list[_Open], markup: str, place: int) -> None:
    """Closes the innermost open bracket of that kind, and gives up those inside it; does nothing if none is open.

    Args:
      place: after the closing bracket.
    """
    if not any(one.closing == bracket for one in stack):
        return
    while stack[-1].closing != bracket:
        _give_up(stack)
    content = "".join(stack.pop().texts)
    if bracket != "|}":
        if bracket == "]]":
            stack[-1].texts.append(_link(content))
        else:
            inside = "\n" not in content.strip() and (_follows_text(stack[-1].texts) or _precedes_text(markup, place))
            stack[-1].texts.append(wikitext_templates.expand(content, inside))


_NEARBY = 50  # pieces of text that are searched for the beginning of a line
_LINE_MARKS = " \t*#:;'\"|"  # what a line begins with before its text


def _follows_text(texts: list[str]) -> bool:
    """Whether there is text before this place, on its line."""
    for text in texts[: -_NEARBY - 1 : -1]:
        line = text.rpartition("\n")[2]
        if line.strip(_LINE_MARKS):
            return True
        if "\n" in text:
            return False
    return False


def _precedes_text(markup: str, place: int) -> bool:
    """Whether the sentence continues after this place with a lowercase word, a bracket or a comma."""
    return _GOES_ON.match(markup, place) is not None


_GOES_ON = re.compile(r"[ \t]+[a-zà-ÿ(]|,[ \t]|[ \t]+\[\[[a-z]")


def _give_up(stack: list[_Open]) -> None:
    """Gives up an open bracket that is never closed: what follows it is text."""
    given_up = stack.pop()
    stack[-1].texts.extend(given_up.texts)


def _tag(tag: str, markup: str, place: int, texts: list[str], never: set[str]) -> int:
    """Adds the text of a tag or comment and returns the place after it."""
    if tag == "<!--":
        return _end_of("-->", markup, place, never)[1]
    name = tag.strip("</>").split(None, 1)[0].rstrip("/").lower()
    if name in _LINE_BREAKS:
        texts.append("\n")
    if tag[1] == "/" or tag.endswith("/>") or name not in _DROPPED | _LITERAL:
        return place
    end, after = _end_of(f"</{name}", markup, place, never)
    if name == "math":
        texts.append(f"${markup[place:end].strip()}$")
    elif name in _LITERAL:
        texts.append(markup[place:end])
    return after


def _end_of(end: str, markup: str, place: int, never: set[str]) -> tuple[int, int]:
    """(begin, end) of the next `end` from `place` on; `place` twice if there is none."""
    if end not in never:
        found = _end_pattern(end).search(markup, place)
        if found:
            return found.span()
        never.add(end)  # the rest is not searched again
    return place, place


@functools.cache
def _end_pattern(end: str) -> re.Pattern[str]:
    return re.compile(re.escape(end) + (r"\s*>" if end.startswith("</") else ""), re.IGNORECASE)


def _link(content: str) -> str:
    target, _, label = content.partition("|")
    prefix, colon, _ = target.partition(":")
    prefix = prefix.strip().lower().replace(" ", "_")
    if colon and (prefix in _SILENT or _LANGUAGE_PREFIX.fullmatch(prefix)):
        return ""
    if label:
        return label.rpartition("|")[2]
    return target.strip().removeprefix(":").replace("_", " ").removeprefix("#")


# --- Lines ------------------------------------------------------------------------------------------------------------

_HEADING = re.compile(r"\s*(={1,6})(.*?)\1\s*")
_ITEM = re.compile(r"[*#:;]+\s*")
_QUOTES = re.compile(r"'{2,5}")
_MAGIC = re.compile(r"__[A-Z]{3,20}__")
_EXTERNAL = re.compile(r"\[(?:https?:|ftp:|mailto:)?//[^\s\]\[<>]+(?:[ \t]+([^\]\[\n]*))?\]")


def _lines(text: str, leave_out: Collection[str]) -> str:
    text = _EXTERNAL.sub(lambda found: found[1] or "", _MAGIC.sub("", _QUOTES.sub("", text)))
    paragraphs: list[str] = []
    headings: list[tuple[int, str]] = []  # level and title of headings that have no text yet
    dropped_level = 7  # level of the section that is being left out
    for line in text.split("\n"):
        heading = _HEADING.fullmatch(line)
        if heading and heading[2].strip():
            level, title = len(heading[1]), heading[2].strip()
            if level <= dropped_level:
                dropped_level = level if title.lower().replace(" ", "_") in leave_out else 7
            headings = [one for one in headings if one[0] < level] + [(level, title)]
            continue
        if dropped_level < 7:
            continue
        if item := _ITEM.match(line):
            marks, rest = item[0].strip(), line[item.end() :].strip()
            line = f"- {rest}" if marks[-1] in "*#" and rest else rest
        if not line.strip() or set(line.strip()) <= {"-"}:
            paragraphs.append("")
            continue
        for _, title in headings:
            paragraphs += ["", title, ""]
        headings.clear()
        paragraphs.append(line.strip())
    return "\n".join(paragraphs)


_SPACES = re.compile(r"[ \t\xa0\u2009\u200a\u202f]{2,}|[\t\xa0\u2009\u200a\u202f]")
_AFTER_BRACKET = re.compile(r"\([ ,;:]{1,8}")
_BEFORE_BRACKET = re.compile(r"[,;:] ?\)")
_COMMAS = re.compile(r",(?: ?,){1,8}")
_BEFORE_MARK = re.compile(r" ([,.;])(?=[\s)]|$)")
_NO_WORDS = re.compile(r"^(?:- )?\W{0,3}$", re.MULTILINE)
_EMPTY_LINES = re.compile(r"\n{3,}")


def tidy(text: str) -> str:
    """Turns entities into characters; removes brackets and commas that a template leaves: "Chen (; born 1942)"."""
    text = _SPACES.sub(" ", html.unescape(text))
    text = _BEFORE_BRACKET.sub(")", _AFTER_BRACKET.sub("(", text)).replace(" ()", "").replace(" )", ")")
    text = _BEFORE_MARK.sub(r"\1", _COMMAS.sub(",", text)).replace("\n ", "\n").replace(" \n", "\n")
    return _EMPTY_LINES.sub("\n\n", _NO_WORDS.sub("", text)).strip()
