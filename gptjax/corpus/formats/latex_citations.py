"""What LaTeX's citations print: authors and years by the labels of a bibliography, else numbers in brackets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gptjax.corpus.formats.latex_signs import with_accents

# Citations that are part of their sentence, and what they show of an entry.
NARRATIVE = {
    **dict.fromkeys("citet Citet textcite Textcite citetext onlinecite".split(), "{authors} ({year})"),
    **dict.fromkeys("citealt Citealt".split(), "{authors} {year}"),
    "citetalias": "{alias}",
    **dict.fromkeys("citeauthor Citeauthor citefullauthor".split(), "{authors}"),
    **dict.fromkeys("citeyear citedate".split(), "{year}"),
    "citeyearpar": "({year})",
    "citenum": "{number}",
}
# Citations that stand in brackets or are raised: the sentence is whole without them.
PARENTHETICAL = frozenset(
    "cite citep citepalias citealp Citep Cite parencite Parencite autocite Autocite footcite supercite cites "
    "parencites smartcite".split()
)
# A sentence that needs the citation: "as in [3]".
NEEDED = re.compile(
    r"(?i)(?:^|[\s(])(?:by|in|of|from|see|cf\.?|to|with|than|as|like|per|following|follow|follows|using|"
    r"use|e\.g\.|"
    r"refer to|ref\.|refs\.|works?|papers?|references?|both|via|against)[\s~]*$|\];[\s~]*$"
)

_BIBITEM = re.compile(r"\\bibitem\s*(?:\[((?:[^\[\]{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\])?\s*(?:%\s*)?\{([^{}]{1,200})\}")
_LABEL = re.compile(r"\s*(.*?)\s*\((\d{4}[a-z]?|[^()]{1,20})\)", re.DOTALL)
_ALIAS = re.compile(r"\\defcitealias\s*\{([^{}]{1,200})\}\s*\{([^{}]{1,200})\}")
_CITE = re.compile(r"\\[A-Za-z]*[cC]ite[a-z]*\*?\s*(?:\[[^\[\]]*\]\s*){0,2}\{([^{}]{1,2000})\}")
_KEY = re.compile(
    r"(?:[\w-]*:)?([A-Za-z]{3,}?)(?:etal|_etal)?[-_:+.]?((?:19|20)\d\d(?:[a-z](?![A-Za-z]))?)(?!\d)", re.ASCII
)


@dataclass(frozen=True)
class Entry:
    r"""How a work is cited; authors and year are '' where the bibliography does not say.

    alias: of \defcitealias.
    named: whether \cite shows authors and year rather than the number.
    """

    number: int
    authors: str = ""
    year: str = ""
    alias: str = ""
    named: bool = False

    def shown(self, form: str) -> str:
        if form == "{alias}" and self.alias:
            return self.alias
        if form == "{alias}" or (form == "[{number}]" and self.named):
            form = NARRATIVE["citet"]
        if (self.authors and self.year) or form == "{number}":
            return form.format(authors=self.authors, year=self.year, number=self.number)
        return f"[{self.number}]"


_NUMBERED = re.compile(
    r"\\(?:usepackage|setcitestyle|bibpunct|PassOptionsToPackage|documentclass)\b[^\\\n]*\b(?:numbers|super)\b|\{revtex4"
)


def citations(source: str, head: str = "") -> dict[str, Entry]:
    """key → entry: by the bibliography's labels, in its order; what it lacks by the order of citing and the key.

    Args:
      head: what stands before the document and may define other names for its works.
    """
    entries: dict[str, Entry] = {}
    works = [(key.strip(), *_of_label(label)) for label, key in _BIBITEM.findall(source)]
    # One work without authors and year, and natbib shows the numbers of all.
    names_works = all(year for _, _, year in works) and not _NUMBERED.search(head)
    for key, authors, year in works:
        entries.setdefault(key, Entry(len(entries) + 1, authors, year, named=names_works))
    for keys in _CITE.findall(source):
        for key in map(str.strip, keys.split(",")):
            if key and key not in entries:
                named = _KEY.match(key)
                author = named[1][0].upper() + named[1][1:] if named else ""
                entries[key] = Entry(len(entries) + 1, author, named[2] if named else "")
    for key, alias in _ALIAS.findall(head + source):
        if key.strip() in entries:
            entries[key.strip()] = replace(entries[key.strip()], alias=alias)
    return entries


def _of_label(label: str) -> tuple[str, str]:
    """natbib's label "Smith et~al.(2010)Smith, Jones, and Li" → ("Smith et al.", "2010")."""
    plain = re.sub(
        r"\s+",
        " ",
        re.sub(
            r"\\[A-Za-z]+\s*|[{}]", "", with_accents(label).replace("~", " ").replace("\\&", "&").replace("\\ ", " ")
        ),
    )
    found = _LABEL.match(plain)
    return (found[1], found[2]) if found else ("", "")


def shown(name: str, keys: str, entries: Mapping[str, Entry]) -> str:
    """The text of a citation that its sentence needs."""
    form = NARRATIVE.get(name, "[{number}]")
    texts = [entries[key].shown(form) for key in map(str.strip, keys.split(",")) if key in entries]
    if form == "[{number}]" and texts and all(text[0] == "[" for text in texts):
        return "[" + ", ".join(text.strip("[]") for text in texts) + "]"
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
