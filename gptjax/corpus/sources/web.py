"""The web: archives of crawls (.warc, .wet; plain or compressed) and folders of HTML."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import xxhash

from gptjax.config import ConfigError
from gptjax.corpus.documents import Document
from gptjax.corpus.formats import encoding
from gptjax.corpus.sources import Piece, begins
from gptjax.corpus.sources.limits import PAGES, READING
from gptjax.corpus.sources.opening import bare_name, find_files, open_stream
from gptjax.corpus.sources.pages import MADE_OF, check_options, language_of, page_text
from gptjax.corpus.sources.records import decode, parts
from gptjax.corpus.sources.streams import Unreadable, counted
from gptjax.corpus.sources.warc import Capture, captures

ARCHIVES = (".warc", ".wet")
SUFFIXES = (*ARCHIVES, ".html", ".htm", ".xhtml")
OPTIONS = {
    "extractor": "trafilatura",  # trafilatura | resiliparse (faster, keeps more of what surrounds the text)
    "favor": "balanced",  # trafilatura: balanced | precision | recall
    "structure": "text",  # text | markdown (trafilatura): keep headings, lists, tables, code and emphasis as Markdown
    "comments": True,  # keep readers' comments
    "blocked_hosts": "",  # a file of host names, one per line: pages of these and of their subdomains are left out
    **READING,
    **PAGES,
}
# ISO 639-3, as in Common Crawl's WET files → ISO 639-1.
_TWO_LETTERS = dict(
    zip(
        "eng rus deu jpn zho spa fra ita por nld pol ces tur vie ind fas ara ell swe hun ron kor ukr dan fin nor slk"
        " bul heb hrv cat srp tha lit slv est lav hin ben tam tel urd msa isl sqi eus glg mkd kat hye aze kaz".split(),
        "en ru de ja zh es fr it pt nl pl cs tr vi id fa ar el sv hu ro ko uk da fi no sk"
        " bg he hr ca sr th lt sl et lv hi bn ta te ur ms is sq eu gl mk ka hy az kk".split(),
        strict=True,
    )
)


def find(path: str, options: Mapping[str, Any]) -> list[Piece]:
    """The archives and pages of `path` (opening.find_files).

    Raises:
      ConfigError: one does not exist; an option is invalid.
    """
    check_options(options)
    pieces = find_files(path, SUFFIXES, links=options["links"])
    if options["blocked_hosts"]:
        fingerprint = xxhash.xxh3_64_hexdigest("\n".join(sorted(_blocked(options["blocked_hosts"]))).encode())
        pieces = [dataclasses.replace(piece, version=f"{piece.version} {fingerprint}") for piece in pieces]
    return pieces


def libraries(uri: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    readers = ("fastwarc",) if bare_name(uri).endswith(ARCHIVES) else ()
    return (*encoding.DETECTORS, *readers, *MADE_OF[options["extractor"]])


def read(piece: Piece, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The texts of an archive's pages, or of a page.

    A document's uri is the page's address and, after a space, the file and the number of the record in it.
    """
    blocked = _blocked(options["blocked_hosts"])
    for capture, uri in _captures(piece.uri, options, skipped):
        if not begins(skipped, uri):
            continue
        if _is_blocked(capture.uri, blocked):
            skipped["blocked host"] += 1
        elif capture.is_text:
            if text := (decode(capture.payload, uri, "detect", skipped) or "").replace("\0", "").strip():
                yield Document(text, uri, language=_language(capture.languages))
            else:
                skipped["page without text"] += 1
        else:
            html = decode(capture.payload, uri, "detect", skipped, [capture.charset] if capture.charset else [])
            if (of_page := page_text(html, options, skipped)) is not None:
                yield Document(of_page, uri, language=_language(language_of(html) or capture.languages))


def _captures(path: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[tuple[Capture, str]]:
    """(page, uri of its document)"""
    most = options["max_html_bytes"]
    with counted(skipped), open_stream(path, options) as stream:
        if bare_name(path).endswith(ARCHIVES):
            for capture in captures(stream, most, skipped):
                yield capture, f"{capture.uri} {path}:{capture.number}"
            return
        pieces = parts(stream, most)
        payload = next(pieces)
        if next(pieces, None) is not None:
            skipped[f"page of more than {most:,} bytes"] += 1
        else:
            yield Capture(1, path, payload), path


def _language(stated: str) -> str:
    first = stated.partition(",")[0].strip().lower()
    return _TWO_LETTERS.get(first, first)


# --- Blocked hosts ----------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def _blocked(path: str) -> frozenset[str]:
    """The hosts in a file, one per line; local or remote, also compressed; # begins a comment."""
    if not path:
        return frozenset()
    try:
        with open_stream(path, READING) as stream:
            text = encoding.decode(b"".join(parts(stream, READING["max_document_bytes"]))).text
    except Unreadable as error:
        raise ConfigError(f"blocked_hosts = {path!r}: {error.reason}") from None
    hosts = (line.partition("#")[0].strip().lower().strip(".") for line in text.splitlines())
    return frozenset(filter(None, hosts))


def _is_blocked(uri: str, blocked: frozenset[str]) -> bool:
    if not blocked:
        return False
    try:
        host = (urlsplit(uri).hostname or "").strip(".")
    except ValueError:  # not a valid address
        return False
    labels = host.split(".")
    return any(".".join(labels[start:]) in blocked for start in range(len(labels)))
