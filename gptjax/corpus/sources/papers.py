"""Scholarly papers: LaTeX projects (folders, arXiv's .tar.gz files), JATS XML, unarXive, the ACL Anthology, PDF.

Maths is kept as TeX source. In a LaTeX project, every whole document that is not a variant of another is read; its
included files are looked up among the project's own files.
"""

from __future__ import annotations

import io
import logging
import posixpath
import re
import tarfile
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from gptjax.config import ConfigError
from gptjax.corpus.documents import Document
from gptjax.corpus.formats import encoding, latex, latex_project, scholarly, wrapping
from gptjax.corpus.formats.encoding import unix_lines
from gptjax.corpus.formats.xml import BrokenXML, parse
from gptjax.corpus.sources import UNREADABLE, Piece, begins
from gptjax.corpus.sources.archives import is_debris
from gptjax.corpus.sources.limits import READING, TimeIsUp, time_limit
from gptjax.corpus.sources.opening import (
    bare_name,
    expanded,
    find_files,
    is_remote,
    is_wanted,
    left_out,
    open_file,
    open_stream,
)
from gptjax.corpus.sources.records import decode, json_values, parts
from gptjax.corpus.sources.streams import Stream, Unreadable, counted

OPTIONS = {
    "least_characters": 500,  # characters of a LaTeX document: shorter ones are covers or letters; for other formats 1
    "max_project_bytes": 16_000_000,  # bytes of the sources of a LaTeX project
    "max_pages": 2000,  # of a PDF; the rest is not read
    "max_pdf_seconds": 300.0,  # seconds of processor time
    **READING,
}
DOCUMENTS = (".tex", ".ltx", ".latex")
LATEX = (*DOCUMENTS, ".sty", ".bbl")
BESIDE_LATEX = "PDF beside LaTeX: figures, or the same paper"
_NAMES = re.compile(
    r".*\.(?:tex|ltx|latex|sty|bbl|tar|tgz|xml|nxml|jsonl|pdf)|(?:\d{4}\.\d{4,5}|[a-z-]+\d{7})(?:v\d+)?"
)
SAME_DOCUMENT = 0.5  # a document is a variant if another has this share of its source


# --- Finding files ----------------------------------------------------------------------------------------------------


def find(path: str, options: Mapping[str, Any]) -> list[Piece]:
    """The files of `path`, as opening.find_files finds them; a folder with LaTeX sources is one piece, a project.

    Raises:
      ConfigError: one does not exist.
    """
    found, roots = find_files(path, ("",), links=options["links"]), expanded(path)
    found = [piece for piece in found if is_wanted(piece, roots, _NAMES)]
    is_source = {piece.uri: _is_source(piece) for piece in found}
    folders = {
        posixpath.dirname(uri) for uri, holds in is_source.items() if holds and not uri.endswith((".sty", ".bbl"))
    }
    pieces: dict[str, list[Piece]] = {}  # by folder, or by file
    for piece in found:
        if piece.uri.lower().endswith(".pdf") and piece.uri not in roots and _is_within(piece.uri, folders):
            piece = left_out(piece.uri, BESIDE_LATEX)
        pieces.setdefault(_project_of(piece.uri, folders) if is_source[piece.uri] else piece.uri, []).append(piece)
    return [one[0] if one[0].uri == place else _project(place, one) for place, one in pieces.items()]


def _is_source(piece: Piece) -> bool:
    return bare_name(piece.uri).endswith(LATEX) and not is_remote(piece.uri) and "left_out" not in piece.options


def _project_of(uri: str, folders: Collection[str]) -> str:
    """The uppermost folder with LaTeX sources that contains a source: parts often have their own folders."""
    folder = above = posixpath.dirname(uri)
    while (higher := posixpath.dirname(above)) != above:
        above = higher
        folder = above if above in folders else folder
    return folder


def _is_within(uri: str, folders: Collection[str]) -> bool:
    """Whether one of the folders contains a file, at whatever depth."""
    return any(uri.startswith(f"{folder}/" if folder else "") for folder in folders)


def _project(folder: str, sources: list[Piece]) -> Piece:
    names = [posixpath.relpath(source.uri, folder or ".") for source in sources]
    version = "-".join(source.version for source in sources)
    return Piece(folder, sum(source.size for source in sources), version, {"sources": names})


