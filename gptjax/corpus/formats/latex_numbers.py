r"""The numbers that LaTeX's references show: \label → what it names and the number, by LaTeX's usual counters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_LEVELS = ("part", "chapter", "section", "subsection", "subsubsection")
_ROWS = frozenset("eqnarray align gather alignat flalign IEEEeqnarray".split())  # each row has a number
_NUMBERED_MATHS = _ROWS | frozenset("equation multline dmath".split())
_FLOATS = {
    **dict.fromkeys(("figure", "wrapfigure", "sidewaysfigure"), "figure"),
    **dict.fromkeys(("table", "wraptable", "sidewaystable", "deluxetable", "longtable"), "table"),
    **dict.fromkeys(("listing", "lstlisting"), "listing"),
    "algorithm": "algorithm",
}
_UNCAPTIONED = frozenset(("deluxetable", "lstlisting"))  # their captions are options or other commands
_SUBFLOATS = frozenset("subfigure subtable subcaptionblock".split())
_MARK = re.compile(
    r"\\(part|chapter|section|subsection|subsubsection)(\*?)\s*(?:\[[^\[\]]{0,300}\]\s*)?(?:\{((?:[^{}]|\{[^{}]{0,200}\}){0,300})\})?"
    r"|\\(begin|end)\s*\{(\w+)(\*?)\}|\\label\s*\{([^{}\n]{1,200})\}|\\(appendix|item|nonumber|notag)\b|(\\\\)"
    r"|\\caption(?![A-Za-z*])(of\s*\{(\w+)\})?|\\(?:subfloat|subfigure|subtable|subcaptionbox)\s*[\[{](?P<sub>)"
    r"|\\(ContinuedFloat|(?:addto|set)counter\s*\{(\w+)\}\s*\{\s*(-?\d+)\s*\})"
)
_NEW_THEOREM = re.compile(
    r"\\(?:sp)?newtheorem(\*?)\s*\{(\w+)\*?\}\s*(?:\[(\w+)\])?\s*\{([^{}\n]{1,100})\}\s*(?:\[(\w+)\])?"
)
_CLASS = re.compile(r"\\documentclass\s*(?:\[([^\]]*)\])?\s*\{(\w+)")
_ALIAS = re.compile(r"\\newaliascnt\s*\{(\w+)\}\s*\{(\w+)\}")
_WITHIN = re.compile(r"\\(?:numberwithin|counterwithin)\*?\s*\{(\w+)\}\s*\{(\w+)\}")
_ITEM_LABEL = re.compile(r"\\begin\s*\{enumerate\}\s*\[([^\[\]\n]{1,200})\]")
_STARRED = re.compile(r"\\(arabic|alph|Alph|roman|Roman)\*")
_SHORT = re.compile(r"[1aAiI]")
_ROMAN = "i ii iii iv v vi vii viii ix x xi xii xiii xiv xv xvi xvii xviii xix xx".split()


@dataclass(frozen=True)
class Theorem:
    """An environment: what it prints, whose counter it uses, and the section that its numbers begin with."""

    title: str
    counter: str = ""
    within: str = ""


@dataclass(frozen=True)
class Label:
    r"""What a \label names: its kind ("section", "equation", or a theorem's name), number and heading."""

    kind: str = ""
    number: str = ""
    title: str = ""


def theorems(head: str, usual: Mapping[str, str]) -> dict[str, Theorem]:
    """Environment → theorem. Those that no \newtheorem declares share a counter, but not in Springer's.

    Args:
      usual: environments that classes declare, and their titles.
    """
    options, document_class = (_CLASS.findall(head) or [("", "")])[0]
    springer = document_class.startswith(("llncs", "svjour", "svmult", "svmono")) and "envcountsame" not in options
    section = "section" if document_class.startswith(("acmart", "siam")) or "envcountsect" in options else ""
    found = {name: Theorem(title, name if springer else "theorem", section) for name, title in usual.items()}
    if "proof" in found:
        found["proof"] = Theorem(found["proof"].title)  # proofs have no numbers
    aliases = dict(_ALIAS.findall(head))
    declared = {}
    for star, name, shared, title, within in _NEW_THEOREM.findall(head):
        counter = shared or name
        for _ in range(5):  # an alias of an alias
            counter = aliases.get(counter, counter)
        declared[name] = Theorem(title, "" if star else counter, within)
    return found | {
        name: Theorem(one.title, one.counter, one.within or getattr(declared.get(one.counter), "within", ""))
        for name, one in declared.items()
    }


def item_form(option: str) -> str:
    """How an enumeration numbers its items, as "({roman})"; '' if the option does not say.

    Args:
      option: in brackets after \begin{enumerate}: label=(\roman*) of enumitem, or (i) of enumerate.
    """
    if named := re.search(r"label\s*=\s*(\{[^{}]*\}|[^,]*)", option):
        return _STARRED.sub(
            r"{\1}", re.sub(r"\\(?:emph|text\w+|upshape|bfseries|itshape)\b|[{}]", "", named[1])
        ).strip()
    if "=" in option or not (letter := _SHORT.search(option)):
        return ""
    kind = {"1": "arabic", "a": "alph", "A": "Alph", "i": "roman", "I": "Roman"}[letter[0]]
    return f"{option[: letter.start()]}{{{kind}}}{option[letter.end() :]}".strip()


def item_number(form: str, count: int) -> str:
    letter, roman = chr(ord("a") + (count - 1) % 26), _ROMAN[(count - 1) % len(_ROMAN)]
    values = {"arabic": str(count), "alph": letter, "Alph": letter.upper(), "roman": roman, "Roman": roman.upper()}
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], ""), form)


