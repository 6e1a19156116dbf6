"""Licences of source code: recognized in texts, notices and package metadata, as SPDX expressions.

Names are those of the SPDX licence list (spdx.org/licenses). Only what a text states is recognized; one file cannot say
whether it applies to a whole project.
"""

from __future__ import annotations

import email.parser
import functools
import re
from collections.abc import Iterable, Sequence

import numpy as np

from gptjax.corpus.formats import comments, license_texts

PERMISSIVE = tuple(
    "0BSD AFL-2.1 AFL-3.0 Apache-1.1 Apache-2.0 Artistic-2.0 BSD-1-Clause BSD-2-Clause BSD-2-Clause-Patent "
    "BSD-3-Clause BSD-3-Clause-Clear BSD-4-Clause BSD-4-Clause-UC BSL-1.0 BlueOak-1.0.0 CC-BY-3.0 CC-BY-4.0 CC0-1.0 "
    "CNRI-Python ECL-2.0 FTL HPND HPND-sell-variant ICU IJG ISC LicenseRef-BSD LicenseRef-PublicDomain MIT MIT-0 "
    "MIT-CMU MIT-Modern-Variant MS-PL MulanPSL-2.0 NCSA NTP OLDAP-2.8 OpenSSL PHP-3.01 PSF-2.0 PostgreSQL Python-2.0 "
    "Python-2.0.1 TCL UPL-1.0 Unicode-3.0 Unicode-DFS-2016 Unlicense W3C W3C-20150513 WTFPL X11 ZPL-2.1 Zlib "
    "bzip2-1.0.6 curl libpng-2.0".split()
)
UNKNOWN_TERMS = (
    "LicenseRef-UnknownTerms"  # beside the licences that a text contains, it says more that was not recognized
)

# --- Texts and notices ------------------------------------------------------------------------------------------------

_NEAR = 160  # the other phrases of a title must follow within this many characters

