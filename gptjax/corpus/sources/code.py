"""Source code: git working trees, folders of source, an installed Python environment; with language and licence.

Every file that a person wrote is a document; its uri is its path. Its licence is the nearest of: the statement in the
file's head (an SPDX tag, a notice); the licence files of its folder or of one above, with what its manifest says
(package.json, Cargo.toml, pyproject.toml …) and REUSE's folder LICENSES; the metadata of the installed Python package
to which it belongs. Files without an allowed licence are left out and counted.
"""

from __future__ import annotations

import csv
import functools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gptjax.config import ConfigError, suggestion
from gptjax.corpus.documents import BLANK, Document, is_blank
from gptjax.corpus.formats import comments, encoding, generated, languages, license_manifests, license_names, licenses
from gptjax.corpus.sources import UNREADABLE, Piece
from gptjax.corpus.sources.opening import Bounds, check_links, left_out, once, open_file
from gptjax.corpus.sources.records import decode
from gptjax.corpus.sources.streams import Unreadable, counted
from gptjax.files.paths import local_path

LEFT_OUT = ("vendored", "built", "test data", "lock files", "generated", "minified")
OPTIONS = {
    "languages": (),  # names in gptjax/corpus/formats/languages.py; none: all except data (JSON, YAML, XML …)
    "licenses": license_names.PERMISSIVE,  # allowed licences, by SPDX name; none: any licence
    "links": "inside",  # symbolic links that are followed: inside (those that stay within the folder) | all
    "unknown_license": False,  # keep files whose licence is not known
    "license_headers": False,  # keep comments at a file's beginning that only state copyright and licence
    "leave_out": LEFT_OUT,  # kinds of files that no person wrote (gptjax/corpus/formats/generated.py)
    # Minified, by the limits of The Stack (BigCode, 2022).
    "longest_line": 1000,  # characters; not applied to prose and data
    "mean_line": 100.0,  # characters
    "alphanumeric": 0.25,  # smallest share of letters and digits
    "max_file_kilobytes": 1000,  # longer files are data, mostly
}
HEAD = 4000  # characters of a file's head that are searched for its licence
_FOLDERS = {
    **dict.fromkeys(generated.VENDORED, "vendored"),
    **dict.fromkeys(generated.BUILT, "built"),
    **dict.fromkeys(generated.TEST_DATA, "test data"),
}
_ALL_BUT_DATA = tuple(name for name in languages.LANGUAGES if languages.kind(name) != "data")
_LICENSE_FILE = re.compile(r"(?i)(?:.*[-_.])?(?:licen[cs]e|copying|unlicense)(?:[-_.].*)?")
_PLAIN_LICENSE_FILE = re.compile(r"(?i)(?:licen[cs]es?|copying|unlicense)(?:\.(?:md|txt|rst))?")


# --- Finding files ----------------------------------------------------------------------------------------------------


def find(path: str, options: Mapping[str, Any]) -> list[Piece]:
    """The source files below `path`, each once, sorted by name within a folder; commas separate several folders.

    A folder that is left out as a whole is one piece, so that it is counted.

    Raises:
      ConfigError: a folder does not exist; an option is invalid.
    """
    _check(options)
    pieces: list[Piece] = []
    for root in map(str, [local_path(name, "path") for name in path.split(",")]):
        if not os.path.isdir(root):
            raise ConfigError(f"{root!r}: no such folder")
        criteria = _Criteria(_wanted(options), frozenset(options["leave_out"]), Bounds(root, options["links"]))
        pieces.extend(_walk(root, criteria, _Licensing(files=_above(root))))
    return once(pieces)


def _check(options: Mapping[str, Any]) -> None:
    for name, known in (("languages", languages.LANGUAGES), ("leave_out", LEFT_OUT), ("licenses", license_names.KNOWN)):
        for value in options[name]:
            if value not in known:
                raise ConfigError(
                    f"{name}: {value!r}: expected one of {', '.join(sorted(known))}{suggestion(value, known)}"
                )
    check_links(options["links"])
    if options["longest_line"] < 1 or options["mean_line"] <= 0 or options["max_file_kilobytes"] < 1:
        raise ConfigError("longest_line, mean_line and max_file_kilobytes must be positive")
    if not 0 <= options["alphanumeric"] <= 1:
        raise ConfigError(f"alphanumeric = {options['alphanumeric']}: must be in [0, 1]")


@dataclass(frozen=True)
class _Licensing:
    """The files that state the licence of the files in a folder.

    Attributes:
      files: licence files of this folder or the nearest above, up to an environment's.
      packages: of an installed environment: a file's real path → its package's METADATA.
      beyond: licence files above the environment.
    """

    files: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    beyond: tuple[str, ...] = ()

    def of(self, path: str) -> tuple[str, ...]:
        """The files that state one file's licence."""
        if not self.files and (metadata := self.packages.get(path)):
            return (metadata,)
        return self.files or self.beyond


