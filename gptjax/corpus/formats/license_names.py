"""Names of licences: those of the SPDX licence list (spdx.org/licenses), in titles, fields and expressions."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

PERMISSIVE = tuple(
    "0BSD AFL-2.1 AFL-3.0 Apache-1.1 Apache-2.0 Artistic-2.0 BSD-1-Clause BSD-2-Clause BSD-2-Clause-FreeBSD "
    "BSD-2-Clause-Patent BSD-2-Clause-Views BSD-3-Clause BSD-3-Clause-Clear BSD-3-Clause-HP BSD-3-Clause-Sun "
    "BSD-3-Clause-Tso BSD-3-Clause-flex BSD-4-Clause BSD-4-Clause-Shortened BSD-4-Clause-UC BSD-4.3RENO BSD-4.3TAHOE "
    "BSL-1.0 BlueOak-1.0.0 CC-BY-3.0 CC-BY-4.0 CC0-1.0 CNRI-Python CNRI-Python-GPL-Compatible Caldera-no-preamble "
    "ECL-2.0 FTL HPND HPND-sell-variant ICU IJG IJG-short ISC LicenseRef-BSD LicenseRef-PublicDomain MIT MIT-0 "
    "MIT-CMU MIT-Modern-Variant MS-PL MulanPSL-2.0 NCSA NRL NTP OLDAP-2.8 OpenSSL PHP-3.01 PSF-2.0 PostgreSQL "
    "Python-2.0 Python-2.0.1 TCL UPL-1.0 Unicode-3.0 Unicode-DFS-2016 Unlicense W3C W3C-20150513 WTFPL X11 "
    "X11-swapped ZPL-2.1 Zlib bzip2-1.0.6 curl libpng-2.0".split()
)
# Beside the licences that a text contains, it says more that was not recognized.
UNKNOWN_TERMS = "LicenseRef-UnknownTerms"


# --- Titles -----------------------------------------------------------------------------------------------------------

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


def of_title(text: str, before: re.Pattern[str] | None = None) -> str:
    """The first licence whose title a text contains, or ''; right after something that matches `before`, if given."""
    words = _BETWEEN_WORDS.sub(" ", text.lower())
    best, first = "", len(words)
    for name, phrase, others in _TITLES:
        at = words.find(phrase, 0, first)
        if at >= 0 and all(words.find(other, at, at + _NEAR) >= 0 for other in others):
            if before is None or before.search(words[:at]) or phrase.startswith(("under", "governed by")):
                best, first = name, at
    return best


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