# (name, phrase, further phrases after it), the more specific before the more general. Text is compared in lower case,
# with one space for every run of white space, quotes and comment marks.
_TITLES = (
    ("AGPL-3.0", "gnu affero general public license", ()),
    ("LGPL-3.0", "gnu lesser general public license", ("version 3",)),
    ("LGPL-2.1", "gnu lesser general public license", ("version 2.1",)),
    ("LGPL-2.0", "gnu library general public license", ()),
    ("LGPL-2.0", "gnu lesser general public license", ()),
    ("GPL-3.0", "gnu general public license", ("version 3",)),
    ("GPL-2.0", "gnu general public license", ("version 2",)),
    ("GPL-1.0", "gnu general public license", ()),
    ("MPL-2.0", "mozilla public license", ("2.0",)),
    ("MPL-1.1", "mozilla public license", ("1.1",)),
    ("EPL-2.0", "eclipse public license", ("2.0",)),
    ("EPL-1.0", "eclipse public license", ()),
    ("CDDL-1.0", "common development and distribution license", ()),
    ("EUPL-1.2", "european union public licence", ("1.2",)),
    ("BUSL-1.1", "business source license 1.1", ()),
    ("Elastic-2.0", "elastic license 2.0", ()),
    ("SSPL-1.0", "server side public license", ()),
    ("CC-BY-NC-SA-4.0", "attribution-noncommercial-sharealike 4.0", ()),
    ("CC-BY-NC-ND-4.0", "attribution-noncommercial-noderivatives 4.0", ()),
    ("CC-BY-NC-4.0", "attribution-noncommercial 4.0", ()),
    ("CC-BY-SA-4.0", "attribution-sharealike 4.0", ()),
    ("CC-BY-SA-3.0", "attribution-sharealike 3.0", ()),
    ("CC-BY-ND-4.0", "attribution-noderivatives 4.0", ()),
    ("CC-BY-4.0", "creative commons attribution 4.0", ()),
    ("CC-BY-4.0", "attribution 4.0 international", ()),
    ("CC-BY-3.0", "attribution 3.0 unported", ()),
    ("CC0-1.0", "cc0 1.0 universal", ()),
    ("CC0-1.0", "creativecommons.org/publicdomain/zero/1.0", ()),
    ("OFL-1.1", "sil open font license", ()),
    ("ECL-2.0", "educational community license", ("2.0",)),
    ("Apache-2.0", "apache license", ("version 2.0",)),
    ("Apache-2.0", "apache 2.0 license", ()),
    ("Apache-1.1", "apache software license", ("version 1.1",)),
    ("Artistic-2.0", "artistic license 2.0", ()),
    ("AFL-3.0", "academic free license", ("3.0",)),
    ("AFL-2.1", "academic free license", ("2.1",)),
    ("MS-PL", "microsoft public license", ()),
    ("MulanPSL-2.0", "mulan permissive software license", ("version 2",)),
    ("UPL-1.0", "universal permissive license", ()),
    ("PSF-2.0", "python software foundation license version 2", ()),
    ("PSF-2.0", "nonexclusive, royalty-free, world-wide license to reproduce, analyze, test", ()),
    ("ZPL-2.1", "zope public license", ("2.1",)),
    ("BSL-1.0", "boost software license", ()),
    ("Unlicense", "free and unencumbered software released into the public domain", ()),
    ("WTFPL", "do what the fuck you want to", ()),
    ("W3C", "w3c software notice and license", ()),
    ("BSD-3-Clause", "governed by a bsd-style license", ()),
    ("BSD-3-Clause", "under the terms of the bsd 3-clause", ()),
    ("MIT", "under the mit license", ()),
    ("MIT", "under the terms of the mit license", ()),
)
_BETWEEN_WORDS = re.compile(r"[\s*#/;%\"'`“”‘’>|=_]+")
_SPDX_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+() -]{2,200})")
# Words that can add a condition to a licence or take away a permission.
_CONDITION = re.compile(
    r"\b(?:licens\w*|[al]?gpl\w*|gnu|copyleft|prohibit\w*|forbid\w*|restrict\w*|conditions?|provided that|subject to|"
    r"agree\w*|must|shall|should|not|no|never|unless|except\w*|only|cannot|limited|solely|exclusively|noderiv\w+|sharealike|"
    r"(?:non)?commerc\w+|royalt\w+|sell\w*|sale|proprietary|confidential|patents?|consent|purchas\w+|prior|neither|sold|disallow\w*|cit(?:e|es|ed|ing)|contribute|specifically|acknowledg\w+|"
    r"evaluation|military|academic|internal|educational|bundl\w+|requir\w*|terminat\w+|commons clause)\b"
)
# What a licence's text must not leave out: a permission. In longer passages it is a matter of form.
_PERMISSION = re.compile(
    r"\b(?:use|copy|modify|publish|distribute|sublicense|sell|without|any purpose|permitted|granted)\b"
)
_STRUCK_OUT = 12  # words
_FREE = (
    r"(?:mit|bsd zero clause|expat|x11|x consortium|isc|bsd|apache|boost|zlib|libpng|python|psf|unlicense|wtfpl|ncsa|"
    r"historical permission notice and disclaimer|artistic|w3c|openssl|ssleay|php|curl|creative commons|"
    r"public domain|cc0|cc by|icu|unicode)"
)
# Phrases that change nothing: which licence it is, who wrote it, whose names may not be used, that nobody is liable.
_HARMLESS = re.compile(
    rf"(?:\b(?:this|the|all|any|it|is|are|file|code|software|program|library|project|source|under|terms|of|be|may|can|"
    rf"released|licensed|distributed|available|covered|provided|redistributed|used|modified|and|or|new|original|modified|revised|"
    rf"simplified|old|style|a|an|to|following|see|version|full|standard|permissive) )*"
    rf"\b{_FREE}(?: (?:\d[\d.]*|clause|style|like|new|modified|simplified|original|revised|or|{_FREE}))*"
    r"(?: (?:software )?licenses?(?: agreement| txt| md| file| version| name)*(?: \d[\d.]*)*)+"
    r"|^(?:the |software |open source )*license(?: agreement| text| name)*(?= |$)"
    rf"|\b(?:spdx )?license (?:name |is |identifier )?(?:the )?{_FREE}(?: \d\w*| clause)*"
    r"|\b(?:the )?names?(?: \w+){0,24}? (?:may|must|shall|should|can) not be used (?:to|in|for)\b"
    r"|\bneither the names?(?: (?:of|the|nor|and|or))*\b"
    r"|\bgpl compatible\b|\bcompatible with (?:the )?(?:gnu )?(?:general public license|gpl)\b"
    r"|\ball rights(?: are)? reserved\b"
    r"|\b(?:no|without(?: any)?) (?:express or implied )?(?:warranty|warranties|representations?)\b"
    r"|\bnot (?:be )?(?:liable|responsible)\b"
)


