"""Compares statistics, rules and repairs with datatrove's filters, on the same texts and words: see README.md."""

from __future__ import annotations

import gzip
import json
import re
import statistics as middle
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from absl import app, flags
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    c4_filters,
    fineweb_quality_filter,
    gopher_quality_filter,
    gopher_repetition_filter,
)

from gptjax.corpus.cleaning import rules
from gptjax.corpus.cleaning.characters import Texts
from gptjax.corpus.cleaning.language import identify
from gptjax.corpus.cleaning.personal import mask
from gptjax.corpus.cleaning.repair import repair
from gptjax.corpus.cleaning.statistics import statistics

WIKIPEDIA = flags.DEFINE_string("wikipedia", None, "Folder of WikiExtractor's output.", required=True)
WEB = flags.DEFINE_list("web", None, "Files of .jsonl(.gz) with a field `text`.", required=True)
BOOKS = flags.DEFINE_string("books", None, "Folder of .md files.", required=True)
MEGABYTES = flags.DEFINE_float("megabytes", 10, "Megabytes of each kind of text, for the speed.")
PEER_MEGABYTES = flags.DEFINE_float("peer_megabytes", 2, "Megabytes of each kind, for datatrove and the decisions.")
TURNS = flags.DEFINE_integer("turns", 3, "Timed turns, after one that is not timed.")

BOOK_CHARACTERS = 100_000  # only this many first characters of each book, so that many books are judged
ARTICLE = re.compile(r"<doc [^>]*>\n(.*?)</doc>", re.DOTALL)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
GROUPS = {
    "gopher_quality": GopherQualityFilter,
    "gopher_repetition": GopherRepetitionFilter,
    "c4": C4QualityFilter,
    "fineweb": FineWebQualityFilter,
}


def main(argv: list[str]) -> None:
    del argv
    with_words(quick_words, quick_sentences)
    sources = {"wikipedia": wikipedia, "web": web, "books": books}
    print("| texts | MB | what | MB/s, median | min | max |\n|---|---|---|---|---|---|")
    samples = {}
    for name, read in sources.items():
        texts = upto(read(), MEGABYTES.value)
        speeds(name, texts, OURS)
        samples[name] = upto(texts, PEER_MEGABYTES.value)
        speeds(name, samples[name], {"datatrove, its four filters": filter_all})
    print("\n| texts | documents | rules | datatrove drops | ours | agree |\n|---|---|---|---|---|---|")
    with_words(our_words, our_sentences)
    for name, texts in samples.items():
        agreement(name, [text.strip() for text in texts])


# --- What is timed ----------------------------------------------------------------------------------------------------


def decide(texts: list[str]) -> np.ndarray:
    columns = statistics(texts) | {"language": np.full(len(texts), "en")}
    chosen = rules.chosen(rules.RECIPES["web"], rules.default_thresholds())
    return rules.first_objections(rules.decide(columns, chosen))


OURS: dict[str, Callable[[list[str]], object]] = {
    "repairs, statistics, decisions": lambda texts: decide([repair(text)[0] for text in texts]),
    "… of these, repairs alone": lambda texts: [repair(text) for text in texts],
    "languages": lambda texts: [identify(text) for text in texts],
    "personal data, all kinds": lambda texts: [mask(text) for text in texts],
}


def filter_all(texts: list[str]) -> list[list[str]]:
    return [decisions(texts, make()) for make in GROUPS.values()]


def speeds(name: str, texts: list[str], runs: dict[str, Callable[[list[str]], object]]) -> None:
    size = sum(len(text.encode()) for text in texts) / 1e6
    seconds: dict[str, list[float]] = {what: [] for what in runs}
    for _ in range(TURNS.value + 1):
        for what, run in runs.items():
            start = time.perf_counter()
            run(texts)
            seconds[what].append(time.perf_counter() - start)
    for what, timed in seconds.items():
        rates = [size / value for value in timed[1:]]
        cells = " | ".join(f"{value:.2f}" for value in (middle.median(rates), min(rates), max(rates)))
        print(f"| {name} | {size:.1f} | {what} | {cells} |", flush=True)


# --- Decisions --------------------------------------------------------------------------------------------------------


def decisions(texts: list[str], peer: object) -> list[str]:
    """Returns datatrove's reason to drop each text, or '' if it keeps the text."""
    reasons = []
    for text in texts:
        outcome = peer.filter(Document(text=text, id=""))
        reasons.append("" if outcome is True else outcome[1])
    return reasons


def agreement(name: str, texts: list[str]) -> None:
    columns = statistics(texts) | {"language": np.full(len(texts), "en")}
    for group, make in GROUPS.items():
        theirs = np.array(decisions(texts, make())) != ""
        objections = rules.decide(columns, rules.chosen([group], rules.default_thresholds()))
        ours = rules.first_objections(objections) != ""
        print(
            f"| {name} | {len(texts):,} | {group} | {theirs.sum():,} | {ours.sum():,} | {np.mean(ours == theirs):.2%} |"
        )
        differ = Counter(
            decisions([texts[i]], make())[0] or f"ours: {rules.first_objections(objections)[i]}"
            for i in np.flatnonzero(ours != theirs)
        )
        if differ:
            print(f"| | | they differ by | | | {dict(differ.most_common(4))} |")


def with_words(words: Callable[..., list[str]], sentences: Callable[..., list[str]]) -> None:
    """Makes datatrove use these words instead of spaCy's."""
    for module in (gopher_quality_filter, gopher_repetition_filter, fineweb_quality_filter):
        module.split_into_words = words
    c4_filters.split_into_sentences = sentences


def quick_words(text: str, *_: object) -> list[str]:
    return text.split()


def quick_sentences(line: str, *_: object) -> list[str]:
    return SENTENCE_END.split(line)


def our_words(text: str, *_: object) -> list[str]:
    texts = Texts.of([text])
    found = texts.words()
    return [texts.joined[start:end] for start, end in zip(found.starts.tolist(), found.ends.tolist())]


def our_sentences(line: str, *_: object) -> list[str]:
    return [""] * int(statistics([line])["any_line_sentences"][0])


# --- Texts ------------------------------------------------------------------------------------------------------------


def upto(texts: Iterator[str] | list[str], megabytes: float) -> list[str]:
    taken, size = [], 0
    for text in texts:
        if size >= megabytes * 1e6:
            break
        taken.append(text)
        size += len(text.encode())
    return taken


def wikipedia() -> Iterator[str]:
    for path in sorted(Path(WIKIPEDIA.value).rglob("*")):
        if path.is_file() and path.name != "SOURCE":
            yield from ARTICLE.findall(path.read_text(errors="replace"))


def web() -> Iterator[str]:
    for name in WEB.value:
        with gzip.open(name, "rt") if name.endswith(".gz") else open(name) as file:
            for line in file:
                yield json.loads(line)["text"]


def books() -> Iterator[str]:
    for path in sorted(Path(BOOKS.value).rglob("*.md")):
        yield path.read_text(errors="replace")[:BOOK_CHARACTERS]


if __name__ == "__main__":
    app.run(main)