@dataclass(frozen=True)
class _Criteria:
    """What to read of a folder: files of these languages, but nothing that is left out, and no links out of bounds."""

    languages: frozenset[str]
    leave_out: frozenset[str]
    bounds: Bounds


def _walk(folder: str, criteria: _Criteria, licensing: _Licensing, above: tuple[str, ...] = ()) -> Iterator[Piece]:
    """The pieces of one folder; a folder that contains itself, through a link, is skipped."""
    above = (*above, os.path.realpath(folder))
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield left_out(folder, f"{UNREADABLE}folder: {type(error).__name__}")
        return
    if packages := _installed(folder, entries):  # a stray LICENSE beside the packages belongs to one of them
        licensing = _Licensing(packages=packages, beyond=licensing.files)
    elif license_files := _license_files(entry.path for entry in entries):
        licensing = replace(licensing, files=license_files)
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith((".dist-info", ".egg-info", "__pycache__")):
            continue
        try:
            if outside := criteria.bounds.left_out(entry):
                yield outside
            elif not entry.is_dir():
                if entry.is_file() and (piece := _piece(entry, criteria, licensing)):
                    yield piece
            elif (reason := _folder_reason(entry)) in criteria.leave_out:
                yield left_out(entry.path, f"{reason}: folder {entry.name}")
            elif os.path.realpath(entry.path) not in above:
                yield from _walk(entry.path, criteria, licensing, above)
        except OSError:  # a link to itself, or deleted since it was listed
            continue


def _piece(entry: os.DirEntry, criteria: _Criteria, licensing: _Licensing) -> Piece | None:
    if entry.name in generated.LOCK_FILES and "lock files" in criteria.leave_out:
        return left_out(entry.path, "lock files")
    if _is_license(entry.name) or not criteria.languages.intersection(
        languages.of_name(entry.name) or _of_shebang(entry)
    ):
        return None
    state, evidence = entry.stat(), licensing.of(entry.path)
    version = "-".join(str(time) for time in (state.st_mtime_ns, *map(_time_of, evidence)))
    return Piece(_uri(entry.path), state.st_size, version, {"path": entry.path, "licensed_by": evidence})


def _folder_reason(entry: os.DirEntry) -> str:
    """Why a folder may be left out as a whole, or ''."""
    if entry.name in generated.MAYBE_BUILT and not os.path.exists(os.path.join(entry.path, "__init__.py")):
        return "built"
    return _FOLDERS.get(entry.name, "")


def _uri(path: str) -> str:
    return path.replace(os.sep, "/")