def of_text(text: str) -> str:
    """The SPDX expression for the text of a licence; '' if it contains no known one.

    Known texts decide (`license_texts`), not their titles. What is left of the text after the licences that it contains
    may name another licence, which then applies as well, or speak of conditions: then UNKNOWN_TERMS is added, which no
    list of allowed licences contains.
    """
    texts = license_texts.known()
    words = license_texts.words_of(text)[: license_texts.LONGEST]
    if name := texts.exact.get(license_texts.digest(words)):
        return name
    match = texts.match(words)
    if not match.names and (title := _title(text)):
        match = texts.match(words, title)
    if not match.names:
        return ""
    rest = _rest(words, match.left)
    names = {*match.names}
    if other := _title(rest):
        names.add(other)
    struck_out = (gap for gap in match.missing if gap.count(" ") < _STRUCK_OUT and _PERMISSION.search(gap))
    return _all_of(names, bool(_CONDITION.search(rest)) or any(struck_out))


def _rest(words: Sequence[str], left: np.ndarray) -> str:
    """What licences leave of a text that could matter; '|' stands where something between was theirs or harmless."""
    left = left.copy()
    joined, ends = " ".join(words), np.cumsum([len(word) + 1 for word in words])
    for phrase in _HARMLESS.finditer(joined):
        left[np.searchsorted(ends, phrase.start(), "right") : np.searchsorted(ends, phrase.end() - 1, "right") + 1] = (
            False
        )
    parts = [word if here else "|" for word, here in zip(words, left)]
    return re.sub(r"\|(?: \|)+", "|", " ".join(parts))


def _title(text: str, before: re.Pattern[str] | None = None) -> str:
    """The first licence whose title a text contains, or ''; right after something that matches `before`, if given."""
    words = _BETWEEN_WORDS.sub(" ", text.lower())
    best, first = "", len(words)
    for name, phrase, others in _TITLES:
        at = words.find(phrase, 0, first)
        if at >= 0 and all(words.find(other, at, at + _NEAR) >= 0 for other in others):
            if before is None or before.search(words[:at]) or phrase.startswith(("under", "governed by")):
                best, first = name, at
    return best


# --- Heads of source files --------------------------------------------------------------------------------------------

_SPEAKS_OF_LICENCES = re.compile(r"(?i)licen[sc]e|permission|redistribution|\bgpl|general public")
_GRANTED = re.compile(
    r"(?:\bunder|\bsubject to|\bgoverned by|\blicen[sc]e[ds]?:?)"
    r"(?: (?:the|a|an|of|terms|conditions|version|either|is))* ?$"
)
_GRANTED_NAME = re.compile(
    r"(?i)(?:\b(?:licen[sc]ed|released|distributed|published|available|code|it|file|this|program|software)[\s*#/;]+under"
    r"|\bunder[\s*#/;]+(?:the[\s*#/;]+)?terms[\s*#/;]+of|\blicen[sc]e\b\"?\s*(?::|=|is\b))"
    r"[\s*#/;]*(?:(?:the|a|an)[\s*#/;]+)?([A-Za-z][A-Za-z0-9.+-]*(?:[ -][A-Za-z0-9.+-]+){0,4})"
)
# In the head of a file, prose about its code stands beside the notice: fewer words are suspicious than in a licence.
_FURTHER_CONDITION = re.compile(
    r"\b(?:[al]?gpl(?:v?\d)?|gnu|noncommerc\w+|commercial use|commons clause|proprietary|confidential|prohibited|"
    r"not be (?:used|copied|distributed|sold|redistributed))\b"
)


