"""The text of MediaWiki's templates: of those that a list knows, and of unknown ones inside a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping


def _last(values: list[str]) -> str:
    return values[-1] if values else ""


def _first(values: list[str]) -> str:
    return values[0] if values else ""


def _measure(values: list[str]) -> str:
    """{{convert|5|km|mi}}, {{convert|5|to|10|km}}."""
    if len(values) > 3 and values[1] in ("to", "-", "–", "and", "or", "by", "x", "×"):
        between = values[1] if values[1] in "-–" else f" {values[1]} "
        return f"{values[0]}{between}{values[2]} {values[3]}"
    return " ".join(values[:2])


def _fraction(values: list[str]) -> str:
    return values[0] + " " * (len(values) > 2) + "/".join(values[-2:]) if len(values) > 2 else "/".join(values)


def _of_date(values: list[str]) -> str:
    """{{as of|2014|3|5}}: the month by its name."""
    if len(values) > 1 and values[1].isdigit() and 1 <= int(values[1]) <= 12:
        return " ".join([*values[2:3], _MONTHS[int(values[1]) - 1], values[0]])
    return " ".join(values)


_MONTHS = "January February March April May June July August September October November December".split()

# Templates whose text is not their first plain argument: name → text.
_TEMPLATES: dict[str, Callable[[list[str]], str]] = {
    **dict.fromkeys("lang transl transliteration nihongo2 script".split(), _last),
    **dict.fromkeys(
        "nowrap nobr nobold small big smaller larger abbr abbrlink tooltip mvar math var em strong bold italic quote "
        "blockquote cquote quotation sub sup smallcaps sc sic formatnum ship iast linktext keypress pre code kbd "
        "not_a_typo typo proper_name wikt sclass".split(),
        _first,
    ),
    **dict.fromkeys("convert cvt".split(), _measure),
    **dict.fromkeys("frac fraction sfrac".split(), _fraction),
    **dict.fromkeys("as_of asof".split(), lambda values: f"As of {_of_date(values)}".strip()),
    **dict.fromkeys("ill interlanguage_link illm link_interwiki lien".split(), _first),
    **dict.fromkeys("date date- dates unité unité/2 nombre nb".split(), " ".join),
    **dict.fromkeys("s siècle".split(), lambda values: f"{_first(values)}e siècle" if values else ""),
    **{
        prefix.lower(): lambda values, prefix=prefix: f"{prefix} {_first(values)}".strip()  # type: ignore[misc]
        for prefix in "USS HMS HMAS HMCS HMNZS RMS SS MS MV INS SMS USNS USCGC RRS".split()
    },
    **{
        sign.lower(): lambda values, sign=sign: sign + _first(values)  # type: ignore[misc]
        for sign in "US$ A$ C$ CA$ AU$ NZ$ HK$ S$ R$ € £ ¥ ₹ ₽".split()
    },
    **dict.fromkeys("usd us_dollar us_dollars".split(), lambda values: "US$" + _first(values)),
    **dict.fromkeys("gbp pound_sterling".split(), lambda values: "£" + _first(values)),
    **dict.fromkeys("eur euro".split(), lambda values: "€" + _first(values)),
    **dict.fromkeys("inr indian_rupee".split(), lambda values: "₹" + _first(values)),
    **dict.fromkeys("circa c. ca. c".split(), lambda values: f"c. {_first(values)}"),
    **dict.fromkeys("val num ntsh nts gaps".split(), lambda values: "".join(values[:1])),
    **dict.fromkeys("ndash en_dash endash".split(), lambda values: "–"),
    **dict.fromkeys("snd snds spnd spaced_ndash spaced_en_dash".split(), lambda values: " – "),
    **dict.fromkeys("mdash em_dash emdash".split(), lambda values: "—"),
    **dict.fromkeys("nbsp space spaces thinsp hair_space".split(), lambda values: " "),
    **dict.fromkeys("' apostrophe".split(), lambda values: "'"),
    **dict.fromkeys(["'s"], lambda values: "'s"),
    **dict.fromkeys("angbr angle_bracket".split(), lambda values: f"⟨{_first(values)}⟩"),
    **dict.fromkeys("mdashb mdashs".split(), lambda values: " — "),
    **dict.fromkeys("! pipe".split(), lambda values: "|"),
    **dict.fromkeys("= equals".split(), lambda values: "="),
    **dict.fromkeys("middot dot · bullet •".split(), lambda values: " · "),
    **dict.fromkeys(
        "birth_date birth_date_and_age death_date death_date_and_age start_date end_date dob".split(),
        lambda values: "-".join(values[:3]),
    ),
    "oldstyledate": lambda values: ", ".join(values[:2]),
    "nihongo": lambda values: _first(values) + (f" ({values[1]})" if values[1:2] > [""] else ""),
    "ubl": ", ".join,
    "hlist": ", ".join,
    "plainlist": _first,
}
_NAMED = re.compile(r"\s*([\w -]+?)\s*=")
# Templates that add nothing to their sentence: notes, sources, doubts, places on a map, sounds, icons.
_SILENT_TEMPLATE = re.compile(
    r"#tag.*|-|.*-stub|.*\bneeded|.*\bsource\?|.*caption|[a-z]{2}|[a-z]{2} icon|about|according to whom|age|"
    r"age in.*|anchor|ancre|api|archive.*|arxiv|audio|audio.*|better.*|bibcode|by whom|chart.*|cit(?:e|"
    r"ation|ace|ar)\b.*|clarification.*|clarify.*|cleanup.*|clear.*|cn|col-.*|columns.*|commons.*|coord.*|"
    r"copy ?edit.*|cref.*|current.*|dead.*|decrease|defaultsort|details|details of|discuss|displaytitle|"
    r"disputed.*|distinguish.*|div col.*|doi.*|down|dts|dubious.*|edit.*|efn.*|end.*|engvar.*|expand.*|"
    r"external.*|fact|failed.*|familytree.*|featured.*|file|flag ?icon.*|flagdeco|flagg|for|further|gain|"
    r"gallery|good article|google books.*|harv.*|hatnote.*|hidden.*|how|hs|icon.*|image.*|in lang|increase|"
    r"inflation.*|infobox.*|ipa.*|isbn|issn|italic ?title.*|lang-?icon|lien brisé|listen|loss|lowercase.*|"
    r"main|multiple.*|navbox.*|nbsp|note.*|notelist.*|oclc|official.*|orphan.*|other people|other places|"
    r"other uses.*|p\.?|page.*|pmc|pmid|portal.*|pp|pp-.*|pron.*|pronunciation|protected.*|qualify.*|r|"
    r"redirect.*|ref(?:n|s|le?t?|-.*)?|refbegin.*|refend.*|refimprove.*|reflist.*|respell.*|rp|réf.*|"
    r"référence.*|s-.*|says who|see ?also|sfn.*|short description|sidebar.*|sister.*|sort|sortname|source|"
    r"sources?|specify.*|start.*|steady|stub|succession.*|taxobox.*|toc.*|unreferenced.*|up|update.*|url|"
    r"use .*|vague|video|visible anchor|void|volume|wayback|weasel.*|webarchive|webcite|when|where|which|"
    r"who|whom|why|wikisource.*|wiktionary.*"
)
_UNITS = ("ft", "in", "m", "cm", "km", "mi", "kg", "lb", "st")


def is_silent(name: str) -> bool:
    """Whether a template of this name adds nothing to the text of a sentence."""
    return _SILENT_TEMPLATE.fullmatch(name.strip().lower().replace("_", " ")) is not None


def expand(content: str, inside: bool) -> str:
    """The text of a template.

    Args:
      inside: of a sentence. There, the text of a template that is not known is its first plain argument; elsewhere it
        is a box, a note or a line of links, and has none.
    """
    name, _, rest = content.partition("|")
    if ":" in name:  # {{formatnum:1234}}
        name, _, rest = content.partition(":")
    arguments = rest.split("|") if rest else []
    plain = [value.strip() for value in arguments if not _NAMED.match(value)]
    named = {found[1]: value[found.end() :].strip() for value in arguments if (found := _NAMED.match(value))}
    key = name.strip().lower().replace(" ", "_")
    plain = ([named["1"]] if named.get("1") else []) + plain
    known = _TEMPLATES.get(key)
    if known is None and key.startswith(("lang-", "langue-")):
        known = _first
    if known is not None and (plain or not named):
        text = known(plain)
        return text.replace("As of", "as of", 1) if named.get("lc") else text
    if known is None and (not inside or is_silent(name)):
        return ""
    return _unknown(name.strip(), plain, named)


def _unknown(name: str, plain: list[str], named: Mapping[str, str]) -> str:
    if text := named.get("text") or named.get("texte") or named.get("quote"):
        return text
    if measures := [f"{value} {unit}" for unit, value in named.items() if unit in _UNITS and value]:
        return " ".join(measures)  # {{height|ft=5|in=11}}
    words = [value for value in plain if re.search(r"\w", value)]
    if not words:
        return name if not plain and not named and _IS_TEXT.fullmatch(name) else ""
    if words[0][0].isdigit() and len(words) > 1:  # a measure or a date: {{unité|5|km}}, {{date|12|mars|2014}}
        return " ".join(words[:3])
    return words[0]


_IS_TEXT = re.compile(r"(?i)[ivxlcdm]+(?:er?|ème)? siècle|(?:1er|ier|ire)|av\. j\.-c\.")
