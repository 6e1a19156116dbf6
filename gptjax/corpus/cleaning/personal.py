"""Masks personal data and secrets by fixed placeholders. In doubt it masks nothing.

Numbers are checked where they can be (public addresses, IBAN and card checksums); what is made up for documentation
(example.com, 192.0.2.1) and numbers that only look similar (versions, section numbers) are not masked. Names and postal
addresses of people are not searched for: that needs a model. The placeholders are those of StarCoder (arXiv:2305.06161)
or similar.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

PLACEHOLDERS = {
    "email": "<EMAIL>",
    "ip": "<IP_ADDRESS>",
    "phone": "<PHONE>",
    "iban": "<IBAN>",
    "card": "<CARD>",
    "secret": "<KEY>",
}
KINDS = tuple(PLACEHOLDERS)


def mask(text: str, kinds: Sequence[str] = KINDS) -> tuple[str, dict[str, int]]:
    """(the text with placeholders, how many of each of `kinds` were found)."""
    counts = dict.fromkeys(kinds, 0)
    for kind, find in _FINDERS.items():
        parts, start = [], 0
        for first, end in find(text) if kind in kinds else ():
            if first >= start:
                parts += [text[start:first], PLACEHOLDERS[kind]]
                start = end
                counts[kind] += 1
        if parts:
            text = "".join([*parts, text[start:]])
    return text, counts


def _finding(patterns: Sequence[str], holds: Callable[[re.Match], bool]) -> Callable[[str], list[tuple[int, int]]]:
    """Finds the spans of matches for which `holds` is true."""
    compiled = tuple(map(re.compile, patterns))
    return lambda text: sorted(m.span() for pattern in compiled for m in pattern.finditer(text) if holds(m))


def _before(match: re.Match, characters: int) -> str:
    return match.string[max(match.start() - characters, 0) : match.start()]


# --- E-mail -----------------------------------------------------------------------------------------------------------

# Domains without people: those for documentation (RFC 2606) and machines, and what follows an @ in file names.
_NO_MAIL = frozenset(
    "example test invalid localhost local internal lan png jpg jpeg gif svg webp js css html json py so".split()
)
_DOMAIN = re.compile(r"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}([A-Za-z]{2,24}))(?![A-Za-z0-9_@-])")
_EXAMPLE = re.compile(r"(?:^|\.)example\.(?:com|org|net)$")
_LOCAL_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._%+'-]{0,62}[A-Za-z0-9_+-])?$")


def _find_emails(text: str) -> Iterator[tuple[int, int]]:
    """Searches from the @ signs, because a pattern that starts with the local part would be tried at every word."""
    for match in _DOMAIN.finditer(text):
        local = _LOCAL_PART.search(text, max(match.start() - 64, 0), match.start())
        reserved = match[2].lower() in _NO_MAIL or _EXAMPLE.search(match[1].lower())
        if local and not reserved and local[0] != "git":  # git@github.com:… names a repository
            yield local.start(), match.end()


# --- Addresses --------------------------------------------------------------------------------------------------------

# Each begins with a plain set of characters, so that `re` skips the rest fast.
_ADDRESSES = (
    r"[0-9][0-9]{0,2}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?![\w-]|\.\w)",
    r"[23][0-9a-fA-F]{3}:[0-9a-fA-F:]{1,34}[0-9a-fA-F](?![\w:])",  # 2000::/3, the assigned ones; not std::abs
)
_VERSION = re.compile(
    r"(?i)(?:\b(?:v|ver|version|release|build|firmware|rev|section|sec|chapter|fig|table)[\s.:=]*|[=<>~]=)$"
)


def _is_public_address(match: re.Match) -> bool:
    before = _before(match, 12)
    if before and (before[-1].isalnum() or before[-1] in "._-:§" or _VERSION.search(before)):
        return False
    if before[-2:-1] not in ("", "/") and before[-1] == "/":  # //1.2.3.4 is a host, Chrome/1.2.3.4 a version
        return False
    if len(match[0]) == 7:  # 1.2.3.4 is a section or a version far more often than an address
        return False
    try:
        return ipaddress.ip_address(match[0]).is_global
    except ValueError:
        return False


# --- Numbers ----------------------------------------------------------------------------------------------------------

# With the country's code, or as written in North America.
_PHONES = (
    r"[+][0-9]{1,3}[ .-]?(?:\([0-9]{1,4}\)[ .-]?)?[0-9]{1,4}(?:[ .-]?[0-9]{2,4}){1,4}(?!\w)",
    r"[(0-9](?:(?<=\()[0-9]{3}\) ?|[0-9]{2}[ .-])[0-9]{3}[.-][0-9]{4}(?![\w.-])",
)
_IBAN = r"[A-Z][A-Z][0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"
_CARD = r"[2-6][0-9]{3}(?:([ -]?)[0-9]{4}\1[0-9]{4}\1[0-9]{4}|([ -]?)[0-9]{6}\2[0-9]{5})(?![\w.-])"
_TWO_DIGITS = (34, 35, 37, 60, 65)  # American Express, JCB, Discover; 4: Visa, 51 to 55 and 2221 to 2720: Mastercard
# Lengths by country (ISO 13616), without which every hundredth code of this shape would pass the checksum.
_IBAN_LENGTHS = {
    15: "NO",
    16: "BE",
    18: "DK FI FO GL NL",
    19: "MK SI",
    20: "AT BA EE KZ LT LU XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "PT",
    26: "IS TR",
    27: "BI FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB PL",
    29: "BR EG PS QA UA",
    30: "JO KW MU",
    31: "MT SC",
    32: "LC",
}
_IBAN_LENGTH_OF = {country: length for length, countries in _IBAN_LENGTHS.items() for country in countries.split()}


def _stands_alone(match: re.Match) -> bool:
    before = _before(match, 1)
    return not (before.isalnum() or before in {"_", "-", ".", "/", "=", "+"})


def _is_phone(match: re.Match) -> bool:
    return _stands_alone(match) and 10 <= sum(map(str.isdigit, match[0])) <= 15  # ITU E.164


def _is_iban(match: re.Match) -> bool:
    code = match[0].replace(" ", "")
    if not _stands_alone(match) or _IBAN_LENGTH_OF.get(code[:2]) != len(code):
        return False
    return int("".join(str(int(character, 36)) for character in code[4:] + code[:4])) % 97 == 1  # ISO 7064


def _is_card(match: re.Match) -> bool:
    digits = [int(character) for character in match[0] if character.isdigit()]
    first = int(match[0][:4])
    issued = first // 1000 == 4 or 5100 <= first < 5600 or 2221 <= first <= 2720 or first // 100 in _TWO_DIGITS
    if not (issued and _stands_alone(match)):
        return False
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0  # ISO/IEC 7812-1 (Luhn)


# --- Secrets ----------------------------------------------------------------------------------------------------------

# (how it begins, its pattern), by the issuers' own formats.
_SECRETS = (
    ("AKIA", r"\bAKIA[0-9A-Z]{16}\b"),
    ("ASIA", r"\bASIA[0-9A-Z]{16}\b"),
    *((f"gh{kind}_", rf"\bgh{kind}_[A-Za-z0-9]{{36,255}}\b") for kind in "pousr"),
    ("github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{22,255}\b"),
    ("glpat-", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("xox", r"\bxox[abeprs]-[A-Za-z0-9-]{10,}"),
    ("AIza", r"\bAIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])"),
    ("sk_live_", r"\bsk_live_[0-9a-zA-Z]{20,}"),
    ("rk_live_", r"\brk_live_[0-9a-zA-Z]{20,}"),
    ("sk-", r"\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{40,}"),
    ("hf_", r"\bhf_[A-Za-z0-9]{34}\b"),
    ("npm_", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("eyJ", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    (
        "-----BEGIN ",
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----(?s:.{32,8192}?)-----END (?:[A-Z]+ )*PRIVATE KEY-----",
    ),
)
_COMPILED_SECRETS = tuple((sign, re.compile(pattern)) for sign, pattern in _SECRETS)


def _find_secrets(text: str) -> list[tuple[int, int]]:
    """Tries a pattern only where its beginning occurs: `str.find` is far faster than a pattern that begins with \\b."""
    found = []
    for sign, pattern in _COMPILED_SECRETS:
        place = text.find(sign)
        while place >= 0:
            match = pattern.match(text, place)
            if match:
                found.append(match.span())
            place = text.find(sign, match.end() if match else place + 1)
    return sorted(found)


# In this order: a kind whose matches may contain those of another kind comes before it.
_FINDERS: dict[str, Callable[[str], Iterable[tuple[int, int]]]] = {
    "secret": _find_secrets,
    "email": _find_emails,
    "ip": _finding(_ADDRESSES, _is_public_address),
    "iban": _finding([_IBAN], _is_iban),
    "card": _finding([_CARD], _is_card),
    "phone": _finding(_PHONES, _is_phone),
}
