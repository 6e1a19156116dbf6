"""Joins a LaTeX project to one source: removes comments, resolves \\input, expands the authors' own macros.

Names are looked up only among the project's files, so nothing outside it can be read. Files that include themselves
and macros that expand without end are stopped.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

MAX_INPUT_DEPTH = 10
MAX_MACRO_DEPTH = 20
MAX_GROWTH = 4  # limits of a macro bomb: this many times the size before macros, plus EXPANSION characters
EXPANSION = 100_000
VERBATIM = ("verbatim", "verbatim*", "Verbatim", "lstlisting", "minted", "alltt", "filecontents", "filecontents*")


@dataclass
class Flat:
    """A document in one piece: its `source`, and the names of its `files`."""

    source: str
    files: list[str] = field(default_factory=list)


# --- One source -------------------------------------------------------------------------------------------------------

_INPUT = re.compile(
    r"\\(?:input|include|subfile|subfileinclude)\s*(?:\{([^{}\n]{1,200})\}|[ \t]+([\w./-]{1,200}))"
    r"|\\(?:sub)?(?:import|inputfrom|includefrom)\*?\s*\{([^{}\n]{0,200})\}\s*\{([^{}\n]{1,200})\}"
    r"|\\usepackage\s*(?:\[[^\]\n]*\])?\s*\{([^{}\n]{1,200})\}"
    r"|\\(bibliography)\s*\{[^{}\n]{1,2000}\}"
)
_DOCUMENT = re.compile(r"\\documentclass\b|\\documentstyle\b")


def is_document(source: str) -> bool:
    """Whether `source`, given without comments, is a whole document and not a part of one."""
    return _DOCUMENT.search(source) is not None and "\\begin{document}" in source


def flatten(name: str, names: Collection[str], read: Callable[[str], str], most: int) -> Flat:
    """The document of one file, with all files that it includes and the macros of the project's own packages.

    Args:
      name: the name of the file.
      names: the names of all the project's files, relative to its root.
      read: a function from a name to the file's source without comments.
      most: the number of characters after which nothing more is included.
    """
    flat = Flat("")
    left = most

    def included(name: str, chain: tuple[str, ...]) -> str:
        nonlocal left
        source = read(name)
        left -= len(source)
        if left < 0:
            return ""
        flat.files.append(name)

        def replaced(found: re.Match[str]) -> str:
            plain, bare, folder, file, packages, bibliography = found.groups()
            if bibliography:  # LaTeX includes what BibTeX made of it
                bare = f"{posixpath.splitext(posixpath.basename(chain[0]))[0]}.bbl"
            if packages is not None:
                styles = [f"{package.strip()}.sty" for package in packages.split(",")]
                own = [included(style, (*chain, style)) for style in styles if style in names and style not in chain]
                return "".join((found[0], *own))  # options of other packages decide what is printed
            name_wanted = posixpath.join(folder or "", (plain or bare or file).strip())
            target = _project_name(name_wanted, posixpath.dirname(name), names)
            if target is None or target in chain or len(chain) >= MAX_INPUT_DEPTH:
                return ""
            return "\n" + included(target, (*chain, target)) + "\n"

        return _INPUT.sub(replaced, source.partition("\\endinput")[0])

    flat.source = included(name, (name,))
    return flat


def _project_name(name_wanted: str, folder: str, names: Collection[str]) -> str | None:
    """The included file, by a name relative to the root or to the including file's folder; None if there is none."""
    for place in ("", folder):
        path = posixpath.normpath(posixpath.join(place, name_wanted))
        for candidate in (path, f"{path}.tex"):
            if candidate in names:
                return candidate
    return None


