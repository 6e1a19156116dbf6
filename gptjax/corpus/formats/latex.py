"""Converts LaTeX to text in one pass: prose as prose, maths as its source, headings and items on their own lines.

Leaves out the preamble, drawings, cells of tables, bibliography, labels, citations and layout. Captions stay.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

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
    "label cite citep citet citealt citealp citeauthor citeyear citeyearpar citenum nocite autocite textcite "
    "parencite footcite Cite Citet Citep pageref nameref includegraphics includepdf includesvg bibliography "
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
    **dict.fromkeys([" ", ",", ";", ":", "quad", "qquad", "enspace", "thinspace", "xspace", "\n", "hfill"], " "),
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
_PUNCTUATION = {"--": "–", "---": "—", "``": "“", "''": "”", '"': '"', "`": "‘"}
_ACCENTED = re.compile(r"\s*(?:\{\s*(\\?[A-Za-z])\s*\}|(\\?[A-Za-z]))")
_INLINE = re.compile(r"\$(?:[^$\\\n]|\\.|\n(?!\s*\n))*\$", re.DOTALL)
_LABEL = re.compile(r"\\label\s*\{[^{}\n]*\}\s*")
# Commands with a length that has no braces: \vskip 2pt, \parindent=0pt.
_LENGTHS = frozenset(
    "vskip hskip kern vglue hglue parskip parindent baselineskip topskip textwidth textheight oddsidemargin".split()
)
_LENGTH = re.compile(r"\s*=?\s*-?[\d.]*\s*(?:pt|cm|mm|in|em|ex|fill?)?")
_OPTION = re.compile(r"\s*\[[^\[\]]{0,500}\]")
_VERB = re.compile(r"\\(?:verb|lstinline)\*?([^A-Za-z\s*{])(.*?)\1")


def to_text(source: str) -> str:
    """The text of a document, or of a part of one.

    Args:
      source: without comments and the authors' macros (latex_project.py).
    """
    head, begin, body = source.partition("\\begin{document}")
    if not begin:
        head, body = "", source
    body = body.partition("\\end{document}")[0]
    theorems = dict(re.findall(r"\\newtheorem\*?\{(\w+)\*?\}(?:\[\w+\])?\{([^{}\n]+)\}", head))
    theorems = {name: name.capitalize() for name in _THEOREMS} | theorems
    title = _of_command("title", head)
    text = _tidy(_Reader(body, theorems, numbers(body, theorems)).text())
    heading = _tidy(_Reader(title).text()).replace("\n", " ")
    return f"{heading}\n\n{text}".strip() if heading and not text.startswith(heading) else text


def _of_command(name: str, source: str) -> str:
    """The content of the braces after a command."""
    if found := re.search(rf"\\{name}\b\s*(?:\[[^\]]{{0,300}}\])?\s*(?=\{{)", source):
        rest = source[found.end() :]
        return rest[1 : closing_braces(rest).get(0, 1)]
    return ""


class _Reader:
    """Reads one source from left to right; the ends of what it skips were found beforehand."""

    def __init__(self, source: str, theorems: Mapping[str, str] = _NONE, numbers: Mapping[str, str] = _NONE):
        self._source, self._theorems, self._numbers = source, theorems, numbers
        self._braces = closing_braces(source)
        self._out: list[str] = []
        self._closers: list[str] = []  # the end of each open group
        self._next_closer = ""
        self._never: set[str] = set()  # ends that do not occur any more

    def text(self) -> str:
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
            return place
        if name in VERBATIM or name in _MATHS or name in _DROPPED_ENVIRONMENTS:
            end = self._end_of(f"\\end{{{name}}}", place)
            if end:
                content = self._source[place : end[0]]
                if name in VERBATIM:
                    self._out.append(f"\n\n{_OPTION.sub('', content, count=1).strip(chr(10))}\n\n")
                elif name in _MATHS:
                    self._out.append(f"\n{found[0]}{_plain_maths(content)}\\end{{{name}}}\n")
                return end[1]
        option = _OPTION.match(self._source, place)
        if name.rstrip("*") in self._theorems:
            shown = f" ({_tidy(_Reader(option[0].strip()[1:-1]).text())})" if option else ""
            self._out.append(f"\n\n{self._theorems[name.rstrip('*')]}{shown}. ")
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
        if name in ("verb", "lstinline") and (verb := _VERB.match(source, start)):
            self._out.append(verb[2])
            return verb.end()
        if name in ("item", "bibitem"):
            option = _OPTION.match(source, place)
            self._out.append(f"\n- {option[0].strip()[1:-1]} " if option else "\n- ")
            return option.end() if option else place
        if name in _REFERENCES and place in self._braces:
            end = self._braces[place]
            labels = [self._numbers.get(label.strip(), "") for label in source[place + 1 : end].split(",")]
            shown = ", ".join(filter(None, labels))
            self._out.append(_REFERENCES[name].format(shown) if shown else "")
            return end + 1
        if name == "ensuremath" and place in self._braces:
            end = self._braces[place]
            self._out.append(f"${_plain_maths(source[place + 1 : end])}$")
            return end + 1
        if name in _DROPPED:
            if name.lower().startswith("cite") and self._out and self._out[-1].endswith((" ", "~")):
                self._out[-1] = self._out[-1][:-1]
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

    def _sign(self, sign: str, place: int) -> int:
        if sign in "([":
            closing = {"(": "\\)", "[": "\\]"}[sign]
            if end := self._end_of(closing, place):
                content = _plain_maths(self._source[place : end[0]]).strip()
                self._out.append(f"${content}$" if sign == "(" else f"\n$$ {content} $$\n")
                return end[1]
            return place
        if sign in _ACCENTS and (accented := _ACCENTED.match(self._source, place)):
            return self._accent(_ACCENTS[sign], accented)
        self._out.append(_SIGNS.get(sign, ""))
        return self._after_option(place) if sign == "\\" and self._source[place : place + 1] == "[" else place

    def _accent(self, mark: str, found: re.Match) -> int:
        letter = (found[1] or found[2]).replace("\\i", "i").replace("\\j", "j").lstrip("\\")
        self._out.append(unicodedata.normalize("NFC", letter + mark))
        return found.end()

    def _maths(self, sign: str, start: int, place: int) -> int:
        if sign == "$$":
            if end := self._end_of("$$", place):
                self._out.append(f"\n$$ {_plain_maths(self._source[place : end[0]]).strip()} $$\n")
                return end[1]
            return place
        if found := _INLINE.match(self._source, start):
            self._out.append(_plain_maths(found[0]))
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


_TIDY = (
    (re.compile(r"[ \t\xa0]{2,}|[\t\xa0]"), " "),
    (re.compile(r" ?\n ?"), "\n"),
    (re.compile(r"\n{3,}"), "\n\n"),
    (re.compile(r"\n\n(?=- )"), "\n"),
    (re.compile(r"\( ?[,;.]? ?\)|\[ ?\]"), ""),
    (re.compile(r" ([,.;:])(?=\s)"), r"\1"),
    (re.compile(r" {2,}"), " "),
)


def _tidy(text: str) -> str:
    text = text.replace("~", " ")
    for pattern, replacement in _TIDY:
        text = pattern.sub(replacement, text)
    return text.strip()