# --- Text -------------------------------------------------------------------------------------------------------------


def libraries(uri: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """An archive may also hold PDFs."""
    has_none = bare_name(uri).endswith((*LATEX, ".xml", ".nxml", ".jsonl"))
    return encoding.DETECTORS if has_none else (*encoding.DETECTORS, "pypdf")


def read(piece: Piece, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The papers of one file or project."""
    with counted(skipped):
        name = bare_name(piece.uri)
        if "sources" in piece.options:
            yield from _folder(piece, options, skipped)
        elif name.endswith(".pdf"):
            yield from _pdf(piece.uri, options, skipped)
        elif name.endswith((".xml", ".nxml")):
            yield from _xml(piece.uri, options, skipped)
        elif name.endswith(".jsonl"):
            yield from _unarxive(piece.uri, options, skipped)
        else:
            yield from _archive(piece.uri, options, skipped)


def _folder(piece: Piece, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    if piece.size > options["max_project_bytes"]:
        raise Unreadable(f"LaTeX project of more than {options['max_project_bytes']:,} bytes")

    def source(name: str) -> bytes:
        with open_file(posixpath.join(piece.uri, name)) as file:
            return file.read(options["max_project_bytes"])

    yield from _latex(f"{piece.uri}/", {name: source(name) for name in piece.options["sources"]}, options, skipped)


def _latex(
    uri: str, files: Mapping[str, bytes], options: Mapping[str, Any], skipped: Counter[str]
) -> Iterator[Document]:
    """The documents of a project, the longest first, without variants."""
    sources = {
        name: latex_project.without_comments(unix_lines(decode(raw, uri + name, "detect", skipped)))
        for name, raw in files.items()
    }
    whole = [
        latex_project.flatten(name, sources, sources.__getitem__, options["max_project_bytes"])
        for name in sorted(sources)
        if latex_project.is_document(sources[name])
    ]
    if not whole:
        skipped["LaTeX without a complete document"] += 1
    used: set[str] = set()
    for document in sorted(whole, key=lambda one: -len(one.source)):
        size = sum(len(sources[name]) for name in document.files)
        shared = sum(len(sources[name]) for name in document.files if name in used)
        used.update(document.files)
        if shared > SAME_DOCUMENT * size:
            skipped["variants of another document of their project"] += 1
            continue
        if not begins(skipped, uri + document.files[0]):
            continue
        text = latex.to_text(latex_project.with_macros_expanded(document.source))
        if "\0" in text:
            skipped[f"{UNREADABLE}NUL bytes: not a text"] += 1
        elif len(text) < options["least_characters"]:
            skipped[f"LaTeX documents of less than {options['least_characters']} characters"] += 1
        else:
            yield Document(text + "\n", uri + document.files[0])


# --- Archives ---------------------------------------------------------------------------------------------------------


def _archive(uri: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The archive or single source of a project, or an archive of many of these, like arXiv's bulk files."""
    with _opened(uri, options) as stream:
        yield from _unpacked(io.BufferedReader(stream), uri, options, skipped, depth=0)


def _unpacked(
    stream: io.BufferedReader[Any], uri: str, options: Mapping[str, Any], skipped: Counter[str], depth: int
) -> Iterator[Document]:
    """The papers of a tar archive, or of one LaTeX source."""
    start = stream.peek(512)[:512]
    if start[257:262] != b"ustar":
        raw = stream.read(options["max_project_bytes"] + 1)
        if len(raw) > options["max_project_bytes"]:
            raise Unreadable(f"LaTeX project of more than {options['max_project_bytes']:,} bytes")
        yield from _latex(f"{uri}!", {"main.tex": raw}, options, skipped)
        return
    files: dict[str, bytes] = {}
    has_latex: bool | None = None  # found out at the first PDF
    left = options["max_project_bytes"]
    for name, content in _members(stream, options):
        if name.lower().endswith(LATEX):
            files[name] = content
            left -= len(content)
            if left < 0:
                raise Unreadable(f"LaTeX project of more than {options['max_project_bytes']:,} bytes")
        elif depth == 0 and name.endswith(".gz"):
            if not begins(skipped, f"{uri}!{name}"):
                continue
            with counted(skipped):
                inner = io.BufferedReader(Stream(io.BytesIO(content), "gzip", options))
                yield from _unpacked(inner, f"{uri}!{name}", options, skipped, depth=1)
        elif depth == 0 and name.lower().endswith(".pdf"):
            if has_latex is None:
                has_latex = _has_latex(uri, options)
            if has_latex:
                skipped[BESIDE_LATEX] += 1
                continue
            if not begins(skipped, f"{uri}!{name}"):
                continue
            with counted(skipped):
                yield from _pdf_text(io.BytesIO(content), f"{uri}!{name}", options, skipped)
    if files:
        yield from _latex(f"{uri}!", files, options, skipped)


def _has_latex(uri: str, options: Mapping[str, Any]) -> bool:
    """Whether an archive holds LaTeX, beside which a PDF is a figure, or the paper itself, printed."""
    with _opened(uri, options) as stream:
        return any(name.lower().endswith(DOCUMENTS) for name, _ in _members(io.BufferedReader(stream), options))


def _opened(uri: str, options: Mapping[str, Any]) -> Stream:
    if uri.lower().endswith(".tgz"):
        return Stream(open_file(uri), "gzip", options, remote=is_remote(uri))
    return open_stream(uri, options)


def _members(stream: io.BufferedReader[Any], options: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files of a tar archive that may hold text; links and devices are skipped."""
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                wanted = member.name.lower().endswith((*LATEX, ".gz", ".pdf")) and not is_debris(member.name)
                if member.isfile() and wanted and member.size <= options["max_document_bytes"]:
                    yield posixpath.normpath(member.name), (archive.extractfile(member) or io.BytesIO()).read()
    except (tarfile.TarError, EOFError, ValueError, OSError):
        raise Unreadable("truncated or corrupt tar") from None


# --- Other formats ----------------------------------------------------------------------------------------------------


def _xml(uri: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    with open_stream(uri, options) as stream:
        pieces = parts(stream, options["max_document_bytes"])
        raw = next(pieces)
        if next(pieces, None) is not None:
            raise Unreadable(f"XML of more than {options['max_document_bytes']:,} bytes")
    try:
        found = list(scholarly.papers(parse(raw)))
    except BrokenXML as error:
        raise Unreadable(f"broken XML: {error}") from None
    for paper in found:
        if paper.text:
            yield Document(paper.text + "\n", paper.name or uri, paper.license, paper.language)
    if not any(paper.text for paper in found):
        skipped["XML without a paper"] += 1


def _unarxive(uri: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    for number, record in json_values(uri, options, skipped):
        if not begins(skipped, f"{uri}:{number}"):
            continue
        paper = scholarly.unarxive(record)
        if paper is None:
            skipped[f"{UNREADABLE}not a record of unarXive"] += 1
        else:
            text = paper.text.encode("utf-8", "replace").decode()  # JSON can escape a lone surrogate
            yield Document(text, paper.name, paper.license)


def _pdf(uri: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    with open_file(uri) as file:
        yield from _pdf_text(file, uri, options, skipped)


def _pdf_text(file: Any, uri: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The text of a PDF's pages, lines joined to paragraphs."""
    try:
        import pypdf
    except ImportError:
        raise ConfigError("PDF needs pip install 'gptjax[corpus]'") from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it reports every oddity that it has mended
    try:
        with time_limit(options["max_pdf_seconds"]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader = pypdf.PdfReader(file, strict=False)
            if reader.is_encrypted and not reader.decrypt(""):
                raise Unreadable("encrypted PDF")
            pages = [page.extract_text() for page, _ in zip(reader.pages, range(options["max_pages"]))]
    except Unreadable:
        raise
    except TimeIsUp:
        raise Unreadable(f"PDF of more than {options['max_pdf_seconds']:g} seconds") from None
    except Exception:  # for a broken PDF, pypdf may raise anything
        raise Unreadable("corrupt PDF") from None
    text = wrapping.unwrapped("\n".join(pages), hyphenated=True).replace("\0", "").encode("utf-8", "replace").decode()
    if text.strip():
        yield Document(text.strip() + "\n", uri)
    else:
        skipped["PDF without text: pictures of pages"] += 1
