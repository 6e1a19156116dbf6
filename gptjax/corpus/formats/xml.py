"""Parses untrusted XML safely.

Entities that a document declares are not expanded (so there are no entity bombs), nothing outside the document is
opened, and the depth of nested elements is limited. The entities of HTML, which many DTDs have, are known.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any, Protocol
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

_TRUNCATED = (
    expat.errors.XML_ERROR_NO_ELEMENTS,
    expat.errors.XML_ERROR_UNCLOSED_TOKEN,
    expat.errors.XML_ERROR_PARTIAL_CHAR,
)
MAX_DEPTH = 200  # nested elements


class BrokenXML(Exception):
    """The XML is not well-formed, too deep, or declares entities."""


class Target(Protocol):
    """Receives a parser's calls. Tags and attributes come without namespace and prefix."""

    def start(self, tag: str, attributes: dict[str, str], /) -> Any: ...

    def data(self, text: str, /) -> Any: ...

    def end(self, tag: str, /) -> Any: ...


def parser_to(target: Target) -> expat.XMLParserType:
    """An expat parser that calls the target. Feed it by `feed`."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise BrokenXML(f"more than {MAX_DEPTH} elements within each other")
        target.start(_local(tag), {_local(name): value for name, value in attributes.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        target.end(_local(tag))

    def refuse(*_: object) -> None:
        raise BrokenXML("declares entities")

    def skipped(name: str, is_parameter: bool) -> None:
        if not is_parameter:
            target.data(html.unescape(f"&{name};"))

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = target.data
    parser.EntityDeclHandler = refuse
    parser.SkippedEntityHandler = skipped
    parser.UseForeignDTD(True)  # without it an undeclared entity is an error; a DTD is never opened
    return parser


def feed(parser: expat.XMLParserType, data: bytes, final: bool = False) -> None:
    """Parses more of the document, or its end.

    Raises:
      BrokenXML.
    """
    try:
        parser.Parse(data, final)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise BrokenXML("truncated" if reason in _TRUNCATED else reason) from None
    except (LookupError, ValueError):  # an encoding that Python does not know, or one with several bytes per character
        raise BrokenXML("unknown encoding") from None


def parse(document: bytes) -> Element:
    """The root element of a whole document.

    Raises:
      BrokenXML.
    """
    builder = TreeBuilder()
    feed(parser_to(builder), document, final=True)
    return builder.close()


def text_of(element: Element) -> str:
    """All text of an element, with white space unchanged."""
    return "".join(element.itertext())


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


def first(elements: Iterable[Element], tag: str) -> Element | None:
    return next((element for element in elements if element.tag == tag), None)