def of_notice(head: str) -> str:
    """The licence that the opening comment of a source file states, by an SPDX tag or in words; '' if it states none.

    A licence that is only mentioned ("compatible with the GNU GPL") is not stated.
    """
    if tag := _SPDX_TAG.search(head):
        return tag[1].strip(" -")
    found = {name for block in comments.blocks(head) if _SPEAKS_OF_LICENCES.search(block) for name in _noticed(block)}
    return _all_of(found - {UNKNOWN_TERMS}, UNKNOWN_TERMS in found)


@functools.lru_cache(maxsize=4096)
def _noticed(comment: str) -> frozenset[str]:
    """The licences that a comment states. The files of a project often begin with the same one."""
    words = license_texts.words_of(comment)
    texts = license_texts.known()
    match = texts.match(words)
    if not match.names and (title := _title(comment, _GRANTED)):
        match = texts.match(words, title)
    rest = _rest(words, match.left)
    names = {*match.names}
    if (other := _title(rest, _GRANTED)) or (not names and (other := _spoken(comment))):
        names.add(other)
    return frozenset(names | ({UNKNOWN_TERMS} if match.names and _FURTHER_CONDITION.search(rest) else set()))


def _all_of(names: Iterable[str], and_unknown_terms: bool) -> str:
    return " AND ".join([*sorted(names), *([UNKNOWN_TERMS] if and_unknown_terms else [])])


def _spoken(comment: str) -> str:
    """The licence of 'Licensed under GPLv3', 'License: BSD 3-Clause' and the like, or ''."""
    for found in _GRANTED_NAME.finditer(comment):
        words = found[1].split(" ")
        for length in range(len(words), 0, -1):
            if name := of_name(" ".join(words[:length]).rstrip(".,;")):
                return name
    return ""


# --- Names and expressions --------------------------------------------------------------------------------------------

KNOWN = frozenset((*PERMISSIVE, *(name for name, _, _ in _TITLES), UNKNOWN_TERMS))
_BY_LOWER_NAME = {name.lower(): name for name in KNOWN}
_WORDS_OF_NO_WEIGHT = re.compile(
    r"\b(?:(?:the|licen[sc]ed?|software|public|version|clause)\b|v(?=\.?[ \d]))|[^a-z0-9.]+"
)
_CREATIVE_COMMONS = re.compile(r"creativecommons\.org/(?:licenses/([a-z-]+)|publicdomain/(zero|mark))/(\d\.\d)")
_SPOKEN_NAMES = {
    "MIT": "mit, expat, mit x11",
    "BSD-3-Clause": "bsd 3, 3 bsd, new bsd, modified bsd, revised bsd, bsd new, three bsd, bsd three",
    "BSD-2-Clause": "bsd 2, 2 bsd, simplified bsd, freebsd, two bsd",
    "LicenseRef-BSD": "bsd, bsd style, bsd derived",
    "Apache-2.0": "apache, apache 2, apache 2.0, apache2, apache2.0, asl 2.0",
    "ISC": "isc",
    "PSF-2.0": "python foundation, psf, psf 2, psfl",
    "MPL-2.0": "mozilla 2.0, mpl 2.0, mpl2, mpl 2",
    "Unlicense": "unlicense",
    "Zlib": "zlib, zlib libpng",
    "CC0-1.0": "cc0, cc0 1.0, cc0 1.0 universal",
    "GPL-3.0": "gpl 3, gplv3, gpl3, gnu general 3, gnu gpl 3, gnu gplv3, gnu general or later",
    "GPL-2.0": "gpl 2, gplv2, gnu general 2, gnu gpl 2",
    "GPL-1.0": "gpl, gnu gpl, gnu general",
    "LGPL-3.0": "lgpl 3, lgplv3, gnu lesser general 3",
    "LGPL-2.1": "lgpl 2.1, lgplv2.1, gnu lesser general 2.1",
    "LGPL-2.0": "lgpl, gnu lgpl, gnu lesser general 2, gnu lesser general, gnu library or lesser general",
    "AGPL-3.0": "agpl, agpl 3, agplv3, gnu affero general 3",
}
_BY_SPOKEN_NAME = {spoken: name for name, all_of_it in _SPOKEN_NAMES.items() for spoken in all_of_it.split(", ")}


