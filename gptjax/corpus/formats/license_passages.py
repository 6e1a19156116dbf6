"""What a text says besides known licences: a word of a condition, or one of the passages that change nothing.

Only whole passages are harmless, and they are listed (`license_variants.toml` and `_NAMED` below): words of conditions
outside of them always count.
"""

from __future__ import annotations

import functools
import os
import re
import tomllib
from collections.abc import Sequence

import numpy as np

VARIANTS = os.path.join(os.path.dirname(__file__), "license_variants.toml")

# Words that can add a condition to a licence or take away a permission.
CONDITION = re.compile(
    r"\b(?:licens\w*|[al]?gpl\w*|gnu|copyleft|prohibit\w*|forbid\w*|restrict\w*|conditions?|provided that|subject to|"
    r"agree\w*|must|shall|should|not|no|never|unless|except\w*|only|cannot|limited|solely|exclusively|noderiv\w+|"
    r"sharealike|(?:non)?commerc\w+|royalt\w+|sell\w*|sale|proprietary|confidential|patents?|consent|purchas\w+|prior|"
    r"neither|sold|disallow\w*|cit(?:e|es|ed|ing)|contribute|specifically|acknowledg\w+|evaluation|military|academic|"
    r"internal|educational|bundl\w+|requir\w*|terminat\w+|commons clause|"
    # The same in German, French, Spanish, Italian and Chinese.
    r"nicht\w*|nur|keine?[rsn]?|bedingung\w*|lizenz\w*|verboten|untersagt|unentgeltlich|kommerziell\w*|zustimmung|"
    r"uniquement|interdi\w+|sauf|obligatoire|solo|solamente|prohib\w+|licencia\w*|licenza|comercial\w*|"
    r"vietat\w+|soltanto|\w*[仅不禁限须商]\w*)\b"
)
_NAME = rf"(?: (?!{CONDITION.pattern})\S+)"  # a word of a name: of a condition it is none
_FREE = (
    r"(?:mit|bsd zero clause|expat|x11|x consortium|isc|bsd|apache|boost|zlib|libpng|python|psf|unlicense|wtfpl|ncsa|"
    r"historical permission notice and disclaimer|artistic|w3c|openssl|ssleay|php|curl|creative commons|"
    r"public domain|cc0|cc by|icu|unicode)"
)
# Which of the free licences it is, whose names may not be used, that a firm is limited, that nobody is liable.
_NAMED = (
    rf"(?:\b(?:this|the|all|any|it|is|are|file|code|software|program|library|project|source|under|terms|of|be|may|can|"
    rf"released|licensed|distributed|available|covered|provided|redistributed|used|modified|and|or|new|original|modified|"
    rf"revised|simplified|old|style|a|an|to|following|see|version|full|standard|permissive) )*"
    rf"\b{_FREE}(?: (?:\d[\d.]*|clause|style|like|new|modified|simplified|original|revised|or|{_FREE}))*"
    r"(?: (?:software )?licenses?(?: agreement| txt| md| file| version| name)*(?: \d[\d.]*)*)+"
    r"|^ (?:the |software |open source )*license(?: agreement| text| name)*(?= |$)"
    rf"|\b(?:spdx )?license (?:name |is |identifier )?(?:the )?(?:\d clause )?{_FREE}(?: \d\w*| clause)*(?: license)?"
    rf"|\b(?:licensed|released|distributed|available) under (?:the )?{_FREE}\b"
    rf"|\b(?:the )?names?{_NAME}{{0,24}}? (?:may|must|shall|should|can) not be used(?= (?:to|in|for)\b)"
    r"|\bneither the names?(?: (?:of|the|nor|and|or))*\b"
    r"|\b(?!(?:is|are|be|was|use|used|rights?|strictly|for|time|a|to|limited) )[a-z]\w+ limited"
    r"(?= (?:and|or|nor|not|inc|makes?|disclaims?|shall|will|be|as is|all rights|copyright|c)\b|$)"
    r"|\bgpl compatible\b|\bcompatible with (?:the )?(?:gnu )?(?:general public license|gpl)\b"
    r"|\ball rights(?: are)? reserved\b"
    r"|\b(?:no|without(?: any)?) (?:express or implied )?(?:warranty|warranties|representations?)\b"
    r"|\bnot (?:be )?(?:liable|responsible)\b"
)
_WORD_OF_A_PASSAGE = re.compile(r"[*()|\[\]]|[^\s*()|\[\]]+")


def rest(words: Sequence[str], left: np.ndarray) -> str:
    """What licences leave of a text that could matter; '|' stands where something between was theirs or harmless."""
    left = left.copy()
    joined, ends = "".join(f" {word}" for word in words), np.cumsum([len(word) + 1 for word in words])
    for phrase in _harmless().finditer(joined):
        first, last = np.searchsorted(ends, (phrase.start(), phrase.end() - 1), "right")
        left[first : last + 1] = False
    parts = [word if here else "|" for word, here in zip(words, left)]
    return re.sub(r"\|(?: \|)+", "|", " ".join(parts))


@functools.cache
def variants() -> dict:
    with open(VARIANTS, "rb") as file:
        return tomllib.load(file)


@functools.cache
def _harmless() -> re.Pattern[str]:
    lines = [line for of in variants()["passages"] for line in of["lines"].splitlines() if line]
    passages = "|".join(sorted(map(_pattern, lines), key=len, reverse=True))
    return re.compile(f"(?= )(?:{passages})|{_NAMED}")


def _pattern(passage: str) -> str:
    """The regular expression of one passage of `license_variants.toml`; each word takes the space before it."""
    spelled = {"*": rf"{_NAME}{{0,12}}?", "(": "(?:", ")": ")", "[": "(?:", "]": ")?", "|": "|"}
    parts = [spelled.get(word, " " + re.escape(word)) for word in _WORD_OF_A_PASSAGE.findall(passage)]
    return f"(?:{''.join(parts)})(?!\\S)"