# A percent sign in \\verb|x%y| or an address begins no comment.
_NOT_COMMENT = re.compile(
    r"\\(?:verb|lstinline|mintinline\{\w+\})\*?([^A-Za-z\s*{\[]).*?\1|\\(?:url|href|path|nolinkurl)\s*\{[^{}\n]*\}"
)
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%.*")
_BLOCK_COMMENT = re.compile(r"\\begin\{comment\}.*?(?:\\end\{comment\}|\Z)|\\iffalse\b.*?(?:\\fi\b|\Z)", re.DOTALL)
_VERBATIM_BEGIN = re.compile(r"\\begin\{(" + "|".join(map(re.escape, VERBATIM)) + r")\}")


def _without_comment(line: str) -> str:
    place = 0
    if "%" in line:
        for found in _NOT_COMMENT.finditer(line):
            if _COMMENT.search(line, place, found.start()):
                break
            place = found.end()
    return line[:place] + _COMMENT.sub(r"\1", line[place:])


def without_comments(source: str) -> str:
    """`source` without what LaTeX does not read; verbatim code is unchanged."""
    kept: list[str] = []
    end = ""  # the open verbatim environment
    for line in source.split("\n"):
        if end:
            end = "" if end in line else end
            kept.append(line)
            continue
        bare = _without_comment(line)
        if bare.strip() or not line.strip():  # a line that is only a comment does not separate paragraphs
            kept.append(bare)
        if (begin := _VERBATIM_BEGIN.search(bare)) and (end := f"\\end{{{begin[1]}}}") in bare[begin.end() :]:
            end = ""
    return _BLOCK_COMMENT.sub("", "\n".join(kept))


# --- Macros -----------------------------------------------------------------------------------------------------------


def closing_braces(source: str) -> dict[int, int]:
    """Place of each { that is closed → place of its }. A brace after a backslash does not count."""
    pairs: dict[int, int] = {}
    open_at: list[int] = []
    for found in re.finditer(r"\\.|[{}]", source, re.DOTALL):
        if found[0] == "{":
            open_at.append(found.start())
        elif found[0] == "}" and open_at:
            pairs[open_at.pop()] = found.start()
    return pairs


@dataclass(frozen=True)
class Macro:
    """default: the default of the first argument, if it is in brackets."""

    arguments: int
    body: str
    default: str | None = None


_NEW_COMMAND = re.compile(
    r"\\(?:re|provide)?(?:new)?command\*?\s*\{?\s*(\\[A-Za-z]+)\s*\}?\s*(?:\[(\d)\])?\s*(?:\[([^\[\]\n]{0,200})\])?\s*(?=\{)"
)
_DEF = re.compile(r"(?:\\(?:long|global)\s*)*\\[exg]?def\s*(\\[A-Za-z]+)((?:#\d)*)\s*(?=\{)")
_OPERATOR = re.compile(r"\\DeclareMathOperator(\*?)\s*\{?\s*(\\[A-Za-z]+)\s*\}?\s*(?=\{)")
# Bodies that compute, and names that mean more than their text.
_PROGRAM = re.compile(
    r"\\(?:if|else\b|fi\b|expandafter|csname|begingroup|endgroup|let\b|def\b|edef|xdef|gdef|newcommand|futurelet|makeat|@|"
    r"catcode|setcounter|stepcounter|addtocounter|write|read\b|loop|relax|the\b)|@"
)
_KEPT_NAMES = frozenset(
    "\\begin \\end \\item \\section \\subsection \\subsubsection \\paragraph \\chapter \\part \\title \\author \\label "
    "\\ref \\cite \\caption \\footnote \\document \\maketitle \\abstract".split()
)


def with_macros_expanded(source: str) -> str:
    """`source` with the macros that it defines replaced by their bodies, and the definitions gone.

    Macros that compute, or take arguments in an unusual form, are not expanded.
    """
    bare, macros = _definitions(source)
    if not macros:
        return bare
    return _Expansion(macros, MAX_GROWTH * len(source) + EXPANSION).expand(bare, 0)