def of_name(name: str) -> str:
    """The SPDX name for what people write in a field of the licence ('BSD 3-Clause License', 'Apache 2.0'), or ''."""
    if name.strip().lower() in _BY_LOWER_NAME:
        return _BY_LOWER_NAME[name.strip().lower()]
    words = " ".join(_WORDS_OF_NO_WEIGHT.sub(" ", re.sub(r"\([^()]*\)", "", name.lower())).split())
    return _BY_SPOKEN_NAME.get(words, "")


def of_address(address: str) -> str:
    """Creative Commons' addresses: 'http://creativecommons.org/licenses/by/4.0/' → 'CC-BY-4.0'; '' for others."""
    found = _CREATIVE_COMMONS.search(address.lower())
    if not found:
        return ""
    if found[2]:
        return f"CC0-{found[3]}" if found[2] == "zero" else "LicenseRef-PublicDomain"
    return f"CC-{found[1].upper()}-{found[3]}"


def of_metadata(metadata: str) -> str:
    """The licence of an installed Python package, by its METADATA; several classifiers all apply."""
    fields = email.parser.HeaderParser().parsestr(metadata)
    if expression := fields.get("License-Expression", "").strip():
        return expression
    stated = fields.get("License", "").strip()
    if name := of_name(stated) or of_expression(stated) or of_text(stated):
        return name
    return of_classifiers(map(str, fields.get_all("Classifier", [])))


def of_classifiers(classifiers: Iterable[str]) -> str:
    """The licences of 'License :: OSI Approved :: MIT License' and the like, which all apply; '' if one is unknown."""
    names = [of_name(line.rpartition("::")[2]) for line in map(str.strip, classifiers) if line.startswith("License ::")]
    return " AND ".join(sorted(set(names))) if names and all(names) else ""


def of_expression(text: str) -> str:
    """`text` if it is an SPDX expression of known names, else ''."""
    return text if len(text) <= 200 and is_allowed(text, KNOWN) and is_allowed(f"({text})", KNOWN) else ""


@functools.lru_cache(maxsize=4096)
def is_allowed(expression: str, names: tuple[str, ...] | frozenset[str]) -> bool:
    """Whether an SPDX expression can be met by licences of these names alone.

    'A OR B' needs one of them, 'A AND B' both; an exception ('WITH …') only permits more. '-only', '-or-later' and '+'
    are not part of a name. Text that is not an expression is not allowed.
    """
    tokens = re.findall(r"[()]|[^\s()]+", expression)[:200]
    allowed = {plain_name(name) for name in names}

    def either() -> bool:
        holds = both()
        while tokens and tokens[0].upper() == "OR":
            tokens.pop(0)
            holds = both() or holds
        return holds

    def both() -> bool:
        holds = one()
        while tokens and tokens[0].upper() == "AND":
            tokens.pop(0)
            holds = one() and holds
        return holds

    def one() -> bool:
        token = tokens.pop(0)
        if token == "(":
            holds = either()
            return tokens.pop(0) == ")" and holds
        if len(tokens) > 1 and tokens[0].upper() == "WITH":
            del tokens[:2]
        return plain_name(token) in allowed

    try:
        return either() and not tokens
    except IndexError:
        return False


def names_of(expression: str) -> list[str]:
    """The names of licences in an SPDX expression, plainly."""
    return [
        plain_name(word) for word in re.findall(r"[^\s()]+", expression) if word.upper() not in ("AND", "OR", "WITH")
    ]


def plain_name(name: str) -> str:
    return re.sub(r"(?:-only|-or-later|\+)$", "", name.lower())
