"""Wikipedia and other wikis: XML dumps of MediaWiki, and WikiExtractor's output; one document per article.

A document begins with the article's title. Redirects, disambiguation pages, other namespaces and stubs without text are
left out. The complete articles of a truncated dump are kept.
"""

from __future__ import annotations

import html
import json
import re
import urllib.parse
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from gptjax.corpus.documents import BLANK, Document, is_blank
from gptjax.corpus.formats import encoding, wikitext
from gptjax.corpus.formats.xml import BrokenXML, feed, parser_to
from gptjax.corpus.sources import UNREADABLE, Piece, begins
from gptjax.corpus.sources.limits import READING
from gptjax.corpus.sources.opening import expanded, find_files, is_wanted, open_stream
from gptjax.corpus.sources.records import decode, lines
from gptjax.corpus.sources.streams import Stream, Unreadable, counted

OPTIONS = {
    "wiki_license": "CC-BY-SA-4.0",  # Wikipedia's since June 2023; earlier dumps: CC-BY-SA-3.0
    "least_characters": 100,  # characters of an article's text; shorter ones are stubs
    "sections_left_out": tuple(wikitext.APPENDICES),  # for XML dumps, in lower case with _ for spaces
    **READING,
}
# pages-articles.xml, …xml-p10p30302 (parts of a dump); WikiExtractor's wiki_00
_NAME = re.compile(r".*\.xml(?:-p\d+p\d+.*)?|wiki_\d+")
_BLOCK = 1 << 16


def find(path: str, options: Mapping[str, Any]) -> list[Piece]:
    """Dumps and WikiExtractor's files of `path`, in any compression; a single file may have any name.

    Raises:
      ConfigError: one does not exist.
    """
    found, roots = find_files(path, ("",), links=options["links"]), expanded(path)
    return [piece for piece in found if is_wanted(piece, roots, _NAME)]


