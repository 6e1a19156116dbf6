"""Converts papers in XML and JSON to text: JATS (PubMed Central, journals), ACL Anthology, unarXive."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from gptjax.corpus.formats import license_names, mathml
from gptjax.corpus.formats.latex_numbers import item_number
from gptjax.corpus.formats.latex_signs import lowered, raised
from gptjax.corpus.formats.xml import first, text_of


@dataclass(frozen=True)
class Paper:
    """name: unique within its file; license: an SPDX name, or ''."""

    name: str
    text: str
    license: str = ""
    language: str = ""


def papers(root: Element) -> Iterator[Paper]:
    """The papers of one XML document, by its root element; none if it is of another kind."""
    if root.tag == "collection":
        yield from _anthology(root)
    for article in root.iter("article"):
        yield _jats(article)


# --- The ACL Anthology ------------------------------------------------------------------------------------------------


def _anthology(collection: Element) -> Iterator[Paper]:
    """Titles and abstracts; a paper without an abstract has no text."""
    for volume in collection.iter("volume"):
        for paper in volume.iter("paper"):
            title, abstract = (_flat(paper.find(tag)) for tag in ("title", "abstract"))
            if title and abstract:
                address = _flat(paper.find("url")) or f"{collection.get('id')}-{volume.get('id')}.{paper.get('id')}"
                yield Paper(f"https://aclanthology.org/{address}", f"{title}\n\n{abstract}")


def _flat(element: Element | None) -> str:
    """The text on one line; maths between dollars."""
    if element is None:
        return ""
    parts: list[str] = []
    _inline(element, parts)
    return " ".join("".join(parts).split())


# --- JATS -------------------------------------------------------------------------------------------------------------

_BLOCKS = frozenset(
    "p title sec abstract list list-item disp-quote caption boxed-text statement def-item verse-line".split()
)
_LEFT_OUT = frozenset(
    "ref-list table table-wrap-foot graphic media inline-graphic supplementary-material object-id label fn-group "
    "contrib-group aff author-notes permissions kwd-group journal-meta alternatives alt-text email uri "
    "funding-group ack-note related-article history pub-date counts custom-meta-group".split()
)


def _jats(article: Element) -> Paper:
    """Title, abstract, body: sections under their titles; captions, no tables, no references."""
    parts: list[str] = []
    front, body = article.find("front"), article.find("body")
    meta = first(front.iter(), "article-meta") if front is not None else None
    if meta is not None:
        for tag in ("title-group", "abstract"):
            for element in meta.findall(tag):
                parts.append("\n\n" + "Abstract\n\n" * (tag == "abstract" and element.find("title") is None))
                _blocks(element, parts)
    if body is not None:
        _blocks(body, parts)
    text = re.sub(f"{_RUN_IN}(?=[^\\W\\d_])", " ", "".join(parts)).replace(_RUN_IN, "")
    text = _CITED_ALONE.sub(_between, _BRACKETS.sub(_between, text)).replace(_CITED, "")
    text = re.sub(r"[ \t]*\n[ \t]*", "\n", re.sub(r" +([,.;:)])", r"\1", text))
    text = _BROKEN_CODE.sub(lambda found: found[0].replace(_NEWLINE, "\n").replace(_SPACE, " "), text)
    identifiers = [element for element in (meta.iter("article-id") if meta is not None else ()) if element.text]
    named = {element.get("pub-id-type"): (element.text or "").strip() for element in identifiers}
    name = next((f"{kind}:{named[kind]}" for kind in ("doi", "pmc", "pmid") if kind in named), "")
    text = re.sub(rf"{_ITEM}\s*", "", re.sub(r"\n-\s*\n+", "\n- ", re.sub(r"\n{3,}", "\n\n", text))).strip()
    return Paper(name, text, _jats_license(article), (article.get("lang") or "").lower().partition("-")[0])


def _jats_license(article: Element) -> str:
    for element in article.iter("license"):
        addresses = [
            element.get("href", ""),
            *(link.get("href", "") for link in element.iter("ext-link")),
            text_of(element),
        ]
        if found := next(filter(None, map(license_names.of_address, addresses)), ""):
            return found
    return ""


def _blocks(element: Element, parts: list[str]) -> None:
    """Adds the text of an element, with empty lines between its blocks."""
    _add(element.text, parts)
    for child in element:
        tag = child.tag
        if tag in ("inline-formula", "disp-formula", "tex-math", "math"):
            _formula(child, parts)
        elif tag in ("sup", "sub") and len(child) == 0:
            parts.append(_script(tag, child.text or "", parts))
        elif tag == "list" and child.get("list-type") in _NUMBERED:
            _numbered_list(child, parts)
        elif tag in _BLOCKS or tag in ("fig", "table-wrap", "article-title", "subtitle"):
            parts.append("\n\n" + "- " * (tag == "list-item"))
            _blocks(child, parts)
            parts.append("\n\n")
        elif tag in ("preformat", "code"):
            code = "".join(child.itertext()).strip("\n").replace("\n", _NEWLINE).replace(" ", _SPACE)
            parts.append(f"\n\n{code}\n\n" if _NEWLINE in code or tag == "preformat" else code)
        elif tag == "xref" and child.get("ref-type") == "bibr":
            parts.append(_cited(child, parts))
        elif tag not in _LEFT_OUT:
            _blocks(child, parts)
            if tag == "bold" and parts and parts[-1][-1:] in (".", ":"):
                parts.append(_RUN_IN)
        _add(child.tail, parts)


def _script(tag: str, text: str, parts: list[str]) -> str:
    """What is raised or lowered; a power that has no raised signs is written with ^."""
    text = text.strip()
    after_figure = parts and parts[-1].rstrip()[-1:].isdigit()
    if tag == "sup" and (text in ("TM", "SM") or (text in ("o", "∘", "◦") and after_figure)):
        return {"TM": "™", "SM": "℠"}.get(text, "°")
    shown = (raised if tag == "sup" else lowered)(text)
    power = tag == "sup" and shown[:1] in ("-", "−", "–") and parts and parts[-1][-1:].isdigit()
    return f"^{shown}" if power else shown


_NUMBERED = {
    "order": "{arabic}.",
    "alpha-lower": "{alph}.",
    "alpha-upper": "{Alph}.",
    "roman-lower": "{roman}.",
    "roman-upper": "{Roman}.",
}


def _numbered_list(element: Element, parts: list[str]) -> None:
    """Items with their own labels, or else with their numbers."""
    parts.append("\n\n")
    for number, item in enumerate(element.findall("list-item"), 1):
        own = item.find("label")
        label = text_of(own).strip() if own is not None else ""
        parts.append(f"\n\n{label or item_number(_NUMBERED[element.get('list-type', '')], number)} {_ITEM}")
        _blocks(item, parts)
    parts.append("\n\n")


# Marks of a reference that is not shown, of the white space of code, an item and the end of a bold heading.
_CITED, _NEWLINE, _SPACE, _ITEM, _RUN_IN = "\x01", "\x02", "\x03", "\x04", "\x05"
_LEAD_IN = rf"(?:see|see also|e\.g\.|cf\.|reviewed in|for review|[-,;–—.\s{_CITED}])"
_BRACKETS = re.compile(rf"\s*[(\[]{_LEAD_IN}*{_CITED}{_LEAD_IN}*[)\]]")
_CITED_ALONE = re.compile(rf"(?:[ ,;–-]*{_CITED})+")
_BROKEN_CODE = re.compile(rf"[{_NEWLINE}{_SPACE}]+")
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d[a-z]?(?:[,;–-] ?(?:(?:1[5-9]|20)\d\d)?[a-z]?)*")
_NAME_BEFORE = re.compile(r"(?:[^\W\d_]|et al\.|\b(?:1[5-9]|20)\d\d[a-z]?)[’'s]{0,2},? ?[(\[]?$")
_POWER_OF_TEN = re.compile(r"\d\s?[×x]\s?10$")
_NAMED = re.compile(r"[^\W\d_]{2,}")


def _between(cited: re.Match[str]) -> str:
    """What stays where references were: a space, if only they parted two sentences, as in "fell.<sup>3</sup>It"."""
    before, after = cited.string[max(cited.start() - 1, 0) : cited.start()], cited.string[cited.end() : cited.end() + 1]
    return " " if before in (".", "!", "?") and after.isalpha() else ""


def _cited(reference: Element, parts: list[str]) -> str:
    """A reference that names an author is part of its sentence, if it is not in brackets; a number needs one before it.

    "Smith et al. (2010) show", "as in [3]" are kept, "it is known [3]" and "(Smith, 2010)" are not. A year stays with
    the names before it, if it is all that is marked as the reference.
    """
    text = " ".join("".join(reference.itertext()).split())
    before = "".join(parts[-6:])[-200:].replace(_CITED, "")
    if _YEAR.fullmatch(text) and _NAME_BEFORE.search(before):
        return text
    if text.isdigit() and _POWER_OF_TEN.search(before):  # marked as a reference by mistake
        return raised(text)
    in_brackets = max(before.rfind("("), before.rfind("[")) > max(before.rfind(")"), before.rfind("]"))
    if _NAMED.search(text) and not in_brackets:
        return text
    sentence = before.rstrip("([ ")
    return text if text and _NEEDED.search(sentence) and not _NAMED.search(text) else _CITED


_NEEDED = re.compile(r"(?i)(?:\b(?:by|in|of|from|see|refs?\.?|references?|with|to|than|following))$")


def _add(text: str | None, parts: list[str]) -> None:
    """Adds a run of text; white space in XML counts as one space."""
    words = re.sub(r"\s+", " ", text or "")
    if words.startswith(" ") and (not parts or parts[-1][-1:].isspace() or parts[-1].endswith("\n- ")):
        words = words[1:]
    if words:
        parts.append(words)


def _formula(element: Element, parts: list[str]) -> None:
    """TeX if there is any, else MathML as TeX, else plain text. The number of a displayed formula is left out."""
    source, math = first(element.iter(), "tex-math"), first(element.iter(), "math")
    if source is not None:
        text = text_of(source)
    elif math is not None:
        text = mathml.tex(math)
    elif element.tag == "inline-formula":  # letters and indices
        return _blocks(element, parts)
    else:
        plain: list[str] = []
        _blocks(element, plain)  # without the formula's number
        text = "".join(plain)
    if begin := re.search(r"\\begin\{document\}(.*)\\end\{document\}", text, re.DOTALL):
        text = begin[1]
    text = " ".join(text.split()).strip("$ ")
    if text:
        parts.append(f"\n$$ {text} $$\n" if element.tag == "disp-formula" else f"${text}$")


def _inline(element: Element, parts: list[str]) -> None:
    """Text of the ACL Anthology: <tex-math> between dollars, everything else unchanged."""
    maths = "$" if element.tag == "tex-math" else ""
    parts.append(maths + (element.text or ""))
    for child in element:
        _inline(child, parts)
        parts.append(child.tail or "")
    parts.append(maths)


# --- unarXive ---------------------------------------------------------------------------------------------------------

_PLACEHOLDER = re.compile(r"\{\{(formula|cite|figure|table|section):([0-9a-f-]{8,64})\}\}")
_CITES = re.compile(r"(?:\s*[,;]?\s*\{\{cite:[0-9a-f-]{8,64}\}\})+")


def unarxive(record: Mapping[str, Any]) -> Paper | None:
    """A record of unarXive 2022: title, abstract, sections; formulas as TeX, no citations. None if it is not a record.

    Saier, Krause and Färber, "unarXive 2022: All arXiv Publications Pre-Processed for NLP", 2023.
    """
    try:
        metadata, entries = record["metadata"], record["ref_entries"]
        paragraphs = [metadata["title"], "Abstract", record["abstract"]["text"] or metadata["abstract"]]
        heading = ""
        for block in record["body_text"]:
            if block["section"] != heading:
                heading = block["section"]
                paragraphs.append(heading)
            paragraphs.append(_resolved(block["text"], entries))
        texts = (" ".join(text.split()) if index < 2 else _joined(text) for index, text in enumerate(paragraphs))
        text = "\n\n".join(filter(None, texts)) + "\n"
        return Paper(f"arXiv:{record['paper_id']}", text, license_names.of_address(metadata["license"] or ""))
    except (KeyError, TypeError, AttributeError):
        return None


def _resolved(text: str, entries: Mapping[str, Any]) -> str:
    def source(found: re.Match[str]) -> str:
        entry = entries.get(found[2], {})
        latex = " ".join(entry.get("latex", "").split())
        return f"${latex}$" if found[1] == "formula" and latex else ""

    return _PLACEHOLDER.sub(source, _CITES.sub("", text))


def _joined(text: str) -> str:
    """A paragraph on one line, like all paragraphs of unarXive except abstracts and displayed formulas."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\(\s*[,;]?\s*\)|\[\s*\]", "", text)
    return re.sub(r" +([,.;:])(?=\s|$)", r"\1", re.sub(r" {2,}", " ", text))
