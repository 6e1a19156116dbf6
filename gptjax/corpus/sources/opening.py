"""Files and folders, local or remote, plain or compressed: listed in one order, opened as one kind of stream.

  for piece in find_files(path, (".txt", ".jsonl")): …
  with counted(skipped), open_stream(piece.uri, options) as stream:     # streams.py
      for number, line in lines(stream, options, skipped): …            # records.py; archives.py for zip

`fsspec` opens remote files (https, s3, gs, hf …). A failing network is not bad input: its errors are raised, so that
the task is tried again and nothing is lost silently.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from gptjax.config import ConfigError
from gptjax.corpus.sources import Piece
from gptjax.corpus.sources.decompression import SUFFIXES
from gptjax.corpus.sources.streams import Stream, Unreadable
from gptjax.files.paths import local_path

LINKS = ("inside", "all")  # links to follow: those within the source, or all
OUTSIDE = "links that lead out of the source (links='all' follows them)"

# Attributes of file systems that change with a file's content, the most reliable first.
VERSIONS = (
    *("ETag", "etag", "md5Hash", "Content-MD5", "blob_id", "mtime", "Last-Modified", "LastModified", "updated"),
    *("last_modified", "created"),
)


# --- Finding files ----------------------------------------------------------------------------------------------------


LOCAL = ("file://", "local://")  # addresses of local files


def find_files(
    path: str, suffixes: Sequence[str], leave_out: Collection[str] = (), links: str = "inside"
) -> list[Piece]:
    """The files of `path`, each once, sorted by name within a folder.

    Folders are walked through symbolic links, but not in cycles; hidden names are skipped. A link that leads out of
    the given folder (for a pattern: out of the folder before its first * or ?) becomes a piece that is left out and
    counted, since in a corpus from somebody else it may lead to private files of the reader. A path that is itself a
    link is followed.

    Args:
      path: a file, a folder or a pattern (`data/*.warc.gz`), local or remote; commas separate several.
      suffixes: suffixes, in lower case, of names without .gz, .bz2, .xz or .zst; "": any.
      leave_out: names of files and folders to skip.
      links: inside | all: also follow links that lead out of the folder.

    Raises:
      ConfigError: a path does not exist or is a file of another kind, or a remote place cannot be listed.
    """
    check_links(links)
    names = path.split(",")
    return once(piece for name in names for piece in _find(name, tuple(suffixes), frozenset(leave_out), links))


def check_links(links: str) -> None:
    """Raises ConfigError for a value that the option `links` does not have."""
    if links not in LINKS:
        raise ConfigError(f"links = {links!r}: expected one of {', '.join(LINKS)}")


class Bounds:
    """Where links may lead: inside a folder, or anywhere."""

    def __init__(self, folder: str, links: str):
        self._within = os.path.realpath(folder) if links == "inside" else None

    def left_out(self, entry: os.DirEntry) -> Piece | None:
        """A piece that counts an entry, if it is a link out of the folder; else None."""
        if self._within is None or not entry.is_symlink() or not os.path.exists(entry.path):
            return None
        return self.outside(entry.path)

    def outside(self, path: str) -> Piece | None:
        """The same for a path, any part of which may be a link."""
        target = os.path.realpath(path)
        if self._within is None or os.path.commonpath([target, self._within]) == self._within:
            return None
        return left_out(path, OUTSIDE)


def once(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces without repetitions of a file through a link or a second name."""
    distinct: dict[str, Piece] = {}
    for piece in pieces:
        place = piece.options.get("path", piece.uri)
        is_itself = is_remote(place) or "left_out" in piece.options
        distinct.setdefault(place if is_itself else os.path.realpath(place), piece)
    return list(distinct.values())


def expanded(path: str) -> list[str]:
    """The files and folders that `path` names, as they are named in pieces."""
    return [os.path.expanduser(_here(name)) for name in path.split(",")]


def _here(name: str) -> str:
    return name.partition("://")[2] if name.startswith(LOCAL) else name


def is_wanted(piece: Piece, roots: Collection[str], name: re.Pattern) -> bool:
    """Whether a piece is given by its own path, has an allowed name, or is only counted."""
    return "left_out" in piece.options or piece.uri in roots or name.fullmatch(bare_name(piece.uri)) is not None


def bare_name(uri: str) -> str:
    """The name in lower case without .gz, .bz2, .xz or .zst, by which the kind of the content is known."""
    name = uri.rstrip("/").rpartition("/")[2].lower()
    stem, suffix = os.path.splitext(name)
    return stem if suffix in SUFFIXES else name


def is_remote(uri: str) -> bool:
    return "://" in uri


