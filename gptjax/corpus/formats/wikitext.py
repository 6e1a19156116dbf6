"""Converts MediaWiki markup to plain text, in time linear in its length, whatever it contains.

One pass over the brackets ({{ }}, [[ ]], {| |}) and tags, with a stack, gives text without templates, tables,
references and pictures; then the markup of lines is removed. A bracket that is never closed is text.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

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
            _close(bracket, stack)
    stack[-1].texts.append(markup[place:])
    while len(stack) > 1:
        _give_up(stack)
    return "".join(stack[0].texts)


def _close(bracket: str, stack: list[_Open]) -> None:
    """Closes the innermost open bracket of that kind, and gives up those inside it; does nothing if none is open."""
    if not any(one.closing == bracket for one in stack):
        return
    while stack[-1].closing != bracket:
        _give_up(stack)
    content = "".join(stack.pop().texts)
    if bracket != "|}":
        stack[-1].texts.append(_link(content) if bracket == "]]" else _template(content))


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


# --- Templates --------------------------------------------------------------------------------------------------------


def _last(values: list[str]) -> str:
    return values[-1] if values else ""


def _first(values: list[str]) -> str:
    return values[0] if values else ""


def _measure(values: list[str]) -> str:
    """{{convert|5|km|mi}}, {{convert|5|to|10|km}}."""
    if len(values) > 3 and values[1] in ("to", "-", "–", "and", "or", "by", "x", "×"):
        between = values[1] if values[1] in "-–" else f" {values[1]} "
        return f"{values[0]}{between}{values[2]} {values[3]}"
    return " ".join(values[:2])


def _fraction(values: list[str]) -> str:
    return values[0] + " " * (len(values) > 2) + "/".join(values[-2:]) if len(values) > 2 else "/".join(values)


# Templates within sentences: name → text. Others are boxes, notes and navigation.
_TEMPLATES: dict[str, Callable[[list[str]], str]] = {
    **dict.fromkeys("lang transl transliteration nihongo2 script".split(), _last),
    **dict.fromkeys(
        "nowrap nobr nobold small big smaller larger abbr abbrlink tooltip mvar math var em strong bold italic quote "
        "blockquote cquote quotation sub sup smallcaps sc sic formatnum ship iast linktext keypress pre code kbd "
        "not_a_typo typo proper_name wikt angbr sclass".split(),
        _first,
    ),
    **dict.fromkeys("convert cvt".split(), _measure),
    **dict.fromkeys("frac fraction sfrac".split(), _fraction),
    **dict.fromkeys("as_of asof".split(), lambda values: f"As of {_first(values)}"),
    **dict.fromkeys("circa c. ca. c".split(), lambda values: f"c. {_first(values)}"),
    **dict.fromkeys("val num ntsh nts gaps".split(), lambda values: "".join(values[:1])),
    **dict.fromkeys("ndash en_dash endash".split(), lambda values: "–"),
    **dict.fromkeys("snd spnd spaced_ndash spaced_en_dash".split(), lambda values: " – "),
    **dict.fromkeys("mdash em_dash emdash".split(), lambda values: "—"),
    **dict.fromkeys("nbsp space spaces thinsp hair_space".split(), lambda values: " "),
    **dict.fromkeys("' apostrophe".split(), lambda values: "'"),
    **dict.fromkeys("! pipe".split(), lambda values: "|"),
    **dict.fromkeys("= equals".split(), lambda values: "="),
    **dict.fromkeys("middot dot · bullet •".split(), lambda values: " · "),
    **dict.fromkeys(
        "birth_date birth_date_and_age death_date death_date_and_age start_date end_date dob".split(),
        lambda values: "-".join(values[:3]),
    ),
    "oldstyledate": lambda values: ", ".join(values[:2]),
    "nihongo": lambda values: _first(values) + (f" ({values[1]})" if values[1:2] > [""] else ""),
    "ubl": ", ".join,
    "hlist": ", ".join,
    "plainlist": _first,
}
_NAMED = re.compile(r"\s*[\w -]+=")


def _template(content: str) -> str:
    name, _, rest = content.partition("|")
    if ":" in name:  # {{formatnum:1234}}
        name, _, rest = content.partition(":")
    expand = _TEMPLATES.get(name.strip().lower().replace(" ", "_"))
    if expand is None and name.strip().lower().startswith("lang-"):
        expand = _first
    if expand is None:
        return ""
    values = [value.removeprefix("1=").strip() for value in rest.split("|")]
    return expand([value for value in values if not _NAMED.match(value)])


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
