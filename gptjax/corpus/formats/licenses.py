"""Licences of source code: recognized in texts, notices and package metadata, as SPDX expressions.

Names are those of the SPDX licence list (spdx.org/licenses). Only what a text states is recognized; one file cannot say
whether it applies to a whole project.
"""

from __future__ import annotations

import email.parser
import functools
import re

PERMISSIVE = tuple(
    "0BSD AFL-2.1 AFL-3.0 Apache-1.1 Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause BSD-3-Clause-Clear "
    "BSD-4-Clause BSL-1.0 CC-BY-3.0 CC-BY-4.0 CC0-1.0 CNRI-Python ECL-2.0 HPND ISC LicenseRef-BSD MIT MIT-0 "
    "MIT-CMU MS-PL MulanPSL-2.0 NCSA PSF-2.0 PostgreSQL Python-2.0 UPL-1.0 Unlicense W3C WTFPL X11 ZPL-2.1 "
    "Zlib".split()
)

# --- Texts and notices ------------------------------------------------------------------------------------------------

_REDISTRIBUTION = "redistribution and use in source and binary forms"
_MIT_GRANT = "permission is hereby granted, free of charge"
_ISC_GRANT = "permission to use, copy, modify, and"
_NEAR, _FAR = 160, 4000  # the other phrases must follow within this many characters: for a title, for a text

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
_TEXTS = (
    ("NCSA", _MIT_GRANT, ("redistributions in binary form",)),
    ("X11", _MIT_GRANT, ("shall not be used in advertising or otherwise to promote",)),
    ("MIT", _MIT_GRANT, ("shall be included in all copies",)),
    ("MIT-0", _MIT_GRANT, ("without restriction",)),
    ("BSD-3-Clause-Clear", _REDISTRIBUTION, ("no express or implied licenses to any party",)),
    ("BSD-4-Clause", _REDISTRIBUTION, ("advertising materials mentioning features",)),
    ("BSD-3-Clause", _REDISTRIBUTION, ("endorse or promote products",)),
    ("BSD-2-Clause", _REDISTRIBUTION, ("redistributions in binary form",)),
    ("PostgreSQL", _ISC_GRANT, ("without a written agreement is hereby granted",)),
    ("HPND", _ISC_GRANT, ("appear in supporting documentation",)),
    ("ISC", _ISC_GRANT, ("and this permission notice appear in all copies",)),
    ("0BSD", _ISC_GRANT, ("with or without fee is hereby granted",)),
    ("Zlib", "altered source versions must be plainly marked as such", ()),
)
_BETWEEN_WORDS = re.compile(r"[\s*#/;%\"'`“”‘’>|=_]+")
_SPDX_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+() -]{2,200})")


def of_text(text: str) -> str:
    """The first licence that the text of a licence or a notice names; '' if it names no known one."""
    words = _BETWEEN_WORDS.sub(" ", text.lower())
    best, first = "", len(words)
    for table, within in ((_TITLES, _NEAR), (_TEXTS, _FAR)):
        for name, phrase, others in table:
            at = words.find(phrase, 0, first)
            if at >= 0 and all(words.find(other, at, at + within) >= 0 for other in others):
                best, first = name, at
    return best


def of_notice(head: str) -> str:
    """The licence that the first lines of a source file state, by an SPDX tag or in words; '' if they state none."""
    if tag := _SPDX_TAG.search(head):
        return tag[1].strip(" -")
    return of_text(head) if re.search(r"(?i)licen[sc]e|permission|redistribution", head) else ""


# --- Names and expressions --------------------------------------------------------------------------------------------

KNOWN = frozenset((*PERMISSIVE, *(name for name, _, _ in _TITLES + _TEXTS)))
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
    license_lines = [str(line) for line in fields.get_all("Classifier", []) if str(line).startswith("License ::")]
    names = [of_name(line.rpartition("::")[2]) for line in license_lines]
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
    allowed = {_plain_name(name) for name in names}

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
        return _plain_name(token) in allowed

    try:
        return either() and not tokens
    except IndexError:
        return False


def _plain_name(name: str) -> str:
    return re.sub(r"(?:-only|-or-later|\+)$", "", name.lower())
