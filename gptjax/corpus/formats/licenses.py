"""Licences of source code: recognized in texts, notices and package metadata, as SPDX expressions.

Names are those of the SPDX licence list (spdx.org/licenses). Only what a text states is recognized; one file cannot say
whether it applies to a whole project.
"""

from __future__ import annotations

import email.parser
import functools
import re
from collections.abc import Iterable

from gptjax.corpus.formats import comments, license_names, license_passages, license_texts

# --- Texts and notices ------------------------------------------------------------------------------------------------

_SPDX_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+() -]{2,200})")
# What a licence's text must not leave out: a permission. In longer passages it is a matter of form.
_PERMISSION = re.compile(
    r"\b(?:use|copy|modify|publish|distribute|sublicense|sell|without|any purpose|permitted|granted|"
    r"associated documentation)\b"
)
_STRUCK_OUT = 12  # words
# A paragraph at the beginning that is nothing but a title, such as 'Acme Open Source License Agreement, Version 1.0'.
_OWN_TITLE = re.compile(
    r"(?i)\A[\W_]*(?P<title>(?:[a-z(][\w.')-]*[ \t]+){1,7}licen[sc]e(?:[ \t]+agreement)?"
    r"(?:,?[ \t]*v(?:ersion)?[ \t]*[\d.]+)?)"
    r"[ \t]*:?[ \t]*\n[ \t]*(?:[-=*#]+[ \t]*)?\n"
)
_NO_TITLE = re.compile(r"\b(?:you|we|us|need|obtain|get|buy|pay|is|are|under|without|by|see)\b")


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
    words = license_texts.words_of(_without_own_title(text))[: license_texts.LONGEST]
    match = texts.match(words)
    if not match.names and (title := license_names.of_title(text)):
        match = texts.match(words, title)
    if not match.names:
        return ""
    rest = license_passages.rest(words, match.left)
    names = {*match.names}
    if other := license_names.of_title(rest):
        names.add(other)
    struck_out = (gap for gap in match.missing if gap.count(" ") < _STRUCK_OUT and _PERMISSION.search(gap))
    return _all_of(names, bool(license_passages.CONDITION.search(rest)) or any(struck_out))


def _without_own_title(text: str) -> str:
    if found := _OWN_TITLE.match(text):
        title = found["title"].lower()
        unknown = not license_names.of_title(title) and not _NO_TITLE.search(title)
        if unknown and not license_passages.CONDITION.search(re.sub(r"licen[sc]e(\s+agreement)?", "", title)):
            return text[found.end() :]
    return text


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
    return _all_of(found - {license_names.UNKNOWN_TERMS}, license_names.UNKNOWN_TERMS in found)


@functools.lru_cache(maxsize=4096)
def _noticed(comment: str) -> frozenset[str]:
    """The licences that a comment states. The files of a project often begin with the same one."""
    words = license_texts.words_of(comment)
    texts = license_texts.known()
    match = texts.match(words)
    if not match.names and (title := license_names.of_title(comment, _GRANTED)):
        match = texts.match(words, title)
    rest = license_passages.rest(words, match.left)
    names = {*match.names}
    if (other := license_names.of_title(rest, _GRANTED)) or (not names and (other := _spoken(comment))):
        names.add(other)
    return frozenset(
        names | ({license_names.UNKNOWN_TERMS} if match.names and _FURTHER_CONDITION.search(rest) else set())
    )


def _all_of(names: Iterable[str], and_unknown_terms: bool) -> str:
    return " AND ".join([*sorted(names), *([license_names.UNKNOWN_TERMS] if and_unknown_terms else [])])


def _spoken(comment: str) -> str:
    """The licence of 'Licensed under GPLv3', 'License: BSD 3-Clause' and the like, or ''."""
    for found in _GRANTED_NAME.finditer(comment):
        words = found[1].split(" ")
        for length in range(len(words), 0, -1):
            if name := license_names.of_name(" ".join(words[:length]).rstrip(".,;")):
                return name
    return ""


# --- Metadata of packages ---------------------------------------------------------------------------------------------


def of_metadata(metadata: str) -> str:
    """The licence of an installed Python package, by its METADATA; several classifiers all apply."""
    fields = email.parser.HeaderParser().parsestr(metadata)
    if expression := fields.get("License-Expression", "").strip():
        return expression
    stated = fields.get("License", "").strip()
    if name := license_names.of_name(stated) or license_names.of_expression(stated) or of_text(stated):
        return name
    return license_names.of_classifiers(map(str, fields.get_all("Classifier", [])))
