"""EPUB: the members of the archive that are the book, in order (EPUB 2 and 3: container.xml → package → spine)."""

from __future__ import annotations

import posixpath
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from gptjax.corpus.formats.xml import BrokenXML, first, parse, text_of

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
_TEXT_TYPES = ("application/xhtml+xml", "text/html", "text/x-oeb1-document", "application/x-dtbook+xml")


@dataclass(frozen=True)
class Package:
    """chapters: names of members, in reading order; language, rights: as stated, or ''."""

    chapters: tuple[str, ...]
    language: str
    rights: str


def package(names: list[str], member: Callable[[str], bytes]) -> Package:
    """Reads what an EPUB declares.

    Args:
      names: the names of all members.
      member: a function from a member's name to its content.

    Raises:
      BrokenXML: its declarations cannot be read.
    """
    if CONTAINER not in names:
        raise BrokenXML(f"no {CONTAINER}")
    root = first(parse(member(CONTAINER)).iter(), "rootfile")
    path = root.get("full-path", "") if root is not None else ""
    if path not in names:
        raise BrokenXML("no package document")
    document = parse(member(path))
    manifest = {item.get("id"): item for item in document.iter("item")}
    chapters = []
    for reference in document.iter("itemref"):
        item = manifest.get(reference.get("idref"))
        if item is None or item.get("media-type") not in _TEXT_TYPES or reference.get("linear") == "no":
            continue
        name = posixpath.normpath(posixpath.join(posixpath.dirname(path), urllib.parse.unquote(item.get("href", ""))))
        if name in names and "nav" not in item.get("properties", "").split():
            chapters.append(name)
    return Package(tuple(dict.fromkeys(chapters)), _said(document, "language"), _said(document, "rights"))


def encrypted(names: list[str], member: Callable[[str], bytes]) -> set[str]:
    """The members that cannot be read without a key. Often these are only fonts, which does no harm."""
    if ENCRYPTION not in names:
        return set()
    return {urllib.parse.unquote(one.get("URI", "")) for one in parse(member(ENCRYPTION)).iter("CipherReference")}


def _said(document: Element, tag: str) -> str:
    element = first(document.iter(), tag)
    return "" if element is None else text_of(element).strip()
