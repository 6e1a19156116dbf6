"""Presentation MathML → TeX, so that roots, fractions, indices and limits are not lost: n^{2}, not n 2."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

_SIGNS = {
    **{"−": "-", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "∞": r"\infty ", "{": r"\{", "}": r"\}", "%": r"\%"},
    **dict.fromkeys("\u2061\u2062\u2063\u2064\u200b", ""),  # invisible: application, product, comma, sum
    **dict.fromkeys("\u2002\u2003\u2009\u200a\xa0", " "),
}
_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan log ln lg exp lim max min sup inf det dim ker "
    "gcd arg Pr limsup liminf".split()
)
_OVER = {
    **dict.fromkeys("¯‾ˉ_―", "bar"),
    **dict.fromkeys("^ˆ̂", "hat"),
    **dict.fromkeys("~˜∼", "tilde"),
    **dict.fromkeys("→⃗⇀", "vec"),
    **{"˙": "dot", "¨": "ddot", "︷": "overbrace", "⏞": "overbrace"},
}
_VARIANTS = {"bold": "mathbf", "double-struck": "mathbb", "script": "mathcal", "fraktur": "mathfrak"}
_LIMITS = re.compile(r"\\(?:sum|prod|int|lim|max|min|sup|inf)\b")
_SPACED = frozenset("= < > ≤ ≥ ≠ ≈ ∼ ≡ ∈ ∉ ⊂ ⊆ → ← ↔ ⇒ ⇔ ∝ ± × ∀ ∃ ∧ ∨ ∪ ∩ | ≪ ≫".split())


def tex(element: Element) -> str:
    """The TeX of a <math> element."""
    return " ".join(_tex(element).split())


def _tex(element: Element) -> str:
    tag = element.tag
    if tag in ("mi", "mn", "mo", "mtext", "ms"):
        return _token(element)
    parts = [_tex(child) for child in element if child.tag not in ("annotation", "annotation-xml", "none")]
    if tag in _SCRIPTED and len(parts) == len(_SCRIPTED[tag]):
        return _base(parts[0]) + _scripts(_SCRIPTED[tag][1:], parts[1:])
    if tag == "mfrac" and len(parts) == 2:
        return rf"\frac{{{parts[0].strip()}}}{{{parts[1].strip()}}}"
    if tag == "msqrt":
        return rf"\sqrt{{{''.join(parts).strip()}}}"
    if tag == "mroot" and len(parts) == 2:
        return rf"\sqrt[{parts[1].strip()}]{{{parts[0].strip()}}}"
    if tag in ("mover", "munder") and len(parts) == 2:
        return _over_or_under(tag, parts[0].strip(), parts[1].strip())
    if tag == "munderover" and len(parts) == 3:
        return parts[0].strip() + _scripts("_^", parts[1:])
    if tag == "mfenced":
        separator = f"{(element.get('separators') or ',')[:1]} "
        return f"{element.get('open', '(')}{separator.join(part.strip() for part in parts)}{element.get('close', ')')}"
    if tag in ("mtr", "mlabeledtr"):
        return " & ".join(part.strip() for part in parts)
    if tag == "mtable":
        rows = r" \\ ".join(parts)
        return rf"\begin{{matrix}} {rows} \end{{matrix}}" if len(parts) > 1 else rows.replace(" & ", " ")
    if tag == "mphantom":
        return ""
    return " " if tag == "mspace" else "".join(parts)


_SCRIPTED = {"msub": "._", "msup": ".^", "msubsup": "._^"}  # one sign for each child


def _scripts(signs: str, parts: list[str]) -> str:
    return "".join(f"{sign}{{{part.strip()}}}" for sign, part in zip(signs, parts) if part.strip())


def _token(element: Element) -> str:
    text = " ".join("".join(element.itertext()).split())
    if element.tag in ("mtext", "ms"):
        return rf"\text{{{text}}}" if text else " "
    if element.tag == "mi" and len(text) > 1 and text.isalpha():
        return f"\\{text} " if text in _FUNCTIONS else rf"\mathrm{{{text}}}"
    shown = "".join(_SIGNS.get(sign, sign) for sign in text)
    if element.tag == "mo":
        return f" {shown} " if text in _SPACED else f"{shown} " if text in (",", ";") else shown
    command = next((name for variant, name in _VARIANTS.items() if variant in element.get("mathvariant", "")), "")
    return rf"\{command}{{{shown}}}" if command else shown


def _base(part: str) -> str:
    """What an index is attached to; more than one sign needs braces."""
    part = part.strip()
    return part if len(part) <= 1 or part.startswith("\\") or part.isdigit() else f"{{{part}}}"


def _over_or_under(tag: str, base: str, mark: str) -> str:
    if tag == "mover" and mark in _OVER:
        return rf"\{_OVER[mark]}{{{base}}}"
    if _LIMITS.match(base):
        return f"{base}{'^' if tag == 'mover' else '_'}{{{mark}}}"
    return rf"\{'overset' if tag == 'mover' else 'underset'}{{{mark}}}{{{base}}}"