def _find(name: str, suffixes: tuple[str, ...], leave_out: frozenset[str], links: str) -> list[Piece]:
    name = _here(name)
    if is_remote(name):
        pieces = list(_find_remote(name, leave_out))
    else:
        name = str(local_path(name, "path")) + "/" * name.endswith("/")
        pieces = list(_find_local(name, leave_out, links))
    found = [piece for piece in pieces if "left_out" in piece.options or bare_name(piece.uri).endswith(suffixes)]
    if not found and len(pieces) == 1 and bare_name(pieces[0].uri) == bare_name(name):
        raise ConfigError(
            f"{name!r}: a file must end in one of {' '.join(suffixes)}; a config's other kinds of "
            "source read tables, pages, books, papers and code (GUIDE.md, Corpora)"
        )
    return found


def _find_local(name: str, leave_out: frozenset[str], links: str) -> Iterator[Piece]:
    is_pattern = not os.path.exists(name)
    names = sorted(glob.glob(name, recursive=True)) if is_pattern else [name]
    if not names:
        raise ConfigError(f"{name!r}: no such file or folder")
    for path in names:
        bounds = Bounds(_before_pattern(name) if is_pattern else path, links)
        if is_pattern and (outside := bounds.outside(path)):
            yield outside
        elif os.path.isdir(path):
            yield from _walk(path, leave_out, (), bounds)
        elif os.path.isfile(path):
            yield _local_piece(path, os.stat(path))


def _before_pattern(name: str) -> str:
    """The folder that a pattern begins with."""
    parts = name.split(os.sep)
    return os.sep.join(itertools.takewhile(lambda part: not glob.has_magic(part), parts)) or (
        os.sep if name.startswith(os.sep) else os.curdir
    )


def _walk(folder: str, leave_out: frozenset[str], above: tuple[str, ...], bounds: Bounds) -> Iterator[Piece]:
    above = (*above, os.path.realpath(folder))
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:  # if it were skipped, everything below would be missing silently
        raise ConfigError(f"{folder!r}: cannot be listed ({error.strerror})") from error
    for entry in entries:
        if entry.name.startswith(".") or entry.name in leave_out:
            continue
        try:
            if outside := bounds.left_out(entry):
                yield outside
            elif entry.is_dir():
                if os.path.realpath(entry.path) not in above:
                    yield from _walk(entry.path, leave_out, above, bounds)
            elif entry.is_file():
                yield _local_piece(entry.path, entry.stat())
        except OSError:  # a link to itself, or deleted since it was listed
            continue


def left_out(path: str, reason: str) -> Piece:
    """A piece that is not read and only counts the reason."""
    return Piece(path.replace(os.sep, "/"), 0, options={"path": path, "left_out": reason})


def _local_piece(path: str, state: os.stat_result) -> Piece:
    return Piece(path.replace(os.sep, "/"), state.st_size, f"{state.st_mtime_ns}")


def _find_remote(name: str, leave_out: frozenset[str]) -> Iterator[Piece]:
    system, path = _file_system(name)
    try:
        if glob.has_magic(name):
            found = system.glob(path, detail=True)
        elif name.endswith("/") or (details := system.info(path))["type"] == "directory":
            found = system.find(path, detail=True)
        else:
            found = {path: details}
    except FileNotFoundError:
        found = {}
    except Exception as error:  # every file system has its own errors
        raise ConfigError(f"{name!r}: cannot be listed ({type(error).__name__}: {error})") from error
    if not found:
        raise ConfigError(f"{name!r}: no such file or folder")
    for place in sorted(found, key=lambda place: place.split("/")):
        below = place.removeprefix(path).split("/")
        if found[place]["type"] == "file" and not any(part.startswith(".") or part in leave_out for part in below):
            details = found[place] if found[place].get("size") is not None else system.info(place)
            version = next((f"{details[key]}" for key in VERSIONS if details.get(key)), "")
            yield Piece(system.unstrip_protocol(place), details.get("size") or 0, version)


def _file_system(uri: str) -> tuple[Any, str]:
    """(file system of fsspec, path there)."""
    try:
        import fsspec
    except ImportError:
        raise ConfigError(f"{uri!r}: needs pip install 'gptjax[corpus]'") from None
    try:
        return fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:  # the package of that protocol, or no such protocol
        raise ConfigError(f"{uri!r}: {error}") from None


# --- Bytes ------------------------------------------------------------------------------------------------------------


def open_file(uri: str) -> BinaryIO:
    """The file's own bytes, seekable if possible: for zip, Parquet and the like.

    Raises:
      Unreadable: a local file is missing or may not be read.
      OSError: a remote file could not be read: libraries report a failing network with the errors of a missing file.
    """
    if is_remote(uri):
        system, path = _file_system(uri)
        return system.open(path, "rb")
    try:
        return open(uri, "rb")
    except OSError as error:
        raise Unreadable(type(error).__name__) from None


def open_stream(uri: str, options: Mapping[str, Any]) -> Stream:
    """A stream of the whole file, decompressed by its suffix. A context manager.

    Args:
      options: those of limits.READING.

    Raises:
      Unreadable: there is no such file, it may not be read, or see streams.py for later errors.
    """
    compression = SUFFIXES.get(os.path.splitext(uri)[1].lower())
    return Stream(open_file(uri), compression, options, remote=is_remote(uri))
