"""Figures of texts that the rules of rules.py judge: many texts at a time, by whole arrays instead of loops.

They follow Gopher (arXiv:2112.11446), C4 (arXiv:1910.10683), FineWeb (arXiv:2406.17557) and Codex (arXiv:2107.03374).
For an empty text shares are 0 and means are NaN, to which no rule objects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from gptjax.corpus.cleaning import characters
from gptjax.corpus.cleaning.characters import Spans, Texts
from gptjax.corpus.cleaning.repetition import later_copies, ngram_characters

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")  # Gopher's
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")  # C4's
LOREM_IPSUM, JAVASCRIPT = "lorem ipsum", "javascript"
C4_ENDS = ".?!\"'"
CITATIONS = re.compile(r"(?:\[\d*\]|\[edit\]|\[citation needed\]|\s)+$")
LONGEST_WORD = 1000  # characters; C4 skips lines with a longer word
FEWEST_WORDS = 3  # and lines with fewer words
SHORT_LINE = 30  # characters (FineWeb)
TOP, DUPLICATE = range(2, 5), range(5, 11)  # n of the n-grams (Gopher)

COLUMNS = (
    *("characters", "words", "mean_word_length", "alphabetic_word_share", "stop_words"),
    *("hashes_per_word", "ellipses_per_word", "bullet_line_share", "ellipsis_line_share"),
    *("duplicate_paragraph_share", "duplicate_paragraph_character_share"),
    *("duplicate_line_share", "duplicate_line_character_share"),
    *(f"top_{n}gram_share" for n in TOP),
    *(f"duplicate_{n}gram_share" for n in DUPLICATE),
    *("lorem_ipsum", "curly_brackets", "sentences"),
    *("any_line_lorem_ipsum", "any_line_curly_brackets", "any_line_sentences"),
    *("punctuated_line_share", "short_line_share", "newlines_per_word"),
    *("mean_line_length", "max_line_length", "alphanumeric_share"),
)


def statistics(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """COLUMNS, float64 [texts] each.

    Characters and words:
      characters; words: the number with a letter, mark or digit; mean_word_length: the characters of these words, if
      most are in scripts with spaces; alphabetic_word_share: the share of words between spaces that have a letter;
      stop_words: how many of STOP_WORDS occur; hashes_per_word, ellipses_per_word; newlines_per_word;
      alphanumeric_share: the share of characters.
    Lines (those that are not blank, unless said otherwise):
      bullet_line_share, ellipsis_line_share: shares of all lines; punctuated_line_share: the share that end a
      sentence; short_line_share; mean_line_length, max_line_length: over all lines.
    Repetition (shares of characters, unless the name says of what):
      duplicate_…: the share in lines, paragraphs and n-grams of words that also occur earlier in the text; top_…: the
      share of the most frequent n-gram. Newlines count only among the characters of paragraphs.
    Lines that C4 would keep (they end in punctuation, have enough words and name neither scripts nor policies); with
    any_line_… also lines without punctuation at their end:
      lorem_ipsum, curly_brackets: how many lines have one; sentences: the number in them.
    """
    columns = {name: np.zeros(len(texts)) for name in COLUMNS}
    for numbers in characters.batches(texts):
        for name, values in _statistics(Texts.of([texts[number] for number in numbers])).items():
            columns[name][numbers] = values
    return columns


def _statistics(texts: Texts) -> dict[str, np.ndarray]:
    words, lines = texts.words(), texts.lines()
    columns = {"characters": texts.lengths.astype(np.float64)}
    columns |= _of_words(texts, words)
    columns |= _of_lines(texts, words, lines)
    tops, duplicates = ngram_characters(texts, words, TOP, DUPLICATE)
    columns |= {f"top_{n}gram_share": _share(size, texts.lengths) for n, size in tops.items()}
    columns |= {f"duplicate_{n}gram_share": _share(size, texts.lengths) for n, size in duplicates.items()}
    return columns


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.maximum(whole, 1)


# --- Words ------------------------------------------------------------------------------------------------------------


def _of_words(texts: Texts, words: Spans) -> dict[str, np.ndarray]:
    # From the start of a word to the next one there are only that word and spaces, and spaces have neither bit.
    kinds = np.bitwise_or.reduceat(texts.flags, words.starts) if len(words) else np.zeros(0, np.uint8)
    proper = kinds & characters.WORD != 0
    parted = proper & (kinds & characters.ALONE == 0)
    count, count_parted = words.total(proper), words.total(parted)
    mean_length = np.full(len(texts), np.nan)
    np.divide(words.total(words.lengths * parted), count_parted, mean_length, where=2 * count_parted > count)
    return {
        "words": count,
        "mean_word_length": mean_length,
        "alphabetic_word_share": _share(words.total(kinds & characters.LETTER != 0), words.counts),
        "stop_words": _distinct_stop_words(texts, words),
        "hashes_per_word": _share(texts.count(texts.codes == ord("#")), words.counts),
        "ellipses_per_word": _share(_ellipses(texts), words.counts),
        "newlines_per_word": _share(_newlines(texts), words.counts),
        "alphanumeric_share": _share(texts.count(texts.flags & characters.ALPHANUMERIC != 0), texts.lengths),
    }


def _newlines(texts: Texts) -> np.ndarray:
    return texts.count(texts.codes == characters.NEWLINE) - 1  # the place after it belongs to another text


def _distinct_stop_words(texts: Texts, words: Spans) -> np.ndarray:
    places = np.flatnonzero(words.lengths <= max(map(len, STOP_WORDS)))
    hashes = texts.hashes(words.starts[places], words.ends[places])
    owners, found = words.owners[places], np.zeros(len(texts))
    own = Texts.of(STOP_WORDS)
    for stop_word in own.hashes(own.bounds[:-1], own.bounds[1:] - 1):
        found[np.unique(owners[hashes == stop_word])] += 1
    return found


def _ellipses(texts: Texts) -> np.ndarray:
    """'…', and every three dots in a row."""
    dots = texts.codes == ord(".")
    third = np.flatnonzero(dots[2:] & dots[1:-1] & dots[:-2]) + 2
    # In a row of dots, the dot that is n-th from its end counts if n is 1, 4, 7, …
    first = np.flatnonzero(np.diff(third, prepend=-1) != 1)
    rank = np.arange(len(third)) - np.repeat(first, np.diff(first, append=len(third)))
    return texts.count_places(third[rank % 3 == 0]) + texts.count(texts.codes == ord("…"))


# --- Lines ------------------------------------------------------------------------------------------------------------


def _of_lines(texts: Texts, words: Spans, lines: Spans) -> dict[str, np.ndarray]:
    longest = np.zeros(len(texts))
    np.maximum.at(longest, lines.owners, lines.lengths)
    first_words = np.searchsorted(words.starts, lines.starts)
    counts = np.searchsorted(words.starts, lines.ends) - first_words  # words of each line
    filled = np.flatnonzero(counts)
    written = _subset(lines, filled)
    firsts = words.starts[first_words[filled]]
    lasts = words.ends[first_words[filled] + counts[filled] - 1] - 1
    bullets = np.isin(texts.codes[firsts], (ord("•"), ord("-")))
    ellipses = _three_dots(texts, lasts) | (texts.codes[lasts] == ord("…"))
    paragraphs = _paragraphs(texts, lines, filled)
    return {
        "bullet_line_share": _share(written.total(bullets), lines.counts),
        "ellipsis_line_share": _share(written.total(ellipses), lines.counts),
        "punctuated_line_share": _share(written.total(texts.flags[lasts] & characters.TERMINAL != 0), written.counts),
        "short_line_share": _share(written.total(written.lengths <= SHORT_LINE), written.counts),
        "mean_line_length": _share(lines.total(lines.lengths), lines.counts),
        "max_line_length": longest,
        **_of_copies(texts, written, "line", texts.lengths - _newlines(texts)),
        **_of_copies(texts, paragraphs, "paragraph", texts.lengths),
        **_of_c4(texts, words, written, counts[filled], lasts),
    }


def _subset(spans: Spans, chosen: np.ndarray) -> Spans:
    """Selects some lines by their ascending numbers."""
    return Spans(spans.starts[chosen], spans.ends[chosen], np.searchsorted(chosen, spans.bounds))


def _three_dots(texts: Texts, lasts: np.ndarray) -> np.ndarray:
    """bool [lines]: whether lines with these places of their last characters end in three dots."""
    dots = [texts.codes[np.maximum(lasts - back, 0)] == ord(".") for back in range(3)]
    return dots[0] & dots[1] & dots[2]


def _paragraphs(texts: Texts, lines: Spans, filled: np.ndarray) -> Spans:
    """Runs of lines that are not blank; filled: the numbers of these lines."""
    owners = lines.owners[filled]
    begins = np.flatnonzero((np.diff(filled, prepend=-2) > 1) | (np.diff(owners, prepend=-1) > 0))
    last = np.append(begins[1:], len(filled))[: len(begins)] - 1
    starts, ends = lines.starts[filled[begins]], lines.ends[filled[last]]
    return Spans(starts, ends, np.searchsorted(starts, texts.bounds))


def _of_copies(texts: Texts, spans: Spans, name: str, size: np.ndarray) -> dict[str, np.ndarray]:
    later = later_copies(texts, spans)
    return {
        f"duplicate_{name}_share": _share(spans.total(later), spans.counts),
        f"duplicate_{name}_character_share": _share(spans.total(spans.lengths * later), size),
    }


# --- What C4 keeps ----------------------------------------------------------------------------------------------------


def _of_c4(
    texts: Texts, words: Spans, lines: Spans, word_counts: np.ndarray, lasts: np.ndarray
) -> dict[str, np.ndarray]:
    """lines: those that are not blank, with their numbers of words and the places of their last characters."""
    lasts = _before_citations(texts, lines, lasts)
    punctuated = np.isin(texts.codes[lasts], [ord(character) for character in C4_ENDS])
    punctuated &= ~_three_dots(texts, lasts)
    long_words = words.starts[words.lengths > LONGEST_WORD]
    enough = (word_counts >= FEWEST_WORDS) & ~_marked(lines, long_words)
    lower = texts.joined.replace("İ", "I").lower()  # the only letter that lower() would turn into two
    lorem_ipsum = enough & _marked(lines, _places(lower, LOREM_IPSUM))
    counted = enough & ~_marked(lines, _places(lower, JAVASCRIPT))
    brackets = counted & _marked(lines, np.flatnonzero(texts.codes == ord("{")))
    kept = counted & ~_marked(lines, np.sort(np.concatenate([_places(lower, phrase) for phrase in POLICY])))
    sentences = _sentences(texts, lines, lasts)
    columns = {}
    for prefix, chosen in (("", punctuated), ("any_line_", True)):
        columns[f"{prefix}lorem_ipsum"] = lines.total(lorem_ipsum & chosen)
        columns[f"{prefix}curly_brackets"] = lines.total(brackets & chosen)
        columns[f"{prefix}sentences"] = lines.total(sentences * (kept & chosen))
    return columns


def _before_citations(texts: Texts, lines: Spans, lasts: np.ndarray) -> np.ndarray:
    """Places of the last characters, not counting a final [3], [edit] or the like."""
    lasts = lasts.copy()
    for number in np.flatnonzero(texts.codes[lasts] == ord("]")).tolist():
        line = texts.joined[lines.starts[number] : lasts[number] + 1]
        lasts[number] = lines.starts[number] + max(len(CITATIONS.sub("", line)) - 1, 0)
    return lasts


def _places(text: str, phrase: str) -> np.ndarray:
    """int64, ascending: where `phrase` occurs in `text`."""
    places, place = [], text.find(phrase)
    while place >= 0:
        places.append(place)
        place = text.find(phrase, place + 1)
    return np.array(places, np.int64)


def _marked(lines: Spans, places: np.ndarray) -> np.ndarray:
    """bool [lines]: whether one of the given ascending places is in each."""
    return np.searchsorted(places, lines.starts) < np.searchsorted(places, lines.ends)


def _sentences(texts: Texts, lines: Spans, lasts: np.ndarray) -> np.ndarray:
    """int64 [lines]: the number of sentences; the last one may lack its end.

    A sentence ends with punctuation before a space, the line's end or the bracket of a reference; closing quotes and
    brackets may stand between. Full stops of scripts without spaces need nothing after them.
    """
    flags, final = texts.flags, len(texts.codes) - 1
    terminals = np.flatnonzero(flags & characters.TERMINAL)
    follows = terminals + 1
    for _ in range(2):
        follows = np.minimum(follows + (flags[follows] & characters.CLOSING != 0), final)
    free = (flags[follows] & characters.SPACE != 0) | (texts.codes[follows] == ord("["))
    wide = (texts.codes[terminals] >= 0x3000) & (flags[terminals + 1] & characters.TERMINAL == 0)
    ends = terminals[free | wide]
    before = np.searchsorted(ends, lines.starts)
    count = np.searchsorted(ends, lines.ends) - before
    after = np.append(follows[free | wide], 0)[before + np.maximum(count, 1) - 1]
    return count + ((count == 0) | (after <= lasts))
