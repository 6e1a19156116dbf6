"""Books, one document per file: plain text, Markdown, AsciiDoc, HTML, EPUB, and zip archives of these; in any encoding.

Header, small print and footer of Project Gutenberg's files, of any year, are left out.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from gptjax.corpus.documents import BLANK, Document, is_blank
from gptjax.corpus.formats import encoding, epub, gutenberg, hypertext, license_names, licenses, wrapping
from gptjax.corpus.formats.encoding import unix_lines
from gptjax.corpus.formats.xml import BrokenXML
from gptjax.corpus.sources import KEPT, Piece, begins
from gptjax.corpus.sources.archives import is_debris, open_zip, read_member
from gptjax.corpus.sources.limits import READING
from gptjax.corpus.sources.opening import bare_name, find_files, open_stream
from gptjax.corpus.sources.records import decode, parts
from gptjax.corpus.sources.streams import Unreadable, counted

PLAIN = (".txt", ".text", ".md", ".markdown", ".asciidoc", ".adoc", ".rst")
HTML = (".html", ".htm", ".xhtml")
SUFFIXES = (*PLAIN, *HTML, ".epub", ".zip")
OPTIONS = {
    "gutenberg": True,  # leave out what Project Gutenberg puts around its books
    "unwrap": False,  # join the lines of each paragraph of plain text
    **READING,
}


def find(path: str, options: Mapping[str, Any]) -> list[Piece]:
    """The files of `path`, as opening.find_files finds them.

    Raises:
      ConfigError: one does not exist, or is a file of another kind.
    """
    return find_files(path, SUFFIXES, links=options["links"])


def libraries(uri: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    return (*encoding.DETECTORS, *(() if bare_name(uri).endswith(PLAIN) else hypertext.MADE_OF))


def read(piece: Piece, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The book of one file, or the books of one archive."""
    with counted(skipped):
        name = bare_name(piece.uri)
        if name.endswith(".epub"):
            yield from _epub(piece.uri, options, skipped)
        elif name.endswith(".zip"):
            yield from _zip(piece.uri, options, skipped)
        else:
            yield from _file(piece.uri, options, skipped)


def _file(uri: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The book of one file: only the beginning of a file that is too long, and what there is of a truncated one."""
    with open_stream(uri, options) as stream:
        pieces = parts(stream, options["max_document_bytes"])
        yield from _book(next(pieces), uri, options, skipped)
        if next(pieces, None) is not None:
            skipped[f"{KEPT}books cut after {options['max_document_bytes']:,} bytes"] += 1


def _book(raw: bytes, uri: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """A book of one piece of text or HTML."""
    text = unix_lines(decode(raw, uri, "detect", skipped))
    if "\0" in text:
        raise Unreadable("NUL bytes: not a text")
    if is_html := bare_name(uri).endswith(HTML):
        text = hypertext.text_of(text)
    if options["gutenberg"]:
        text = gutenberg.without_boilerplate(text)
    if options["unwrap"] and not is_html:
        text = wrapping.unwrapped(text)
    if not is_blank(text):
        yield Document(text, uri)
    else:
        skipped[BLANK] += 1


def _zip(uri: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    with open_zip(uri) as archive:
        for name in sorted(archive.namelist()):
            if name.lower().endswith((*PLAIN, *HTML)) and not is_debris(name):
                if not begins(skipped, f"{uri}!{name}"):
                    continue
                with counted(skipped):
                    yield from _book(read_member(archive, name, options), f"{uri}!{name}", options, skipped)


def _epub(uri: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    with open_zip(uri) as archive:
        try:
            text, language, rights = _chapters(archive, uri, options, skipped)
        except BrokenXML as error:
            raise Unreadable(f"corrupt EPUB: {error}") from None
    if options["gutenberg"]:
        text = gutenberg.without_boilerplate(text)
    if not is_blank(text):
        yield Document(
            text, uri, license_names.of_name(rights) or licenses.of_text(rights), language.lower().partition("-")[0]
        )
    else:
        skipped[BLANK] += 1


def _chapters(
    archive: zipfile.ZipFile, uri: str, options: Mapping[str, Any], skipped: Counter[str]
) -> tuple[str, str, str]:
    """(text, language, rights) of an EPUB; its chapters together may be as long as one member."""
    names = archive.namelist()

    def member(name: str) -> bytes:
        return read_member(archive, name, options)

    opf = epub.package(names, member)
    if epub.encrypted(names, member).intersection(opf.chapters):
        raise Unreadable("encrypted EPUB")
    texts, left = [], options["max_document_bytes"]
    for name in opf.chapters:
        raw = member(name)
        left -= len(raw)
        if left < 0:
            raise Unreadable(f"EPUB of more than {options['max_document_bytes']:,} bytes")
        texts.append(hypertext.text_of(unix_lines(decode(raw, f"{uri}!{name}", "detect", skipped))))
    return "\n\n\n".join(filter(None, texts)) + "\n", opf.language, opf.rights