def libraries(uri: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    return encoding.DETECTORS


def read(piece: Piece, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The articles of one file, up to the point where it cannot be read any further."""
    with counted(skipped), open_stream(piece.uri, options) as stream:
        start = stream.read(_BLOCK)
        rest = _Rest(start, stream)
        if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<doc ", b"{")):
            articles = _extracted(rest, piece.uri, options, skipped)
        else:
            articles = _dumped(rest, options, skipped)
        for title, text, url, language in articles:
            if is_blank(text):
                skipped[BLANK] += 1
            elif len(text) < options["least_characters"]:
                skipped[f"stubs of less than {options['least_characters']} characters"] += 1
            else:
                yield Document(f"{title}\n\n{text}\n", url or piece.uri, options["wiki_license"], language)


class _Rest:
    """A stream whose first block was already read: the block, then the rest."""

    def __init__(self, start: bytes, stream: Stream):
        self._start, self._stream = start, stream

    def read(self, size: int) -> bytes:
        start, self._start = self._start, b""
        return start or self._stream.read(size)


# --- Dumps ------------------------------------------------------------------------------------------------------------

_DISAMBIGUATION = re.compile(
    r"\{\{\s*(?:disambig|disambigua\w*|dab|hndis|geodis|surname|given name|begriffsklärung|homonymie|desambigua\w*|dp"
    r"|неоднозначность|aimai|消歧义)\b",
    re.IGNORECASE,
)
_REDIRECT = re.compile(r"\s*#\w+\s*:?\s*\[\[")


def _dumped(stream: _Rest, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[tuple[str, str, str, str]]:
    """(title, text, URL, language) of each article of an XML dump."""
    pages = _Pages(options["max_line_bytes"])
    parser = parser_to(pages)
    try:
        while block := stream.read(_BLOCK):
            feed(parser, block)
            for page in pages.taken():
                if reason := _left_out(page):
                    skipped[reason] += 1
                    continue
                if begins(skipped, url := pages.url(page["title"])):
                    text = wikitext.to_text(page["text"], options["sections_left_out"])
                    yield page["title"], text, url, pages.language
        feed(parser, b"", final=True)
    except BrokenXML as error:
        raise Unreadable(f"broken XML: {error}") from None


def _left_out(page: dict[str, str]) -> str:
    if "too long" in page:
        return f"{UNREADABLE}a page that is too long"
    if page.get("ns", "0") != "0":
        return "not in the namespace of articles"
    if "redirect" in page or _REDIRECT.match(page.get("text", "")):
        return "redirects"
    if not page.get("text") or not page.get("title"):
        return BLANK
    if _DISAMBIGUATION.search(page["text"]) or page["title"].endswith("(disambiguation)"):
        return "disambiguation pages"
    return ""


class _Pages:
    """Receives the calls of a dump's parser; gathers the pages, each with its latest revision, and their origin."""

    def __init__(self, most: int):
        self.language = ""
        self._most, self._size = most, 0
        self._base = ""
        self._page: dict[str, str] = {}
        self._whole: list[dict[str, str]] = []
        self._texts: list[str] | None = None  # text of the current element

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag in ("title", "ns", "text", "base"):
            self._texts, self._size = [], 0
        elif tag == "redirect":
            self._page["redirect"] = attributes.get("title", "")
        elif tag == "mediawiki":
            self.language = attributes.get("lang", "") or attributes.get(
                "http://www.w3.org/XML/1998/namespace lang", ""
            )

    def data(self, text: str) -> None:
        if self._texts is not None:
            self._size += len(text)
            if self._size > self._most:
                self._page["too long"] = ""
            else:
                self._texts.append(text)

    def end(self, tag: str) -> None:
        if tag == "page":
            self._whole.append(self._page)
            self._page = {}
        elif self._texts is not None and tag in ("title", "ns", "text", "base"):
            if tag == "base":
                self._base = "".join(self._texts)
            else:
                self._page[tag] = "".join(self._texts)
            self._texts = None

    def taken(self) -> list[dict[str, str]]:
        """The complete pages since the last call."""
        whole, self._whole = self._whole, []
        return whole

    def url(self, title: str) -> str:
        """https://en.wikipedia.org/wiki/Title, derived from the main page that the dump names."""
        return self._base.rpartition("/")[0] + "/" + urllib.parse.quote(title.replace(" ", "_"), safe="/:(),'!*")


# --- WikiExtractor ----------------------------------------------------------------------------------------------------

_DOC = re.compile(r'<doc [^>]*?url="([^"]*)"[^>]*?title="(.*)">\s*')
_TAG = re.compile(r"</?(?:br|nowiki|small|sub|sup|li|ul|ol|div|span|p|center|blockquote|ref|references)\b[^<>]*>")
_LANGUAGE = re.compile(r"https?://([a-z-]{2,12})\.")


def _extracted(
    stream: _Rest, uri: str, options: Mapping[str, Any], skipped: Counter[str]
) -> Iterator[tuple[str, str, str, str]]:
    """(title, text, URL, language) of each article in WikiExtractor's files, <doc> or JSON."""
    title = url = ""
    body: list[str] | None = None
    for number, raw in lines(stream, options, skipped):
        line = decode(raw, f"{uri}:{number}", "detect", skipped)
        if body is None and line.startswith("{"):
            if not begins(skipped, f"{uri}:{number}"):
                continue
            article = _json_article(line, options["sections_left_out"])
            if article is None:
                skipped[f"{UNREADABLE}broken JSON line"] += 1
            else:
                yield article
        elif found := _DOC.fullmatch(line):
            if body is not None:
                skipped[f"{UNREADABLE}article without an end"] += 1
            url, title, body = html.unescape(found[1]), html.unescape(found[2]), []
        elif line.strip() == "</doc>":
            if body is not None and begins(skipped, url):
                yield _article(title, "\n".join(body), url, options["sections_left_out"])
            body = None
        elif body is not None:
            body.append(line)
    if body is not None:
        skipped[f"{UNREADABLE}article without an end"] += 1


def _json_article(line: str, leave_out: Collection[str]) -> tuple[str, str, str, str] | None:
    try:
        record = json.loads(line)
        title, text, url = (record[name].encode("utf-8", "replace").decode() for name in ("title", "text", "url"))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    return _article(title, text, url, leave_out)


def _article(title: str, text: str, url: str, leave_out: Collection[str]) -> tuple[str, str, str, str]:
    """The text without its first line, the title, and without headings that have no text left."""
    *rest, last = wikitext.tidy(_TAG.sub("", text).strip().removeprefix(title)).split("\n")
    while last.rstrip(".").lower().replace(" ", "_") in leave_out and rest:
        *rest, last = "\n".join(rest).rstrip().split("\n")
    language = _LANGUAGE.match(url)
    return title, "\n".join([*rest, last]), url, language[1] if language else ""
