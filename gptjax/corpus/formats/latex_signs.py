"""What LaTeX's commands for signs and accents print, and raised and lowered figures."""

from __future__ import annotations

import re
import unicodedata

SIGNS = {
    **{sign: sign for sign in "%$&#_{}"},
    **dict.fromkeys([" ", ",", ";", ":", "\n", *"quad qquad enspace thinspace space nobreakspace hfill".split()], " "),
    **dict.fromkeys(["!", "/", "-", "@", ">", "<", "protect", "relax", "noindent", "indent"], ""),
    **dict.fromkeys(["\\", "newline", "linebreak", "cr", "tabularnewline"], "\n"),
    **dict.fromkeys("par bigskip medskip smallskip maketitle newpage clearpage hrule hline".split(), "\n\n"),
    **{"ldots": "…", "dots": "…", "textellipsis": "…", "textbullet": "•", "dag": "†", "ddag": "‡"},
    **{"LaTeX": "LaTeX", "TeX": "TeX", "BibTeX": "BibTeX", "LaTeXe": "LaTeX2e", "ie": "i.e.", "eg": "e.g."},
    **{"ss": "ß", "o": "ø", "O": "Ø", "l": "ł", "L": "Ł", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "aa": "å"},
    **{"AA": "Å", "i": "ı", "j": "ȷ", "S": "§", "P": "¶", "copyright": "©", "pounds": "£", "euro": "€"},
    **{"textregistered": "®", "texttrademark": "™", "textcopyright": "©", "textunderscore": "_", "slash": "/"},
    **{"textquotesingle": "'", "textquotedbl": '"', "textquoteleft": "‘", "textquoteright": "’", "lq": "‘", "rq": "’"},
    **{"textquotedblleft": "“", "textquotedblright": "”", "quotedblbase": "„", "quotesinglbase": "‚", "glqq": "„"},
    **{"grqq": "“", "guillemotleft": "«", "guillemotright": "»", "og": "« ", "fg": " »", "textdollar": "$"},
    **{"textpercent": "%", "textsection": "§", "textparagraph": "¶", "textmu": "µ", "textpm": "±", "texttimes": "×"},
    **{"textdiv": "÷", "textminus": "−", "textrightarrow": "→", "textleftarrow": "←", "textperiodcentered": "·"},
    **{"textonehalf": "½", "textonequarter": "¼", "textasciigrave": "`", "textbraceleft": "{", "textbraceright": "}"},
    **{"texteuro": "€", "textsterling": "£", "textdagger": "†", "th": "þ", "dh": "ð"},
    **{"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textbar": "|", "textless": "<"},
    **{"textgreater": ">", "textendash": "–", "textemdash": "—", "textdegree": "°", "degree": "°", "etal": "et al."},
}  # fmt: skip
# Signs that belong to what follows them, so that the space after the command only ends its name.
BEFORE_WORDS = frozenset(
    "pounds textsterling textdollar textasciitilde textbackslash textless textgreater lq textquoteleft glqq og "
    "textquotedblleft quotedblbase quotesinglbase guillemotleft".split()
)
ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304", ".": "\u0307",
            "c": "\u0327", "v": "\u030c", "u": "\u0306", "H": "\u030b", "k": "\u0328", "r": "\u030a", "d": "\u0323",
            "b": "\u0331"}  # fmt: skip


PUNCTUATION = {"--": "–", "---": "—", "``": "“", "''": "”", '"': '"', "`": "‘"}
ACCENTED = re.compile(r"\s*(?:\{\s*(\\[ij]|[A-Za-z])\s*\}|(\\[ij](?![A-Za-z])(?:\{\}| )?|[A-Za-z]))")
_ACCENT_COMMAND = re.compile(r"\\(['`^\"~=.]|[cvuHkrdb](?![A-Za-z]))")
_RAISED = str.maketrans("0123456789+-−–=()", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁻⁼⁽⁾")
_LOWERED = str.maketrans("0123456789+-−–=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₋₌₍₎")
_SCRIPT = re.compile(r"[0-9+\-−–=()]+")


def accent(mark: str, found: re.Match[str]) -> str:
    """The letter that ACCENTED found, with a combining mark."""
    return unicodedata.normalize("NFC", (found[1] or found[2]).strip("\\{} ") + mark)


def with_accents(source: str) -> str:
    """`source` with its accents over their letters, and otherwise unchanged: F\\"arber → Färber."""
    kept, place = [], 0
    while command := _ACCENT_COMMAND.search(source, place):
        letter = ACCENTED.match(source, command.end())
        kept.append(source[place : command.start()] + (accent(ACCENTS[command[1]], letter) if letter else ""))
        place = letter.end() if letter else command.end()
    return "".join((*kept, source[place:]))


def raised(text: str) -> str:
    """Figures and signs as superscripts, since 10⁴ is not 104; anything else is unchanged."""
    return text.translate(_RAISED) if _SCRIPT.fullmatch(text) else text


def lowered(text: str) -> str:
    """Figures and signs as subscripts: CO₂; anything else is unchanged."""
    return text.translate(_LOWERED) if _SCRIPT.fullmatch(text) else text
