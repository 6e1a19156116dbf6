"""Converts LaTeX to text in one pass: prose as prose, maths as its source, headings and items on their own lines.

Leaves out the preamble, drawings, cells of tables, bibliography, labels, citations and layout. Captions stay.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from gptjax.corpus.formats import latex_citations, latex_units
from gptjax.corpus.formats.latex_numbers import numbers
from gptjax.corpus.formats.latex_project import VERBATIM, closing_braces

_NONE: Mapping[str, str] = {}

_MATHS = frozenset(
    name + star
    for name in "math displaymath equation eqnarray align alignat gather multline flalign dmath subequations "
    "IEEEeqnarray mathpar prooftree".split()
    for star in ("", "*")
)
_DROPPED_ENVIRONMENTS = frozenset(
    "tikzpicture pspicture picture pgfpicture asy tikzcd thebibliography tabular tabular* tabularx tabulary "
    "longtable array deluxetable deluxetable* filecontents filecontents* comment CCSXML keywords IEEEkeywords "
    "thenomenclature xy diagram forest prooftree*".split()
)
_THEOREMS = (
    "theorem lemma proposition corollary definition remark example proof conjecture claim exercise question notation "
    "assumption hypothesis fact observation problem solution axiom algorithm".split()
)
_HEADINGS = frozenset("part chapter section subsection subsubsection paragraph subparagraph addchap addsec".split())
# What ends the group after a command, and what begins the group.
_WRAPPED = {
    **dict.fromkeys(_HEADINGS, "\n\n"),
    "caption": "\n\n",
    "captionof": "\n\n",
    "footnote": ")",
    "title": "\n\n",
    "abstract": "\n\n",
    "enquote": "”",
}
_BEGINS = {
    **dict.fromkeys([*_HEADINGS, "caption", "title"], "\n\n"),
    "abstract": "\n\nAbstract\n\n",
    "footnote": " (",
    "enquote": "“",
}
# Commands that are removed with all brackets and braces after them.
_DROPPED = frozenset(
    "label nocite pageref nameref includegraphics includepdf includesvg bibliography "
    "bibliographystyle printbibliography addbibresource vspace hspace setlength addtolength setcounter "
    "addtocounter stepcounter refstepcounter usepackage documentclass documentstyle graphicspath pagestyle "
    "thispagestyle pagenumbering thanks author address affiliation email date institute institution affil "
    "orcid keywords pacs subjclass markboth markright fancyhead fancyfoot fancyhf lhead rhead chead lfoot "
    "rfoot cfoot hypersetup geometry newtheorem theoremstyle newcommand renewcommand providecommand "
    "newenvironment renewenvironment newcounter newlength newcolumntype definecolor color pagecolor index "
    "glossary rule phantom hphantom vphantom hyphenation linespread fontsize selectlanguage tikzset "
    "pgfplotsset lstset captionsetup titleformat titlespacing input include bibitem footnotemark marginpar "
    "todo setkeys PassOptionsToPackage RequirePackage DeclareMathOperator DeclareRobustCommand addcontentsline "
    "tableofcontents listoffigures listoftables newpage clearpage acmConference acmYear acmDOI ccsdesc "
    "received revised accepted published altaffiltext altaffilmark shorttitle shortauthors slugcomment journal "
    "inst icmlauthor icmlaffiliation icmltitlerunning titlerunning authorrunning tocauthor toctitle "
    "runninghead resizebox scalebox rotatebox fontseries fontshape fontfamily usefont newgeometry "
    "restoregeometry multicolumn multirow cline cmidrule arrayrulecolor rowcolor cellcolor noalign "
    "footnotetext".split()
)
# Commands whose first group is removed and whose second stays.
_SECOND_STAYS = frozenset(
    "href textcolor colorbox fcolorbox parbox raisebox makebox adjustbox texorpdfstring foreignlanguage".split()
)
_REFERENCES = {"ref": "{}", "eqref": "({})", "autoref": "{}", "cref": "{}", "Cref": "{}", "vref": "{}", "subref": "{}"}
_SIGNS = {
    **{sign: sign for sign in "%$&#_{}"},
    **dict.fromkeys([" ", ",", ";", ":", "quad", "qquad", "enspace", "thinspace", "\n", "hfill"], " "),
    **dict.fromkeys(["!", "/", "-", "@", ">", "<", "protect", "relax", "noindent", "indent"], ""),
    **dict.fromkeys(["\\", "newline", "linebreak", "cr", "tabularnewline"], "\n"),
    **dict.fromkeys("par bigskip medskip smallskip maketitle newpage clearpage hrule hline".split(), "\n\n"),
    **{"ldots": "…", "dots": "…", "textellipsis": "…", "textbullet": "•", "dag": "†", "ddag": "‡"},
    **{"LaTeX": "LaTeX", "TeX": "TeX", "BibTeX": "BibTeX", "LaTeXe": "LaTeX2e", "ie": "i.e.", "eg": "e.g."},
    **{"ss": "ß", "o": "ø", "O": "Ø", "l": "ł", "L": "Ł", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "aa": "å"},
    **{"AA": "Å", "i": "ı", "j": "ȷ", "S": "§", "P": "¶", "copyright": "©", "pounds": "£", "euro": "€"},
    **{"textregistered": "®", "textunderscore": "_"},
    **{"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textbar": "|", "textless": "<"},
    **{"textgreater": ">", "textendash": "–", "textemdash": "—", "textdegree": "°", "degree": "°", "etal": "et al."},
}  # fmt: skip
_ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304", ".": "\u0307",
            "c": "\u0327", "v": "\u030c", "u": "\u0306", "H": "\u030b", "k": "\u0328", "r": "\u030a", "d": "\u0323",
            "b": "\u0331"}  # fmt: skip

_TOKEN = re.compile(
    r"\\(?:begin|end)\s*\{([^{}\n]{1,60})\}"  # 1: environment
    r"|\\([A-Za-z]+)\*?"  # 2: command
    r"|\\([^A-Za-z])"  # 3: sign
    r"|(\$\$|\$)"  # 4
    r"|([{}~&])"  # 5
    r"|(-{2,3}|``|''|\"|`)",  # 6: punctuation
    re.DOTALL,
)
# Marks of what the tidying must know: a citation that is not shown; a level of indentation; a passage kept as it is.
_CITED, _INDENT, _KEPT, _END = "\x01", "\x02", "\x03", "\x04"
_MARKS = re.compile(f"[{_CITED}{_INDENT}{_KEPT}{_END}]")
_PUNCTUATION = {"--": "–", "---": "—", "``": "“", "''": "”", '"': '"', "`": "‘"}
_ACCENTED = re.compile(r"\s*(?:\{\s*(\\[ij]|[A-Za-z])\s*\}|(\\[ij](?![A-Za-z])(?:\{\}| )?|[A-Za-z]))")
_INLINE = re.compile(r"\$(?:[^$\\\n]|\\.|\n(?!\s*\n))*\$", re.DOTALL)
_LABEL = re.compile(r"\\label\s*\{[^{}\n]*\}\s*")
# Commands with a length that has no braces: \vskip 2pt, \parindent=0pt.
_LENGTHS = frozenset(
    "vskip hskip kern vglue hglue parskip parindent baselineskip topskip textwidth textheight oddsidemargin".split()
)
_LENGTH = re.compile(r"\s*=?\s*-?[\d.]*\s*(?:pt|cm|mm|in|em|ex|fill?)?")
_OPTION = re.compile(r"\s*\[[^\[\]]{0,500}\]")
_VERB = re.compile(
    r"\\(?:verb|lstinline|mintinline)\*?(?:\[[^\[\]\n]*\])?(?:(?<=mintinline)\{[^{}\n]*\}|(?<=\])\{[^{}\n]*\}(?=[{|!+]))?"
    r"(?:([^A-Za-z\s*{])(.*?)\1|\{([^{}\n]*(?:\{[^{}\n]*\}[^{}\n]*)*)\})"
)
# Commands of algorithms, in the capitals of either package → what they print, and the change of indentation.
_STEPS = {
    **{"state": ("", 0), "statex": ("", 0), "require": ("Require:", 0), "ensure": ("Ensure:", 0)},
    **{"return": ("return", 0)},
    **{"for": ("for", 1), "forall": ("for all", 1), "while": ("while", 1), "if": ("if", 1), "loop": ("loop", 1)},
    **{"elsif": ("else if", 0), "elseif": ("else if", 0), "else": ("else", 0), "repeat": ("repeat", 1)},
    **{"until": ("until", -1), "endfor": ("end for", -1), "endwhile": ("end while", -1), "endif": ("end if", -1)},
    **{"endloop": ("end loop", -1), "function": ("function", 1), "procedure": ("procedure", 1)},
    **{"endfunction": ("end function", -1), "endprocedure": ("end procedure", -1), "print": ("print", 0)},
}  # fmt: skip
_AFTER_STEP = {"for": " do", "forall": " do", "while": " do", "if": " then", "elsif": " then", "elseif": " then"}
_CITATION = re.compile(r"\s*(?:\[[^\[\]]*\]\s*){0,2}\{([^{}]{1,2000})\}")


def to_text(source: str) -> str:
    """The text of a document, or of a part of one.

    Args:
      source: without comments and the authors' macros (latex_project.py).
    """
    source = _MARKS.sub("", source)
    head, begin, body = source.partition("\\begin{document}")
    if not begin:
        head, body = "", source
    body = body.partition("\\end{document}")[0]
    theorems = dict(re.findall(r"\\newtheorem\*?\{(\w+)\*?\}(?:\[\w+\])?\{([^{}\n]+)\}", head))
    theorems = {name: name.capitalize() for name in _THEOREMS} | theorems
    title = _of_command("title", head)
    text = _Reader(body, theorems, numbers(body, theorems), latex_citations.citations(body)).tidy_text()
    heading = _Reader(title).tidy_text().replace("\n", " ")
    return f"{heading}\n\n{text}".strip() if heading and not text.startswith(heading) else text


def _of_command(name: str, source: str) -> str:
    """The content of the braces after a command."""
    if found := re.search(rf"\\{name}\b\s*(?:\[[^\]]{{0,300}}\])?\s*(?=\{{)", source):
        rest = source[found.end() :]
        return rest[1 : closing_braces(rest).get(0, 1)]
    return ""


class _Reader:
    """Reads one source from left to right; the ends of what it skips were found beforehand."""

    def __init__(
        self,
        source: str,
        theorems: Mapping[str, str] = _NONE,
        numbers: Mapping[str, str] = _NONE,
        citations: Mapping[str, latex_citations.Entry] | None = None,
    ):
        self._source, self._theorems, self._numbers, self._citations = source, theorems, numbers, citations or {}
        self._kept: list[str] = []  # passages that are not tidied
        self._indent = -1  # within an algorithm: the level of indentation
        self._stepped = False  # within an algorithm: a line of it was read
        self._braces = closing_braces(source)
        self._out: list[str] = []
        self._closers: list[str] = []  # the end of each open group
        self._next_closer = ""
        self._never: set[str] = set()  # ends that do not occur any more

    def tidy_text(self) -> str:
        return _KEPT_PASSAGE.sub(lambda found: self._kept[int(found[1])], _tidy(self._text())).strip()

    def _keep(self, passage: str) -> str:
        """A mark for a passage that is not to be tidied: code, maths."""
        self._kept.append(passage)
        return f"{_KEPT}{len(self._kept) - 1}{_END}"

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
                self._out.append(_PUNCTUATION[punctuation])
        self._out.append(source[place:])
        return "".join(self._out)

    def _environment(self, name: str, found: re.Match[str], place: int) -> int:
        if found[0].startswith("\\end"):
            self._out.append("\n\n" if name not in ("document", "center") else "\n")
            self._indent = -1 if name in _ALGORITHMS else self._indent
            return place
        if name in VERBATIM or name in _MATHS or name in _DROPPED_ENVIRONMENTS:
            end = self._end_of(f"\\end{{{name}}}", place)
            if end:
                content = self._source[place : end[0]]
                if name in VERBATIM:
                    self._out.append(f"\n\n{self._keep(_listing(name, content))}\n\n")
                elif name in _MATHS:
                    maths = _plain_maths(content)
                    kept = self._keep(re.sub(r"[ \t]*\n\s*", "\n", f"{found[0]}{maths}\\end{{{name}}}"))
                    self._out.append(f"\n{kept}\n")
                return end[1]
        option = _OPTION.match(self._source, place)
        if name.rstrip("*") in self._theorems:
            shown = f" ({_Reader(option[0].strip()[1:-1]).tidy_text()})" if option else ""
            self._out.append(f"\n\n{self._theorems[name.rstrip('*')]}{shown}. ")
        elif name in _ALGORITHMS:
            self._indent, self._stepped = 0, False
            self._out.append("\n\n")
        elif name == "abstract":
            self._out.append("\n\nAbstract\n\n")
        else:
            self._out.append("\n\n")
        place = option.end() if option else place
        if name in ("minipage", "wrapfigure", "multicols", "adjustbox", "subfigure", "thm", "list"):
            place = self._after_group(place)
        return place

    def _command(self, name: str, start: int, place: int) -> int:
        source = self._source
        if name in _SIGNS:
            self._out.append(_SIGNS[name])
            # \o{} and "\LaTeX\ is": here braces or a space only end the name
            return place + 1 if len(name) <= 2 and source[place : place + 1] == " " else place
        accented = _ACCENTED.match(source, place) if name in _ACCENTS else None
        if accented and (len(name) > 1 or not source[place].isalpha()):
            return self._accent(_ACCENTS[name], accented)
        if name in ("verb", "lstinline", "mintinline") and (verb := _VERB.match(source, start)):
            self._out.append(self._keep(verb[2] if verb[1] else verb[3]))
            return verb.end()
        if name == "xspace":
            self._out.append("" if source[place : place + 1] in _NO_SPACE_BEFORE else " ")
            return place
        if self._indent >= 0 and name.lower() in _STEPS:
            return self._step(name.lower(), place)
        if name in latex_citations.NARRATIVE or name in latex_citations.PARENTHETICAL:
            return self._cite(name, place)
        if name in latex_units.COMMANDS and (after := self._quantity(name, place)):
            return after
        if name in ("item", "bibitem"):
            option = _OPTION.match(source, place)
            self._out.append(f"\n- {option[0].strip()[1:-1]} " if option else "\n- ")
            return option.end() if option else place
        if name in _REFERENCES and place in self._braces:
            end = self._braces[place]
            labels = [self._numbers.get(label.strip(), "") for label in source[place + 1 : end].split(",")]
            shown = ", ".join(filter(None, labels))
            self._out.append(_REFERENCES[name].format(shown) if shown else _CITED)
            return end + 1
        if name == "ensuremath" and place in self._braces:
            end = self._braces[place]
            self._out.append(self._keep(f"${_plain_maths(source[place + 1 : end])}$"))
            return end + 1
        if name in _DROPPED:
            return self._after_arguments(place)
        if name in _LENGTHS:
            return found.end() if (found := _LENGTH.match(source, place)) else place
        if name in ("left", "right", "frac", "sum", "mathbb", "mathcal", "alpha", "beta"):
            self._out.append(source[start:place])  # a maths command outside of maths: kept whole rather than in part
            return place
        if name in _SECOND_STAYS:
            return self._after_group(self._after_option(place))
        place = self._after_option(place) if source[place : place + 1] == "[" else place
        self._out.append(_BEGINS.get(name, ""))
        if name in _WRAPPED and place in self._braces:
            self._next_closer = _WRAPPED[name]
        elif source[place : place + 1] == " " and self._out[-1:] == [""] and self._ends_with_space():
            place += 1
        return place

    def _cite(self, name: str, place: int) -> int:
        """A citation that its sentence needs is shown; others are dropped with the brackets around them."""
        found = _CITATION.match(self._source, place)
        if not found:
            return self._after_arguments(place)
        before = "".join(self._out[-4:])[-60:].replace("~", " ")
        needed = name in latex_citations.NARRATIVE or not before.strip() or latex_citations.NEEDED.search(before)
        shown = latex_citations.shown(name, found[1], self._citations) if needed else ""
        self._out.append(shown or _CITED)
        return found.end()

    def _quantity(self, name: str, place: int) -> int:
        """A number with its unit; 0 if its arguments are not there."""
        number, shown = latex_units.COMMANDS[name]
        place = self._after_option(place)
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
        text, change = _STEPS[name]
        self._indent = max(self._indent + min(change, 0), 0)
        level = self._indent - (name in ("else", "elsif", "elseif") and self._indent > 0)
        while self._out and not self._out[-1].strip(" \n"):
            self._out.pop()
        line = f"\n{_INDENT * level}"
        if self._out and not (self._out[-1] == line and name in ("return", "print")):  # \State \Return is one line
            self._out.append(line if self._stepped else f"\n{line}")
        self._stepped = True
        self._out.append(f"{text} " if text else "")
        self._indent += max(change, 0)
        place = self._after_option(place)
        at = place + (self._source[place : place + 1] == " ")
        if name in _AFTER_STEP and at in self._braces:
            self._next_closer = _AFTER_STEP[name]
        return at

    def _sign(self, sign: str, place: int) -> int:
        if sign in "([":
            closing = {"(": "\\)", "[": "\\]"}[sign]
            if end := self._end_of(closing, place):
                content = _plain_maths(self._source[place : end[0]]).strip()
                kept = self._keep(f"${content}$" if sign == "(" else f"$$ {content} $$")
                self._out.append(kept if sign == "(" else f"\n{kept}\n")
                return end[1]
            return place
        if sign in _ACCENTS and (accented := _ACCENTED.match(self._source, place)):
            return self._accent(_ACCENTS[sign], accented)
        self._out.append(_SIGNS.get(sign, ""))
        return self._after_option(place) if sign == "\\" and self._source[place : place + 1] == "[" else place

    def _accent(self, mark: str, found: re.Match) -> int:
        letter = (found[1] or found[2]).strip("\\{} ")
        self._out.append(unicodedata.normalize("NFC", letter + mark))
        return found.end()

    def _maths(self, sign: str, start: int, place: int) -> int:
        if sign == "$$":
            if end := self._end_of("$$", place):
                kept = self._keep(f"$$ {_plain_maths(self._source[place : end[0]]).strip()} $$")
                self._out.append(f"\n{kept}\n")
                return end[1]
            return place
        if found := _INLINE.match(self._source, start):
            self._out.append(self._keep(re.sub(r"\s+", " ", _plain_maths(found[0]))))
            return found.end()
        self._out.append("$")  # never closed in its paragraph: a dollar
        return place

    def _brace(self, brace: str) -> None:
        if brace == "{":
            self._closers.append(self._next_closer)
            self._next_closer = ""
        elif brace == "}":
            self._out.append(self._closers.pop() if self._closers else "")
        else:
            self._out.append(" ")

    def _end_of(self, end: str, place: int) -> tuple[int, int] | None:
        """(where it begins, the place after its end)."""
        at = -1 if end in self._never else self._source.find(end, place)
        if at < 0:
            self._never.add(end)
            return None
        return at, at + len(end)

    def _after_option(self, place: int) -> int:
        found = _OPTION.match(self._source, place)
        return found.end() if found else place

    def _after_group(self, place: int) -> int:
        at = place + (self._source[place : place + 1] in (" ", "\n"))
        return self._braces[at] + 1 if at in self._braces else place

    def _after_arguments(self, place: int) -> int:
        """The place after all brackets and groups that follow directly."""
        while True:
            after = self._after_option(place) if self._source[place : place + 1] == "[" else self._after_group(place)
            if after == place:
                return place
            place = after

    def _ends_with_space(self) -> bool:
        return next((text[-1].isspace() for text in reversed(self._out) if text), True)


def _plain_maths(source: str) -> str:
    """Maths without what only its own document defines."""
    return _LABEL.sub("", source).replace("\\ensuremath", "").replace("\\xspace", "")


_ALGORITHMS = ("algorithmic", "algpseudocode", "algorithm2e", "pseudocode")
_NO_SPACE_BEFORE = frozenset((*".,;:!?)]}'~-/ \n\t\\", ""))
_KEPT_PASSAGE = re.compile(f"{_KEPT}(\\d+){_END}")


def _listing(name: str, content: str) -> str:
    """Code as it is, without the options of its environment."""
    first, newline, rest = content.partition("\n")
    first = _OPTION.sub("", first, count=1)
    if name == "minted":
        first = re.sub(r"^\s*\{[^{}\n]*\}", "", first, count=1)
    code = f"{first}{newline}{rest}" if first.strip() else rest
    return code.rstrip().replace("\t", "    ").strip("\n")


_LEAD_IN = (
    r"(?:see|see also|e\.g\.|cf\.?|i\.e\.|for example|for instance|for a review,? see|and references therein|also|"
    r"[,;.\s])"
)
_TIDY = (
    (re.compile(rf" ?[(\[](?:{_LEAD_IN}|{_CITED})*{_CITED}(?:{_LEAD_IN}|{_CITED})*[)\]]", re.IGNORECASE), ""),
    (re.compile(rf"[ ~]?{_CITED}(?:\s*[,;]?\s*{_CITED})*"), ""),
    (re.compile(r"[ \t\xa0]{2,}|[\t\xa0]"), " "),
    (re.compile(r" ?\n ?"), "\n"),
    (re.compile(r"\n{3,}"), "\n\n"),
    (re.compile(r"\n\n(?=- )"), "\n"),
    (re.compile(r" ([,.;:])(?=\s)"), r"\1"),
    (re.compile(r" {2,}"), " "),
    (re.compile(_INDENT), "  "),
)


def _tidy(text: str) -> str:
    text = text.replace("~", " ")
    for pattern, replacement in _TIDY:
        text = pattern.sub(replacement, text)
    return text.strip("\n ")