def _time_of(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _of_shebang(entry: os.DirEntry) -> tuple[str, ...]:
    """The language of a file whose name does not show it; only files without a dot in their name are opened."""
    if "." in entry.name:
        return ()
    with open(entry.path, "rb") as file:
        return (languages.of_shebang(file.read(128)),)


def _license_files(paths: Iterable[str]) -> tuple[str, ...]:
    """The files of a folder that state its licence.

    They are licence files, of which only the plainly named ones count if there are any; those of REUSE's folder
    LICENSES; and manifests that state a licence.
    """
    paths = list(paths)
    found = [path for path in paths if _is_license(os.path.basename(path)) and os.path.isfile(path)]
    texts = [path for path in found if _is_plain(path)] or found
    for path in paths:
        if os.path.basename(path) == "LICENSES" and os.path.isdir(path):
            texts += sorted(entry.path for entry in os.scandir(path) if entry.is_file())
    return (*texts, *(path for path in paths if _is_manifest(path) and _stated(path)))


def _is_manifest(path: str) -> bool:
    return os.path.basename(path) in license_manifests.NAMES


def _stated(manifest: str) -> str:
    return license_manifests.of_manifest(os.path.basename(manifest), _beginning(manifest))


def _is_license(name: str) -> bool:
    is_source = any(languages.kind(language) != "prose" for language in languages.of_name(name))
    return not is_source and _LICENSE_FILE.fullmatch(name) is not None


def _is_plain(path: str) -> bool:
    return _PLAIN_LICENSE_FILE.fullmatch(os.path.basename(path)) is not None


def _above(root: str) -> tuple[str, ...]:
    """The licence files for a folder inside a git working tree; files above the tree belong to another project."""
    folder = os.path.abspath(root)
    nearest: tuple[str, ...] = ()
    while not os.path.exists(os.path.join(folder, ".git")):
        if folder == (parent := os.path.dirname(folder)):
            return ()
        folder = parent
        nearest = nearest or _license_files(sorted(entry.path for entry in os.scandir(folder)))
    return nearest


def _installed(folder: str, entries: list[os.DirEntry]) -> dict[str, str]:
    """For a folder with installed packages: path of a file → METADATA of its package, by pip's RECORD."""
    owners: dict[str, str] = {}
    for entry in entries:
        if not entry.name.endswith(".dist-info"):
            continue
        try:
            with open(os.path.join(entry.path, "RECORD"), encoding="utf-8", newline="") as record:
                for row in csv.reader(record):
                    if row:
                        owners[os.path.join(folder, os.path.normpath(row[0]))] = os.path.join(entry.path, "METADATA")
        except (OSError, ValueError, csv.Error):
            continue
    return owners


# --- Documents --------------------------------------------------------------------------------------------------------


def libraries(uri: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    return encoding.DETECTORS


def read(piece: Piece, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The document of one file, unless it is left out."""
    if piece.size > options["max_file_kilobytes"] * 1000:
        skipped[f"more than {options['max_file_kilobytes']} kB: data"] += 1
        return
    with counted(skipped):
        text = _text(piece.options["path"], skipped)
        name = piece.uri.rpartition("/")[2]
        language = (
            languages.of_text(name, text) if languages.of_name(name) else languages.of_shebang(text[:128].encode())
        )
        license = licenses.of_notice(text[:HEAD]) or _license(tuple(piece.options["licensed_by"]))
        if reason := _reason(text, language, license, options):
            skipped[reason] += 1
        else:
            if not options["license_headers"] and languages.kind(language) == "code":
                text = comments.without_license_header(text)
            yield Document(text, piece.uri, license, language)


def _text(path: str, skipped: Counter[str]) -> str:
    with open_file(path) as file:
        raw = file.read()
    text = encoding.unix_lines(decode(raw, path, "detect", skipped))
    if "\0" in text:
        raise Unreadable("NUL bytes: not a text")
    return text


def _reason(text: str, language: str, license: str, options: Mapping[str, Any]) -> str:
    """Why a file is left out, or ''."""
    if is_blank(text):
        return BLANK
    if language not in _wanted(options):
        return f"language not asked for: {language}"
    if "generated" in options["leave_out"] and generated.is_generated(text):
        return "generated"
    if "minified" in options["leave_out"]:
        longest = options["longest_line"] if languages.kind(language) == "code" else len(text)
        minified = generated.is_minified(text, longest, options["mean_line"], options["alphanumeric"])
        if minified:
            return f"minified: {minified}"
    if not options["licenses"]:
        return ""
    if not license:
        return "" if options["unknown_license"] else "license unknown"
    if not license_names.is_allowed(license, tuple(options["licenses"])):
        return f"license not allowed: {license_names.of_expression(license) or 'no SPDX expression'}"
    return ""


def _wanted(options: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(options["languages"] or _ALL_BUT_DATA)


@functools.lru_cache(maxsize=4096)
def _license(files: tuple[str, ...]) -> str:
    """The licence that licence files, manifests or a package's METADATA state; '' if a text is not known."""
    if not files:
        return ""
    if files[0].endswith("METADATA"):
        return licenses.of_metadata(_beginning(files[0])) or _license(_license_files_of_package(files[0]))
    texts = [path for path in files if not _is_manifest(path)]
    found = sorted({licenses.of_text(_beginning(path)) for path in texts})
    if "" in found:
        return ""
    stated = {_stated(path) for path in files if _is_manifest(path)}
    whole = (" AND " if texts and _all_apply(texts) else " OR ").join(_bracketed(name, found) for name in found)
    named = {name for expression in (whole, *stated) for name in license_names.names_of(expression)}
    if len(stated) == 1 and named == set(license_names.names_of(min(stated))):  # 'MIT OR Apache-2.0' with both texts
        return min(stated)
    every = sorted({*stated, *([whole] if whole else [])})
    return " AND ".join(_bracketed(name, every) for name in every)


def _all_apply(texts: list[str]) -> bool:
    """LICENSE and COPYING, or the texts in LICENSES, all apply; LICENSE-MIT beside LICENSE-APACHE is a choice."""
    return any(_is_plain(path) or os.path.basename(os.path.dirname(path)) == "LICENSES" for path in texts)


def _bracketed(expression: str, among: list[str]) -> str:
    return f"({expression})" if " " in expression and len(among) > 1 else expression


def _license_files_of_package(metadata: str) -> tuple[str, ...]:
    folder = os.path.dirname(metadata)
    inside = (folder, os.path.join(folder, "licenses"))
    return _license_files(
        os.path.join(place, name) for place in inside if os.path.isdir(place) for name in sorted(os.listdir(place))
    )


def _beginning(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return encoding.unix_lines(encoding.decode(file.read(1 << 18)).text)
    except OSError:
        return ""
