"""HTML → its main text, by trafilatura or resiliparse, within limits of size, depth and time.

Barbaresi, Trafilatura: A Web Scraping Library, ACL 2021; Bevendorff et al., An Empirical Comparison of Web Content
Extraction Algorithms, SIGIR 2023 (resiliparse).
"""

from __future__ import annotations

import importlib
import logging
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from gptjax.config import ConfigError
from gptjax.corpus.sources import UNREADABLE
from gptjax.corpus.sources.limits import TimeIsUp, time_limit

EXTRACTORS = ("trafilatura", "resiliparse")
MADE_OF = {"trafilatura": ("trafilatura", "lxml"), "resiliparse": ("resiliparse",)}  # extractor → its libraries
FAVORS = ("balanced", "precision", "recall")
STRUCTURES = ("text", "markdown")

_HEAD = 4096  # characters of a page's head that are searched
_LANGUAGE = re.compile(r"<html\b[^>]{0,1000}?\slang\s*=\s*[\"']?\s*([A-Za-z]{2,3})\b", re.IGNORECASE)
_TAG = re.compile(r"<(?:(!--)|(/?)([A-Za-z][A-Za-z0-9:-]*)([^<>]*))")
# These contain no element, or end where the next one begins, so left open they add no depth.
_FLAT = frozenset(
    "area base br col embed hr img input link meta param source track wbr frame keygen bgsound "
    "a body colgroup dd dt head html li optgroup option p rp rt tbody td tfoot th thead tr".split()
)

# Their content is text, whatever it looks like; XML inside a page may close an element at once.
_TEXT_ONLY = frozenset("script style textarea title xmp noembed noframes plaintext iframe".split())
_XML = frozenset(("svg", "math"))


def check_options(options: Mapping[str, Any]) -> None:
    """Raises ConfigError if the extractor is not installed or does not have the chosen options."""
    for name, allowed in (("extractor", EXTRACTORS), ("favor", FAVORS), ("structure", STRUCTURES)):
        if options[name] not in allowed:
            raise ConfigError(f"{name} = {options[name]!r}: expected one of {', '.join(allowed)}")
    if options["structure"] == "markdown" and options["extractor"] != "trafilatura":
        raise ConfigError("structure = 'markdown': only with extractor = 'trafilatura'")
    try:
        for package in ("fastwarc", "resiliparse", "trafilatura"):
            importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(f"pages of the web need pip install 'gptjax[corpus]' ({error})") from None


def page_text(html: str, options: Mapping[str, Any], skipped: Counter[str]) -> str | None:
    """The main text of a page; None if it has none or exceeds a limit, which is counted.

    Args:
      options: extractor, favor, structure, comments and limits.PAGES.
    """
    if len(html) > options["max_html_bytes"]:
        skipped[f"page of more than {options['max_html_bytes']:,} bytes"] += 1
        return None
    if depth(html, options["max_html_depth"]) > options["max_html_depth"]:
        skipped[f"page more than {options['max_html_depth']} elements deep"] += 1
        return None
    extract = _resiliparse if options["extractor"] == "resiliparse" else _trafilatura
    try:
        with time_limit(options["max_page_seconds"]):
            text = extract(html, options)
    except TimeIsUp:
        skipped[f"{UNREADABLE}page of more than {options['max_page_seconds']:g} seconds"] += 1
        return None
    except ImportError:
        raise
    except Exception as error:  # whatever a library raises counts as an unreadable page
        skipped[f"{UNREADABLE}page without extraction ({type(error).__name__})"] += 1
        return None
    # Entities may name a lone surrogate, or no character at all.
    text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").replace("\0", "").strip()
    if not text:
        skipped["page without text"] += 1
        return None
    return text


def language_of(html: str) -> str:
    """The language in <html lang=…>: 'en' for en-US."""
    found = _LANGUAGE.search(html, 0, _HEAD)
    return found[1].lower() if found else ""


def depth(html: str, enough: int) -> int:
    """The depth of nested elements, judged by tags; counting stops above `enough`.

    Parsers recurse, so the depth must be known before they begin. As in a parser, the end of an element also ends the
    ones inside it that were left open, and the end of one that is not open is nothing.
    """
    open_elements: list[str] = []
    counts: Counter[str] = Counter()
    deepest = place = 0
    never: set[str] = set()  # ends that do not occur any more
    while found := _TAG.search(html, place):
        comment, slash, name, attributes = found.groups()
        place = found.end()
        if comment:
            place = _after("-->", html, place, never)
            continue
        name = name.lower()
        if name in _FLAT:
            continue
        if slash:
            if counts[name]:
                while (ended := open_elements.pop()) != name:
                    counts[ended] -= 1
                counts[name] -= 1
        elif name in _TEXT_ONLY and not counts["svg"]:
            place = _after(f"</{name}", html, place, never)
        elif not (attributes.endswith("/") and (counts["svg"] or counts["math"] or name in _XML or "-" in name)):
            open_elements.append(name)
            counts[name] += 1
            deepest = max(deepest, len(open_elements))
            if deepest > enough:
                break
    return deepest


def _after(end: str, html: str, place: int, never: set[str]) -> int:
    """The place after the next `end`, in small or capital letters; `place` if there is none."""
    if end in never:
        return place
    found = re.compile(re.escape(end), re.IGNORECASE).search(html, place)
    if found is None:
        never.add(end)
    return found.end() if found else place


def _trafilatura(html: str, options: Mapping[str, Any]) -> str:
    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it reports every page that has no text
    text = trafilatura.extract(
        html,
        favor_precision=options["favor"] == "precision",
        favor_recall=options["favor"] == "recall",
        include_comments=options["comments"],
        output_format="markdown" if options["structure"] == "markdown" else "txt",
        include_formatting=options["structure"] == "markdown",
    )
    return text or ""


def _resiliparse(html: str, options: Mapping[str, Any]) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(html, main_content=True, alt_texts=False, comments=options["comments"])
