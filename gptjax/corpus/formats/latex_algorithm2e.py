"""Algorithms of the package algorithm2e as the algorithmic steps that the reader of LaTeX prints line by line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gptjax.corpus.formats.latex_project import closing_braces

_ENVIRONMENT = re.compile(
    r"\\begin\{(algorithm2?e?\*?|function\*?|procedure\*?)\}(?:\[[^\]]*\])?(.*?)\\end\{\1\}", re.DOTALL
)
_LOADED = re.compile(r"\\(?:usepackage|RequirePackage)\s*(?:\[([^\]]*)\])?\s*\{algorithm2e\}")
_TOKEN = re.compile(r"\\;|\\([A-Za-z]+)\*?|\\.|\{", re.DOTALL)
_COMMENT = re.compile(r"\s*\((?:[^()]|\([^()]*\))*\)(?=\s*\{)|\s*\[[^\]]*\]")
_DEFINITION = re.compile(
    r"\\SetKw(InOut|Input|Data|Result|Function|Prog|For|Array|Comment|)\s*\{(\w+)\}"
    r"((?:\s*\{(?:[^{}]|\{[^{}]*\})*\}){1,3})"
)
_INPUTS = {"KwIn": "Input", "KwOut": "Output", "KwData": "Data", "KwResult": "Result"}
# command → the words around its condition, and the word that ends the block
_BLOCKS = {
    **dict.fromkeys(("If", "uIf", "lIf"), ("if", "then", "end")),
    **dict.fromkeys(("ElseIf", "uElseIf", "lElseIf"), ("else if", "then", "end")),
    **{"For": ("for", "do", "end"), "ForEach": ("foreach", "do", "end"), "ForAll": ("forall", "do", "end")},
    **{"While": ("while", "do", "end"), "Switch": ("switch", "do", "end")},
    **dict.fromkeys(("Case", "uCase"), ("case", "do", "end")),
}
_PLAIN_BLOCKS = {"Else": "else", "uElse": "else", "lElse": "else", "Begin": "begin", "Other": "otherwise"}
_NO_END = frozenset("uIf uElseIf uElse uCase lIf lElseIf lElse".split())
_IGNORED = frozenset(
    "DontPrintSemicolon PrintSemicolon SetAlgoLined SetAlgoNoLine SetAlgoVlined LinesNumbered RestyleAlgo BlankLine "
    "SetAlgoNoEnd SetAlgoLongEnd SetAlgoShortEnd Indp Indm SetNlSty small footnotesize scriptsize".split()
)
_DEEPEST = 60  # blocks within blocks that are read as such


def with_steps(body: str, head: str) -> str:
    r"""`body` with \If{c}{x\;} and the like as \blockbegin if c then \State x \blockend end.

    Args:
      body: the document.
      head: what stands before it; unless it loads algorithm2e, nothing changes.
    """
    loaded = _LOADED.search(head)
    if not loaded:
        return body
    everything = head + body
    ends = not re.search(r"noend|vlined", loaded[1] or "") and not re.search(r"\\SetAlgo(?:NoEnd|Vlined)", everything)
    program = _Program(_DEFINITION.findall(everything), ends, "\\DontPrintSemicolon" not in everything)
    return _ENVIRONMENT.sub(lambda found: program.environment(found[2]), body)


class _Program:
    """Translates programs by the keywords of one document.

    Args:
      definitions: (kind, name, groups) of each keyword that the document defines.
      ends: whether "end" is printed.
      semicolons: whether statements end with one in print.
    """

    def __init__(self, definitions: Sequence[tuple[str, str, str]], ends: bool, semicolons: bool):
        self._ends, self._semicolon, self._depth = ends, ";" if semicolons else "", 0
        self._inputs, self._blocks = dict(_INPUTS), dict(_BLOCKS)
        self._words: dict[str, str] = {}
        self._functions: dict[str, str] = {}
        for kind, name, groups in definitions:
            texts = [text.strip() for text in re.findall(r"\{((?:[^{}]|\{[^{}]*\})*)\}", groups)]
            if kind in ("InOut", "Input", "Data", "Result"):
                self._inputs[name] = texts[0]
            elif kind in ("Prog", "For") and len(texts) == 3:
                self._blocks[name] = (texts[0], texts[1], texts[2])
            elif kind in ("Function", "Array"):
                self._functions[name] = texts[0]
            elif not kind:
                self._words[name] = texts[0]

    def environment(self, content: str) -> str:
        """A float with its caption before its steps."""
        content = _DEFINITION.sub("", content)
        captions: list[str] = []
        braces = closing_braces(content)
        for found in [*re.finditer(r"\\caption\s*(?=\{)", content)][::-1]:
            if found.end() in braces:
                end = braces[found.end()] + 1
                captions.append(content[found.start() : end])
                content = content[: found.start()] + content[end:]
        labels = "".join(re.findall(r"\\label\{[^{}]*\}", content))
        content = re.sub(r"\\label\{[^{}]*\}|\\centering\b", "", content)
        content = self._with_words(content)
        steps = f"\\begin{{algorithmic}}\n{self._steps(content)}\\end{{algorithmic}}"
        return f"\\begin{{algorithm}}{''.join(captions)}{labels}\n{steps}\n\\end{{algorithm}}"

    def _with_words(self, source: str) -> str:
        r"""The document's own words and functions as text: \Sort{list} → Sort(list)."""
        for name, text in self._functions.items():
            called = re.compile(rf"\\{name}\s*\{{((?:[^{{}}]|\{{[^{{}}]*\}})*)\}}")
            for _ in range(3):  # a call within a call
                source = called.sub(_Call(text), source)
        for name, text in (self._functions | self._words).items():
            source = re.sub(rf"\\{name}(?![A-Za-z])(?:\{{\}})?", _Call(text), source)
        return source

    def _steps(self, source: str) -> str:
        if self._depth == _DEEPEST:
            return f"\\State {source}\n"
        self._depth += 1
        steps = self._steps_of_block(source)
        self._depth -= 1
        return steps

    def _steps_of_block(self, source: str) -> str:
        braces = closing_braces(source)
        steps: list[str] = []
        statement: list[str] = []

        def end_statement(sign: str = "") -> None:
            if text := "".join(statement).strip():
                steps.append(f"\\State {text}{sign}\n")
            statement.clear()

        def groups(place: int, most: int) -> tuple[list[str], int]:
            """(the groups after a command, the place after them)."""
            found: list[str] = []
            while comment := _COMMENT.match(source, place):
                place = comment.end()
            while len(found) < most:
                at = place + len(source[place:]) - len(source[place:].lstrip())
                if at not in braces:
                    break
                found.append(source[at + 1 : braces[at]])
                place = braces[at] + 1
            return found, place

        place = 0
        while found := _TOKEN.search(source, place):
            statement.append(source[place : found.start()])
            name, place = found[1], found.end()
            if found[0] == "\\;":
                end_statement(self._semicolon)
            elif found[0] == "{" and found.start() in braces:
                place = braces[found.start()] + 1
                statement.append(source[found.start() : place])
            elif name in self._inputs:
                end_statement()
                texts, place = groups(place, 1)
                steps.append(f"\\State {self._inputs[name]}: {''.join(texts)}\n")
            elif name == "eIf" or name in self._blocks or name in _PLAIN_BLOCKS or name == "Repeat":
                end_statement()
                texts, place = groups(place, 3 if name == "eIf" else 1 if name in _PLAIN_BLOCKS else 2)
                steps.append(self._block(name, texts))
            elif name in ("Return", "KwRet"):
                end_statement()
                texts, place = groups(place, 1)
                statement.append(f"return {''.join(texts)}".rstrip() + " " * (not texts))
            elif name in ("tcp", "tcc"):
                texts, place = groups(place, 1)
                sign = f"{self._semicolon} " if "".join(statement).strip() else ""
                comment = f"// {''.join(texts)}" if name == "tcp" else f"/* {''.join(texts)} */"
                statement[:] = ["".join(statement).strip(), sign, comment]
                end_statement()
            elif name in _IGNORED:
                _, place = groups(place, 1) if name in ("RestyleAlgo",) else ([], place)
            else:
                statement.append(found[0])
        statement.append(source[place:])
        end_statement()
        return "".join(steps)

    def _block(self, name: str, texts: list[str]) -> str:
        end = f"\\blockend {'end' if self._ends and name not in _NO_END else ''}\n"
        if name == "eIf":
            condition, then, otherwise = (*texts, "", "", "")[:3]
            first = f"\\blockbegin if {condition} then\n{self._steps(then)}\\blockend\n"
            return f"{first}\\blockbegin else\n{self._steps(otherwise)}{end}"
        if name in _PLAIN_BLOCKS:
            return f"\\blockbegin {_PLAIN_BLOCKS[name]}\n{self._steps(''.join(texts))}{end}"
        condition, content = (*texts, "", "")[:2]
        if name == "Repeat":
            return f"\\blockbegin repeat\n{self._steps(content)}\\blockend until {condition}{self._semicolon}\n"
        begin, then, closing = self._blocks[name]
        if self._ends and name not in _NO_END:
            end = f"\\blockend {closing}\n"
        glue = "" if then in (":", ";", "") else " "
        return f"\\blockbegin {begin} {condition}{glue}{then}\n{self._steps(content)}{end}"


class _Call:
    """Replaces a command by a text, and the group after it by brackets."""

    def __init__(self, text: str):
        self._text = text

    def __call__(self, found: re.Match[str]) -> str:
        return f"{self._text}({found[1]})" if found.re.groups else self._text
