"""Takes the names of a machine out of a document: absolute paths, home folders, hosts, addresses and users.

An absolute path is shortened to its last name: /home/ada/runs/mine becomes mine. Text that a model wrote may hold paths
of its training data, which say nothing about this machine; there, only the known folders and names are replaced.
"""

from __future__ import annotations

import dataclasses
import getpass
import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from gptjax.reporting.document import Figure, Sample

# A path of at least two names. The character before it is not part of a word, a URL or a relative path.
_ABSOLUTE = re.compile(r"(?<![\w./:<])(?:/[\w.@+~-]+){2,}/?")
_HOME = re.compile(r"~\w*(?:/[\w.@+~-]+)+/?")
_WINDOWS = re.compile(r"\b[A-Za-z]:\\(?:[^\\\s]+\\)*[^\\\s]*")
_INTERNAL = re.compile(r"\b(?:[\w-]+\.)+(?:internal|local|localdomain|lan|cluster|corp|intranet|home|svc)\b", re.I)
_ADDRESS = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?![\w.])")
_FILE_URL = re.compile(r"\bfile://\S+")
HOST, USER = "host", "user"
# Names that also are ordinary words: of accounts that every machine has.
COMMON = {"root", "user", "admin", "ubuntu", "debian", "ec2-user", "jovyan", "nobody", "app", "runner", "localhost"}
LEAST = 3  # characters of a name that is replaced

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Names:
    """What must not appear: folder → what to write instead, and words → what to write instead."""

    folders: dict[str, str]
    words: dict[str, str]

    def removed(self, text: str, verbatim: bool = False) -> str:
        """The text without the names. verbatim: it is a text of a model or of data, whose paths stay."""
        for folder, name in self.folders.items():
            text = re.sub(rf"{re.escape(folder)}(?=$|[/\s\"'`,;:)=\]])", _literal(name), text)
        text = _FILE_URL.sub(lambda found: _last(found[0]), text)
        if not verbatim:
            for pattern in (_HOME, _ABSOLUTE, _WINDOWS):
                text = pattern.sub(lambda found: _last(found[0]), text)
            text = _ADDRESS.sub(HOST, _INTERNAL.sub(HOST, text))
        for word, instead in self.words.items():
            text = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", _literal(instead), text, flags=re.IGNORECASE)
        return text


def names_of_machine(folders: Iterable[Path] = (), words: Iterable[str] = ()) -> Names:
    """The names of this machine and of its user. folders: further ones; words: further ones, such as other hosts."""
    known: dict[str, str] = {}
    for folder in folders:
        known |= {str(folder.absolute()): folder.absolute().name, str(folder.resolve()): folder.absolute().name}
    home = os.path.expanduser("~")
    known |= {os.getcwd(): ".", home: "~"} if len(home) > 1 else {os.getcwd(): "."}
    found = {
        **{name: HOST for name in (socket.gethostname(), socket.gethostname().partition(".")[0])},
        **{name: USER for name in _users()},
    }
    found = {word: instead for word, instead in found.items() if len(word) >= LEAST and word.lower() not in COMMON}
    found |= {word: "…" for word in words if word}
    longest_first = dict(sorted(known.items(), key=lambda item: -len(item[0])))
    return Names({folder: name for folder, name in longest_first.items() if len(folder) > 1}, found)


def without_names(part: T, names: Names) -> T:
    """A document, or any part of it, with every string replaced. Of a figure, the words of its drawing are replaced,
    too."""
    return _replaced(part, names, verbatim=False)


def _replaced(part: Any, names: Names, verbatim: bool) -> Any:
    if isinstance(part, str):
        return names.removed(part, verbatim)
    if isinstance(part, tuple):
        return tuple(_replaced(each, names, verbatim) for each in part)
    if isinstance(part, Figure):  # a drawing's numbers look like addresses; its words are checked when they are drawn
        svg = re.sub(r">([^<>]+)<", lambda found: f">{names.removed(found[1])}<", part.svg)
        return Figure(svg, names.removed(part.alt), names.removed(part.caption))
    if isinstance(part, Sample):
        return Sample(names.removed(part.prompt, True), names.removed(part.text, True), names.removed(part.how))
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        return type(part)(**{name: _replaced(value, names, verbatim) for name, value in fields.items()})
    return part


def _literal(text: str) -> str:
    """The text as a replacement of `re.sub`, which would read backslashes."""
    return text.replace("\\", r"\\")


def _users() -> list[str]:
    try:
        return [getpass.getuser()]
    except (OSError, KeyError):
        return []


def _last(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or "…"
