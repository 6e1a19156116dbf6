"""Converts LaTeX to text in one pass: prose as prose, maths as its source, headings and items on their own lines.

Leaves out the preamble, drawings, cells of tables, bibliography, labels, citations and layout. Captions stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from gptjax.corpus.formats import latex_algorithm2e, latex_citations, latex_references, latex_units
from gptjax.corpus.formats.latex_commands import (
    AFTER_STEP,
    ALGORITHMS,
    BEGINS,
    DROPPED,
    DROPPED_ENVIRONMENTS,
    LENGTHS,
    MATHS,
    SECOND_STAYS,
    STEPS,
    THEOREMS,
    WRAPPED,
)
from gptjax.corpus.formats.latex_numbers import ITEM_FORMS, Theorem, item_form, item_number, labels, theorems
from gptjax.corpus.formats.latex_passages import listing, plain_maths
from gptjax.corpus.formats.latex_places import OPTION, Places
from gptjax.corpus.formats.latex_project import VERBATIM, closing_braces
from gptjax.corpus.formats.latex_signs import (
    ACCENTED,
    ACCENTS,
    BEFORE_WORDS,
    PUNCTUATION,
    SIGNS,
    accent,
    lowered,
    raised,
)
from gptjax.corpus.formats.latex_tidy import CITED, INDENT, KEPT_PASSAGE, MARKS, PAGE, kept_mark, tidy

_TOKEN = re.compile(
    r"\\(?:begin|end)\s*\{([^{}\n]{1,60})\}"  # 1: environment
    r"|\\([A-Za-z]+)\*?"  # 2: command
    r"|\\([^A-Za-z])"  # 3: sign
    r"|(\$\$|\$)"  # 4
    r"|([{}~&])"  # 5
    r"|(-{2,3}|``|''|\"|`)",  # 6: punctuation
    re.DOTALL,
)
_LISTS = ("itemize", "enumerate", "description", "compactitem", "compactenum", "inparaenum")
_SCRIPTS = {"textsuperscript": raised, "up": raised, "textsubscript": lowered}
_PLAIN_GROUP = re.compile(r"\{([^{}\\$~]{1,60})\}")
# An environment that the author made of one of maths.
_MADE_OF_MATHS = re.compile(
    r"\\(?:re)?newenvironment\*?\s*\{(\w+\*?)\}\s*(?:\[[^\[\]\n]*\]\s*){0,2}\{[^{}]{0,200}\\(?:begin\{|csname )(?:"
    + "|".join(map(re.escape, sorted(MATHS)))
    + r")(?:\}|\\endcsname)"
)
_ROW_SPACE = re.compile(r"\*?[ \t]*\[\s*[-+]?[\d.]*\s*(?:pt|mm|cm|in|em|ex|bp|\\\w+)\s*\]|\*?\[[^\[\]]{0,500}\]|\*")
_DEEPEST = 20  # levels of indentation that are shown: more, without an end, would be spaces without an end
_PIECES = 40  # of what was read last, in which something is looked for
_END_OF_LINE = re.compile(r"[ \t]*\n(?!\s*\n)")
_GOES_ON = re.compile(r"[\s~]*[a-z(]")
_NO_SPACE_BEFORE = frozenset((*".,;:!?)]}'~-/ \n\t\\", ""))
_LENGTH = re.compile(r"\s*=?\s*-?[\d.]*\s*(?:pt|cm|mm|in|em|ex|fill?)?")
_VERB = re.compile(
    r"\\(?:verb|lstinline|mintinline)\*?(?:\[[^\[\]\n]*\])?(?:(?<=mintinline)\{[^{}\n]*\}|(?<=\])\{[^{}\n]*\}(?=[{|!+]))?"
    r"(?:([^A-Za-z\s*{])(.*?)\1|\{([^{}\n]*(?:\{[^{}\n]*\}[^{}\n]*)*)\})"
)
_CITATION = re.compile(r"\s*(?:\[[^\[\]]*\]\s*){0,2}\{([^{}]{1,2000})\}")


def to_text(source: str) -> str:
    """The text of a document, or of a part of one.

    Args:
      source: without comments and the authors' macros (latex_project.py).
    """
    source = MARKS.sub("", source)
    head, begin, body = source.partition("\\begin{document}")
    if not begin:
        head, body = "", source
    body = latex_algorithm2e.with_steps(body.partition("\\end{document}")[0], head)
    known = theorems(head, {name: name.capitalize() for name in THEOREMS})
    document = _Document(
        known,
        latex_references.References(labels(body, known, head), known, head),
        latex_citations.citations(body, head),
        MATHS | frozenset(_MADE_OF_MATHS.findall(head)),
        "{aastex" in head,
    )
    title = _of_command("title", head)
    text = _Reader(body, document).tidy_text()
    heading = _Reader(title).tidy_text().replace("\n", " ")
    return f"{heading}\n\n{text}".strip() if heading and not text.startswith(heading) else text


def _of_command(name: str, source: str) -> str:
    """The content of the braces after a command."""
    if found := re.search(rf"\\{name}\b\s*(?:\[[^\]]{{0,300}}\])?\s*(?=\{{)", source):
        rest = source[found.end() :]
        return rest[1 : closing_braces(rest).get(0, 1)]
    return ""


@dataclass(frozen=True)
class _Document:
    """What must be known of the whole before a part of it is read.

    maths: environments that contain maths.
    new_is_second: whether \\replaced has the old text before the new.
    """

    theorems: Mapping[str, Theorem] = field(default_factory=dict)
    references: latex_references.References = field(default_factory=lambda: latex_references.References({}, {}))
    citations: Mapping[str, latex_citations.Entry] = field(default_factory=dict)
    maths: frozenset[str] = MATHS
    new_is_second: bool = False


_ALONE = _Document()


class _Reader:
    """Reads one source from left to right; `Places` knows where what it skips ends."""

    def __init__(self, source: str, document: _Document = _ALONE):
        self._source, self._document = source, document
        self._kept: list[str] = []  # passages that are not tidied
        self._indent = -1  # within an algorithm: the level of indentation
        self._stepped = False  # within an algorithm: a line of it was read
        self._places = Places(source)
        self._braces = self._places.closing
        self._out: list[str] = []
        self._closers: list[str] = []  # the end of each open group
        self._next_closer = ""
        self._typewriter: list[int] = []  # the number of open groups where each typewriter font begins
        self._lists: list[tuple[str, int]] = []  # open lists: the form of the items' numbers, the number of items

    def tidy_text(self) -> str:
        return KEPT_PASSAGE.sub(lambda found: self._kept[int(found[1])], tidy(self._text())).strip()

    def _keep(self, passage: str) -> str:
        """A mark for a passage that is not to be tidied: code, maths."""
        self._kept.append(passage)
        return kept_mark(len(self._kept) - 1)

    def _text(self) -> str:
        source, place = self._source, 0
        while found := _TOKEN.search(source, place):
            self._out.append(source[place : found.start()])
            environment, command, sign, maths, brace, punctuation = found.groups()
            place = found.end()
            if environment:
                place = self._environment(environment.strip(), found, place)
            elif command:
                place = self._command(command, found.start(), place)
            elif sign:
                place = self._sign(sign, place)
            elif maths:
                place = self._maths(maths, found.start(), place)
            elif brace:
                self._brace(brace)
            else:
                self._out.append(punctuation if self._typewriter else PUNCTUATION[punctuation])
        self._out.append(source[place:])
        return "".join(self._out)

    def _environment(self, name: str, found: re.Match[str], place: int) -> int:
        if found[0].startswith("\\end"):
            self._out.append("\n\n" if name not in ("document", "center") else "\n")
            self._indent = -1 if name in ALGORITHMS else self._indent
            if name in _LISTS and self._lists:
                self._lists.pop()
            return place
        if name in VERBATIM or name in self._document.maths or name in DROPPED_ENVIRONMENTS:
            end = self._places.end_of(f"\\end{{{name}}}", place)
            if end:
                content = self._source[place : end[0]]
                if name in VERBATIM:
                    self._out.append(f"\n\n{self._keep(listing(name, content))}\n\n")
                elif name in self._document.maths:
                    maths = plain_maths(content)
                    kept = self._keep(re.sub(r"[ \t]*\n\s*", "\n", f"{found[0]}{maths}\\end{{{name}}}"))
                    self._out.append(f"\n{kept}\n")
                return end[1]
        option = OPTION.match(self._source, place)
        if theorem := self._document.theorems.get(name.rstrip("*")):
            note = _Reader(option[0].strip()[1:-1], self._document).tidy_text() if option else ""
            proof = theorem.title == "Proof" and note  # its note stands in place of its name
            self._out.append(f"\n\n{note if proof else f'{theorem.title} ({note})' if note else theorem.title}. ")
        elif name in _LISTS:
            form = ITEM_FORMS[min(sum(bool(form) for form, _ in self._lists), 3)] if name == "enumerate" else ""
            self._lists.append((item_form(option[0].strip()[1:-1]) or form if option and form else form, 0))
            self._out.append("\n\n")
        elif name in ALGORITHMS:
            self._indent, self._stepped = 0, False
            self._out.append("\n\n")
        elif name == "abstract":
            self._out.append("\n\nAbstract\n\n")
        else:
            self._out.append("\n\n")
        place = option.end() if option else place
        if name in ("minipage", "wrapfigure", "multicols", "adjustbox", "subfigure", "thm", "list"):
            place = self._places.after_group(place)
        return place

    def _command(self, name: str, start: int, place: int) -> int:
        source = self._source
        if name in SIGNS:
            self._out.append(self._keep("~") if SIGNS[name] == "~" else SIGNS[name])
            # \o{} and "\LaTeX\ is": here braces or a space only end the name
            return place + 1 if (len(name) <= 2 or name in BEFORE_WORDS) and source[place : place + 1] == " " else place
        accented = ACCENTED.match(source, place) if name in ACCENTS else None
        if accented and (len(name) > 1 or not source[place].isalpha()):
            self._out.append(accent(ACCENTS[name], accented))
            return accented.end()
        if name in ("verb", "lstinline", "mintinline") and (verb := _VERB.match(source, start)):
            self._out.append(self._keep(verb[2] if verb[1] else verb[3]))
            return verb.end()
        if name == "xspace":
            self._out.append("" if source[place : place + 1] in _NO_SPACE_BEFORE else " ")
            return place
        if self._indent >= 0 and name.lower() in STEPS:
            return self._step(name.lower(), place)
        if name in latex_citations.NARRATIVE or name in latex_citations.PARENTHETICAL:
            return self._cite(name, place)
        if name in latex_units.COMMANDS and (after := self._quantity(name, place)):
            return after
        if name in ("item", "bibitem"):
            return self._item(place)
        if name in latex_references.COMMANDS and place in self._braces:
            end = self._braces[place]
            self._out.append(self._document.references.shown(name, source[place + 1 : end]) or CITED)
            return end + 1
        if name == "pageref" and place in self._braces:
            self._out.append(PAGE)
            return self._braces[place] + 1
        if name in ("url", "nolinkurl", "path") and place in self._braces:
            end = self._braces[place]
            self._out.append(self._keep(re.sub(r"\\([%#&_~{}])", r"\1", source[place + 1 : end])))
            return end + 1
        if name in _SCRIPTS and (script := _PLAIN_GROUP.match(source, place)):
            self._out.append(_SCRIPTS[name](script[1]))
            return script.end()
        if name in ("texttt", "tt", "ttfamily"):
            self._typewriter.append(len(self._closers) + (name == "texttt"))
        if name == "ensuremath" and place in self._braces:
            end = self._braces[place]
            self._out.append(self._keep(f"${plain_maths(source[place + 1 : end])}$"))
            return end + 1
        if name in DROPPED:
            place = self._places.after_arguments(place)
            alone = self._before(1)[-1:] == "\n" and (line := _END_OF_LINE.match(source, place))
            return line.end() if alone and line else place  # an empty line would end the paragraph
        if name in LENGTHS:
            return found.end() if (found := _LENGTH.match(source, place)) else place
        if name in ("left", "right", "frac", "sum", "mathbb", "mathcal", "alpha", "beta"):
            self._out.append(source[start:place])  # a maths command outside of maths: kept whole rather than in part
            return place
        if name in SECOND_STAYS:
            return self._places.after_group(self._places.after_option(place))
        if name == "replaced":
            return self._replaced(self._places.after_option(place))
        place = self._places.after_option(place) if source[place : place + 1] == "[" else place
        self._out.append(BEGINS.get(name, ""))
        if name in WRAPPED and place in self._braces:
            self._next_closer = WRAPPED[name]
        elif source[place : place + 1] == " " and self._out[-1:] == [""] and self._ends_with_space():
            place += 1
        return place

    def _replaced(self, place: int) -> int:
        r"""\replaced{new}{old} of the package changes, where both are not written the other way, as in AASTeX."""
        if self._document.new_is_second:
            return self._places.after_group(place)
        if (
            place in self._braces
            and (after := self._places.after_group(self._braces[place] + 1)) > self._braces[place] + 1
        ):
            self._out.append(_Reader(self._source[place + 1 : self._braces[place]], self._document).tidy_text())
            return after
        return place

    def _cite(self, name: str, place: int) -> int:
        """A citation that its sentence needs is shown; others are dropped with the brackets around them."""
        found = _CITATION.match(self._source, place)
        if not found:
            return self._places.after_arguments(place)
        before = self._before(60).replace("~", " ")
        begins = not before.strip() or before.endswith("\n\n") or before.rstrip()[-1] in ".!?"
        needed = name in latex_citations.NARRATIVE or latex_citations.NEEDED.search(before)
        shown = ""
        if needed or (begins and _GOES_ON.match(self._source, found.end())):
            shown = latex_citations.shown(name, found[1], self._document.citations)
        self._out.append(shown or CITED)
        return found.end()

    def _before(self, most: int) -> str:
        """The last characters of what was read, at most so many."""
        return "".join(self._out[-_PIECES:])[-most:]

    def _item(self, place: int) -> int:
        """The beginning of an item: its own label, or its number, or a dash."""
        option = OPTION.match(self._source, place)
        form, count = self._lists[-1] if self._lists else ("", 0)
        shown = "-"
        if option:
            label = _Reader(option[0].strip()[1:-1], self._document).tidy_text()
            shown = label if form else f"- {label}"
        elif form:
            self._lists[-1] = (form, count + 1)
            shown = item_number(form, count + 1)
        self._out.append(f"\n{shown} ")
        place = option.end() if option else place
        return place + len(self._source[place : place + 40]) - len(self._source[place : place + 40].lstrip())

    def _quantity(self, name: str, place: int) -> int:
        """A number with its unit; 0 if its arguments are not there."""
        number, shown = latex_units.COMMANDS[name]
        place = self._places.after_option(place)
        arguments: list[str] = []
        while len(arguments) < number and place in self._braces:
            arguments.append(self._source[place + 1 : self._braces[place]])
            place = self._braces[place] + 1
        if len(arguments) < number:
            return 0
        self._out.append(self._keep(shown(arguments)))
        return place

    def _step(self, name: str, place: int) -> int:
        """A line of an algorithm."""
        text, change = STEPS[name]
        self._indent = max(self._indent + min(change, 0), 0)
        level = self._indent - (name in ("else", "elsif", "elseif") and self._indent > 0)
        while self._out and not self._out[-1].strip(f" \n{INDENT}"):
            self._out.pop()
        if self._out and self._stepped:
            self._out[-1] = self._out[-1].rstrip(" \n")
        line = f"\n{INDENT * min(level, _DEEPEST)}"
        if self._out and not (self._out[-1] == line and name in ("return", "print")):  # \State \Return is one line
            self._out.append(line if self._stepped else f"\n{line}")
        self._stepped = True
        self._out.append(f"{text} " if text else "")
        self._indent += max(change, 0)
        place = self._places.after_option(place)
        at = place + (self._source[place : place + 1] == " ")
        if name in AFTER_STEP and at in self._braces:
            self._next_closer = AFTER_STEP[name]
        return at

    def _sign(self, sign: str, place: int) -> int:
        if sign in "([":
            closing = {"(": "\\)", "[": "\\]"}[sign]
            if end := self._places.end_of(closing, place):
                content = plain_maths(self._source[place : end[0]]).strip()
                kept = self._keep(f"${content}$" if sign == "(" else f"$$ {content} $$")
                self._out.append(kept if sign == "(" else f"\n{kept}\n")
                return end[1]
            return place
        if sign in ACCENTS and (accented := ACCENTED.match(self._source, place)):
            self._out.append(accent(ACCENTS[sign], accented))
            return accented.end()
        self._out.append(SIGNS.get(sign, ""))
        return found.end() if sign == "\\" and (found := _ROW_SPACE.match(self._source, place)) else place

    def _maths(self, sign: str, start: int, place: int) -> int:
        if sign == "$$":
            if end := self._places.end_of("$$", place):
                kept = self._keep(f"$$ {plain_maths(self._source[place : end[0]]).strip()} $$")
                self._out.append(f"\n{kept}\n")
                return end[1]
            return place
        if after := self._places.after_inline_maths(place):
            self._out.append(self._keep(re.sub(r"\s+", " ", plain_maths(self._source[start:after]))))
            return after
        self._out.append("$")  # never closed in its paragraph: a dollar
        return place

    def _brace(self, brace: str) -> None:
        if brace == "{":
            self._closers.append(self._next_closer)
            self._next_closer = ""
        elif brace == "}":
            self._out.append(self._closers.pop() if self._closers else "")
            while self._typewriter and self._typewriter[-1] > len(self._closers):
                self._typewriter.pop()
        else:
            self._out.append(" ")

    def _ends_with_space(self) -> bool:
        return next((text[-1].isspace() for text in reversed(self._out[-_PIECES:]) if text), True)
