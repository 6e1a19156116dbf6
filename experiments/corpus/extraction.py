"""Measures extractors of text from HTML: tokens kept and left out on pages with known text, and MB/s on archives.

  python experiments/corpus/extraction.py [ARCHIVES] [--repeats=3] [--annotated=FOLDER]

ARCHIVES: a folder of .warc files; without it only quality is measured. The known pages are those of
tests/corpus/sources/pages and of known_pages.py. On these, and on the pages of FOLDER, trafilatura is also called
directly, with its own settings. One process; pages are decoded and in memory. Only extraction is timed, and,
separately, splitting archives into pages.

FOLDER: the folder `tests` of trafilatura's repository (github.com/adbar/trafilatura): evaldata.json names phrases
that are in the main text of each page in cache/ or eval/, and phrases that are not.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import platform
import re
import statistics
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import trafilatura
from known_pages import known_pages

from gptjax.corpus.formats import encoding
from gptjax.corpus.sources import web
from gptjax.corpus.sources.opening import find_files, open_stream
from gptjax.corpus.sources.pages import page_text
from gptjax.corpus.sources.warc import captures

KNOWN = Path(__file__).parents[2] / "tests" / "corpus" / "sources" / "pages"
VARIANTS = {
    "trafilatura, balanced": {},
    "trafilatura, balanced, no comments": {"comments": False},
    "trafilatura, precision": {"favor": "precision"},
    "trafilatura, recall": {"favor": "recall"},
    "resiliparse": {"extractor": "resiliparse"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--annotated", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    versions = ", ".join(f"{name} {version(name)}" for name in ("trafilatura", "resiliparse", "fastwarc", "lxml"))
    print(f"Python {platform.python_version()}, {versions}; one process, medians of {arguments.repeats}\n")
    quality()
    if arguments.annotated:
        phrases(arguments.annotated)
    if arguments.archives:
        speed(arguments.archives, arguments.repeats)


def quality() -> None:
    known = {
        path.stem: (encoding.decode(path.read_bytes()).text, path.with_suffix(".txt").read_text(encoding="utf-8"))
        for path in sorted(KNOWN.glob("*.html"))
    } | known_pages()
    print(f"| | precision | recall | F1 | pages lost | worst of {len(known)} pages |\n|---|---:|---:|---:|---:|---|")
    for name, extract in EXTRACTORS.items():
        texts = {page: extract(html) for page, (html, _) in known.items()}
        scores = {page: score(tokens(text), tokens(known[page][1])) for page, text in texts.items()}
        lost = sum(not text for text in texts.values())
        means = " | ".join(f"{statistics.mean(column):.3f}" for column in zip(*scores.values()))
        worst = min(scores, key=lambda page: scores[page][2])
        print(f"| {name} | {means} | {lost} | {worst}: {scores[worst][2]:.3f} |")


def extracted(options: dict, html: str) -> str:
    return page_text(html, {**web.OPTIONS, **options}, Counter()) or ""


def itself(fields: dict, html: str) -> str:
    return trafilatura.extract(html, **fields) or ""


def _said(field: tuple[str, bool]) -> str:
    return field[0] if field[1] else f"no {field[0].removeprefix('include_')}"


OURS = {name: functools.partial(extracted, options) for name, options in VARIANTS.items()}
SETTINGS = (
    {},
    {"fast": True},
    {"favor_recall": True},
    {"favor_precision": True},
    {"include_comments": False},
    {"include_comments": False, "fast": True},
)
EXTRACTORS = OURS | {
    f"trafilatura itself, {', '.join(map(_said, fields.items())) or 'as it comes'}": functools.partial(itself, fields)
    for fields in SETTINGS
}


def tokens(text: str) -> Counter[str]:
    """Returns words, or characters in scripts that do not separate words."""
    return Counter(part for word in re.findall(r"\w+", text) for part in (word if word[0] > "\u2e80" else [word]))


def score(found: Counter[str], expected: Counter[str]) -> tuple[float, float, float]:
    """Returns (precision, recall, F1) of tokens, counted with repetition."""
    common = (found & expected).total()
    precision, recall = common / max(found.total(), 1), common / expected.total()
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def phrases(folder: Path) -> None:
    """The measure of trafilatura's own evaluation: which of the annotated phrases are in the extracted text."""
    items = json.loads((folder / "evaldata.json").read_text(encoding="utf-8")).values()
    files = [
        next(path for part in ("cache", "eval") if (path := folder / part / item["file"]).is_file()) for item in items
    ]
    pages = [encoding.decode(file.read_bytes()).text for file in files]
    wanted = [[{" ".join(phrase.split()) for phrase in item[key]} for key in ("with", "without")] for item in items]
    print(f"\n{len(pages)} pages with {sum(len(inside) for inside, _ in wanted)} phrases of their text")
    print(f"and {sum(len(outside) for _, outside in wanted)} of what surrounds it\n")
    print("| | precision | recall | F1 | pages lost | processor seconds |\n|---|---:|---:|---:|---:|---:|")
    for name, extract in EXTRACTORS.items():
        begun = time.process_time()
        texts = [" ".join(extract(page).split()) for page in pages]
        seconds = time.process_time() - begun
        kept, noise = (
            sum(phrase in text for text, two in zip(texts, wanted) for phrase in two[side]) for side in (0, 1)
        )
        precision, recall = kept / max(kept + noise, 1), kept / sum(len(inside) for inside, _ in wanted)
        lost = sum(not text for text in texts)
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        print(f"| {name} | {precision:.3f} | {recall:.3f} | {f1:.4f} | {lost} | {seconds:.1f} |", flush=True)


def speed(path: str, repeats: int) -> None:
    pieces = find_files(path, (".warc",))
    seconds, pages = timed(lambda: read(pieces), repeats)
    megabytes = sum(len(page) for page in pages) / 1e6
    print(f"\n{len(pieces)} archives, {sum(piece.size for piece in pieces) / 1e6:.1f} MB: {len(pages)} pages of HTML")
    print(f"with {megabytes:.2f} M characters, decompressed, split and decoded in {statistics.median(seconds):.2f} s\n")
    print("| | seconds (spread) | pages/s | MB of HTML/s | M characters of text |\n|---|---:|---:|---:|---:|")
    for name, options in VARIANTS.items():
        options = {**web.OPTIONS, **options}
        seconds, texts = timed(lambda options=options: [page_text(page, options, Counter()) for page in pages], repeats)
        median, spread = statistics.median(seconds), max(seconds) - min(seconds)
        print(
            f"| {name} | {median:.2f} ({spread:.2f}) | {len(pages) / median:.0f} | {megabytes / median:.2f} "
            f"| {sum(len(text or '') for text in texts) / 1e6:.2f} |"
        )


def read(pieces) -> list[str]:
    pages = []
    for piece in pieces:
        with open_stream(piece.uri, web.OPTIONS) as stream:
            for capture in captures(stream, web.OPTIONS["max_html_bytes"], Counter()):
                pages.append(encoding.decode(capture.payload, [capture.charset] if capture.charset else []).text)
    return pages


def timed(function, repeats: int):
    """Returns (seconds of each of `repeats` calls, result of the last call)."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return seconds, result


if __name__ == "__main__":
    main()