ITEM_FORMS = ("{arabic}.", "({alph})", "{roman}.", "{Alph}.")  # by the depth of an enumeration


def labels(source: str, known: Mapping[str, Theorem], head: str = "") -> dict[str, Label]:
    """label → what it names, counted by sections, equations, floats, theorems and items."""
    return _Counters(source, known, head).found


class _Counters:
    """Counts as LaTeX does, from the beginning to the end of a source."""

    def __init__(self, source: str, known: Mapping[str, Theorem], head: str):
        self._known = known
        self._counts: dict[str, int] = dict.fromkeys((*_LEVELS, "equation"), 0)
        self._within = {one.counter: one.within for one in known.values()} | dict(_WITHIN.findall(head))
        self._deepest = "chapter" if re.search(r"\\chapter\s*[\[{]", source) else "section"
        if self._deepest == "chapter":  # as the classes of books have it
            self._within = {"equation": "chapter", "figure": "chapter", "table": "chapter"} | self._within
        self._appendix = False
        self._latest = Label()
        self._lists: list[tuple[str, int, Label]] = []  # enumerations: form, items so far, what a label named before
        self._rows = 0  # within maths of several numbered rows: the depth of environments
        self._floats: list[tuple[str, int]] = []  # open floats: counter, parts so far
        self._equations: tuple[str, int] | None = None  # within subequations: the number of all, equations so far
        self.found: dict[str, Label] = {}
        for mark in _MARK.finditer(source):
            self._read(source, mark)

    def _read(self, source: str, mark: re.Match[str]) -> None:
        heading, star, title, begin, environment, starred, label, word, newline, captionof, kind, sub, *change = (
            mark.groups()
        )
        if label:
            self.found[label] = self._latest  # the last of several counts
        elif sub is not None:
            self._part()
        elif change[0]:
            self._change(*change)
        elif mark[0].startswith("\\caption"):
            if captionof:
                self._count(kind, kind)
            elif self._floats and self._floats[-1][0]:
                self._count(self._floats[-1][0], self._floats[-1][0])
        elif heading and not star:
            self._heading(heading, title or "")
        elif begin == "begin":
            self._begin(source, mark.start(), environment, bool(starred))
        elif begin == "end":
            if environment == "enumerate" and self._lists:
                self._latest = self._lists.pop()[2]
            elif environment in _FLOATS and self._floats:
                self._floats.pop()
            elif environment in _SUBFLOATS and self._floats and not self._floats[-1][0]:
                self._floats.pop()
            elif environment == "subequations":
                self._equations = None
            self._rows = max(self._rows - 1, 0)
        elif newline and self._rows == 1:
            self._count("equation", "equation")
        elif word in ("nonumber", "notag") and self._rows:
            if self._equations:
                self._equations = (self._equations[0], self._equations[1] - 1)
            else:
                self._counts["equation"] -= 1
        elif word == "item" and self._lists:
            form, count, before = self._lists[-1]
            self._lists[-1] = (form, count + 1, before)
            self._latest = Label("item", item_number(form, count + 1).rstrip("."))
        elif word == "appendix":
            self._appendix = True
            self._counts.update(dict.fromkeys(_LEVELS, 0))

    def _heading(self, heading: str, title: str) -> None:
        self._counts[heading] += 1
        below = _LEVELS[_LEVELS.index(heading) + 1 :] if heading != "part" else ()
        reset = {heading, *below}
        self._counts.update(dict.fromkeys(below, 0))
        self._counts.update({counter: 0 for counter, within in self._within.items() if within in reset})
        kind = "appendix" if self._appendix and heading == self._deepest else heading
        self._latest = Label(kind, self._section(heading), title)

    def _begin(self, source: str, place: int, environment: str, starred: bool) -> None:
        if self._rows:
            self._rows += 1
        elif environment == "enumerate":
            option = _ITEM_LABEL.match(source, place)
            form = item_form(option[1]) if option else ""
            self._lists.append((form or ITEM_FORMS[min(len(self._lists), 3)], 0, self._latest))
        elif environment in _FLOATS:
            self._floats.append((_FLOATS[environment], 0))
            if environment in _UNCAPTIONED:
                self._count(_FLOATS[environment], _FLOATS[environment])
        elif environment in _SUBFLOATS:
            self._part()
            self._floats.append(("", 0))  # its caption has no number of its own
        elif starred:
            return
        elif environment == "subequations":
            self._count("equation", "equation")
            self._equations = (self._latest.number, 0)
        elif environment in _NUMBERED_MATHS:
            self._count("equation", "equation")
            self._rows = int(environment in _ROWS)
        elif environment in self._known and self._known[environment].counter:
            self._count(self._known[environment].counter, environment)

    def _change(self, command: str, counter: str | None, value: str | None) -> None:
        if counter and (counter in self._counts or counter in _FLOATS.values()):
            self._counts[counter] = int(value or 0) + self._counts.get(counter, 0) * command.startswith("addto")
        elif command == "ContinuedFloat" and self._floats:  # the caption that follows repeats the number
            floating = self._floats[-1][0]
            self._counts[floating] = max(self._counts.get(floating, 0) - 1, 0)

    def _part(self) -> None:
        """A part of a float, such as (b) of Figure 2; the float's own caption comes later, as a rule."""
        if self._floats and self._floats[-1][0]:
            counter, parts = self._floats[-1]
            self._floats[-1] = (counter, parts + 1)
            number = f"{self._before(counter)}{self._counts.get(counter, 0) + 1}{chr(ord('a') + parts % 26)}"
            self._latest = Label(counter, number)

    def _count(self, counter: str, kind: str) -> None:
        if counter == "equation" and self._equations:
            number, rows = self._equations
            self._equations = (number, rows + 1)
            self._latest = Label(kind, f"{number}{chr(ord('a') + rows % 26)}")
            return
        self._counts[counter] = self._counts.get(counter, 0) + 1
        self._latest = Label(kind, f"{self._before(counter)}{self._counts[counter]}")

    def _before(self, counter: str) -> str:
        """What the numbers of a counter begin with: "2." if it counts within the second section."""
        within = self._within.get(counter, "")
        return f"{self._section(within)}." if within in _LEVELS else ""

    def _section(self, heading: str) -> str:
        if heading == "part":
            return str(self._counts["part"])
        parts = [
            str(self._counts[level]) for level in _LEVELS[_LEVELS.index(self._deepest) : _LEVELS.index(heading) + 1]
        ]
        if self._appendix and parts:
            parts[0] = chr(ord("A") + min(max(int(parts[0]) - 1, 0), 25))
        return ".".join(parts)