def _definitions(source: str) -> tuple[str, dict[str, Macro]]:
    """(source without the definitions, name → macro); the last of several definitions of a name counts."""
    braces = closing_braces(source)
    macros: dict[str, Macro] = {}
    kept: list[str] = []
    place = 0
    for found in re.finditer(
        r"\\(?:(?:re|provide)?(?:new)?command\b|(?:long|global|[exg]?def)\b|DeclareMathOperator\b)", source
    ):
        if found.start() < place:
            continue
        made = _definition(source, found.start())
        if made is None:
            continue
        name, arguments, default, prefix, body_at = made
        if body_at not in braces:
            continue
        body = source[body_at + 1 : braces[body_at]]
        kept.append(source[place : found.start()])
        place = braces[body_at] + 1
        if name not in _KEPT_NAMES and not _PROGRAM.search(body):
            macros[name] = Macro(arguments, f"{prefix}{{{body}}}" if prefix else body, default)
        else:
            macros.pop(name, None)
    kept.append(source[place:])
    return "".join(kept), macros


def _definition(source: str, place: int) -> tuple[str, int, str | None, str, int] | None:
    """(name, number of arguments, default of the first, command that takes the body, place of the body's brace)."""
    if found := _NEW_COMMAND.match(source, place):
        return found[1], int(found[2] or 0), found[3], "", found.end()
    if found := _DEF.match(source, place):
        return found[1], len(found[2]) // 2, None, "", found.end()
    if found := _OPERATOR.match(source, place):
        return found[2], 0, None, f"\\operatorname{found[1]}", found.end()
    return None


class _Substitution:
    """Replaces #1 by the first argument, and so on; an argument that is not given is empty."""

    def __init__(self, arguments: list[str]):
        self._arguments = arguments

    def __call__(self, found: re.Match[str]) -> str:
        return "".join(self._arguments[int(found[1]) - 1 : int(found[1])])


class _Expansion:
    """Expands macros until `most` characters have been made."""

    def __init__(self, macros: dict[str, Macro], most: int):
        self._macros, self._left = macros, most

    def expand(self, source: str, depth: int) -> str:
        braces: dict[int, int] | None = None
        made: list[str] = []
        place = 0
        for found in re.finditer(r"\\[A-Za-z]+|\\.", source, re.DOTALL):
            macro = self._macros.get(found[0])
            if macro is None or found.start() < place:
                continue
            if braces is None:
                braces = closing_braces(source)
            arguments, end = _arguments(macro, source, found.end(), braces)
            if arguments is None:
                continue
            body = re.sub(r"#([1-9])", _Substitution(arguments), macro.body)
            self._left -= len(body)
            if self._left < 0:
                break
            if depth < MAX_MACRO_DEPTH and "\\" in body:
                body = self.expand(body, depth + 1)
            if re.search(r"\\[A-Za-z]+\Z", body) and source[end : end + 1].isalpha():
                body += " "
            made += (source[place : found.start()], body)
            place = end
        return "".join((*made, source[place:]))


def _arguments(macro: Macro, source: str, place: int, braces: dict[int, int]) -> tuple[list[str] | None, int]:
    """(the arguments from `place` on, the place after them); None if there are too few."""
    arguments: list[str] = []
    if macro.arguments == 0:
        # {} only ends the name
        return arguments, place + 2 if source.startswith("{}", place) else place
    if macro.default is not None:
        given = re.compile(r"\s*\[([^\[\]\n]{0,500})\]").match(source, place)
        arguments.append(given[1] if given else macro.default)
        place = given.end() if given else place
    while len(arguments) < macro.arguments:
        one = re.compile(r"\s*(?:(\\[A-Za-z]+|\\.|[^\s{}\\])|(?=\{))").match(source, place)
        if not one:
            return None, place
        if one[1]:
            arguments.append(one[1])
            place = one.end()
        elif one.end() in braces:
            arguments.append(source[one.end() + 1 : braces[one.end()]])
            place = braces[one.end()] + 1
        else:
            return None, place
    return arguments, place
