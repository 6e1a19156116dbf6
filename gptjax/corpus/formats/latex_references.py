"""What LaTeX's references print: \ref{a} → 2, \\cref{a,b} → sections 2 and 3, \autoref{a} → section 2."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gptjax.corpus.formats.latex_numbers import Label, Theorem

COMMANDS = frozenset(
    "ref eqref autoref autorefs cref Cref labelcref vref Vref fref Fref subref nameref Nameref titleref".split()
)
_ABBREVIATED = {"equation": "eq.", "figure": "fig."}
_PLURALS = {"eq.": "eqs.", "fig.": "figs.", "corollary": "corollaries", "appendix": "appendices"}
_HYPERREF = {name: name.capitalize() for name in ("part", "appendix", "equation", "figure", "table")}
_CREF_NAME = re.compile(r"\\([cC])refname\s*\{(\w+)\}\s*\{([^{}\n]{1,60})\}\s*\{([^{}\n]{1,60})\}")
_CLEVEREF = re.compile(r"\\usepackage\s*\[([^\]\n]*)\]\s*\{cleveref\}")


class References:
    """The text of a document's references."""

    def __init__(self, labels: Mapping[str, Label], known: Mapping[str, Theorem], head: str = ""):
        self._labels, self._known = labels, known
        self._names = {
            (capital == "C", kind): (one, several) for capital, kind, one, several in _CREF_NAME.findall(head)
        }
        self._part = "({})" if "{subfig}" in head else "{}"  # the package subcaption shows no brackets
        options = (_CLEVEREF.findall(head) or [""])[0]
        self._capitals, self._abbreviate = "capitali" in options, "noabbrev" not in options

    def shown(self, command: str, keys: str) -> str:
        """The text of a reference to labels, separated by commas; '' if none of them is known."""
        found = [label for key in keys.split(",") if (label := self._labels.get(key.strip())) and label.number]
        if not found:
            return ""
        if command in ("nameref", "Nameref", "titleref"):
            return found[0].title
        if command == "subref":
            return self._part.format(found[0].number.lstrip("0123456789."))
        if command in ("ref", "vref", "labelcref"):
            return ", ".join(label.number for label in found)
        if command == "eqref":
            return ", ".join(f"({label.number})" for label in found)
        if command in ("autoref", "autorefs"):
            return ", ".join(f"{self._hyperref_name(label.kind)} {label.number}" for label in found)
        kinds: dict[str, list[str]] = {}
        for label in found:
            kind = "section" if label.kind.endswith("section") else label.kind
            kinds.setdefault(kind, []).append(f"({label.number})" if kind == "equation" else label.number)
        return _joined(
            [
                f"{self._name(kind, len(numbers) > 1, command[0].isupper())} {_joined(numbers)}"
                for kind, numbers in kinds.items()
            ]
        )

    def _hyperref_name(self, kind: str) -> str:
        return self._known[kind].title if kind in self._known else _HYPERREF.get(kind, kind)

    def _name(self, kind: str, several: bool, capital: bool) -> str:
        for capital_too in (capital, not capital):
            if names := self._names.get((capital_too, kind)):
                name = names[several]
                return name[:1].upper() + name[1:] if capital else name
        name = self._known[kind].title.lower() if kind in self._known else kind
        if self._abbreviate and not capital:  # cleveref's \Cref begins a sentence, so it abbreviates nothing
            name = _ABBREVIATED.get(name, name)
        if several:
            name = _PLURALS.get(name, f"{name}s")
        return name[:1].upper() + name[1:] if capital or self._capitals else name


def _joined(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]
