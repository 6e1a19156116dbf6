"""What gptjax/corpus/cleaning/statistics.py says of a text, one figure after the other, as one would say it aloud."""

import itertools
import re
import unicodedata
from collections import Counter

from gptjax.corpus.cleaning.characters import CLOSERS, TERMINALS
from gptjax.corpus.cleaning.statistics import DUPLICATE, POLICY, SHORT_LINE, STOP_WORDS, TOP
from gptjax.corpus.duplicates.shingles import WITHOUT_SPACES


def alone(character):
    return character.isalpha() and any(first <= ord(character) <= last for first, last in WITHOUT_SPACES)


def words(text):
    found = []
    for run in text.split():
        for is_alone, letters in itertools.groupby(run, alone):
            run_of_letters = "".join(letters)
            found += run_of_letters if is_alone else [run_of_letters]
    return found


def proper(word):
    return any(unicodedata.category(character)[0] in "LMN" for character in word)


def lines(text):
    return text.removesuffix("\n").split("\n") if text else []


def written(text):
    return [line for line in lines(text) if line.strip()]


def copies(items):
    return [item for number, item in enumerate(items) if item in items[:number]]


def share(part, whole):
    return part / max(whole, 1)


def top_ngram(text, n):
    found = [" ".join(words(text)[i : i + n]) for i in range(len(words(text)) - n + 1)]
    if not found:
        return 0
    gram, count = Counter(found).most_common(1)[0]  # of equals the first
    return len(gram) * count


def duplicate_ngram(text, n):
    all_words, place, characters = words(text), 0, 0
    grams = [tuple(all_words[i : i + n]) for i in range(len(all_words) - n + 1)]
    while place < len(grams):
        again = grams[place] in grams[:place]
        characters += sum(map(len, grams[place])) if again else 0
        place += n if again else 1
    return characters


def sentences(line):
    """An end: a full stop, then closing quotes (two at most), then a space, a reference or nothing."""
    end = f"[{re.escape(TERMINALS)}]"
    wide = "".join(character for character in TERMINALS if ord(character) >= 0x3000)
    closers = f"[{re.escape(CLOSERS)}]{{0,2}}"
    pattern = rf"{end}(?={closers}(?:\s|\[|$))|[{wide}](?!{end})"
    count, rest = 0, line
    for match in re.finditer(pattern, line):
        count += 1
        rest = re.sub(f"^{closers}", "", line[match.end() :])
    return count + bool(rest)


def c4(text, any_line):
    """(lines with lorem ipsum, lines with a curly bracket, sentences)."""
    lorem, brackets, count = 0, 0, 0
    for raw in lines(text):
        line, low = raw.rstrip(), raw.lower()
        line = re.sub(r"(?:\[\d*\]|\[edit\]|\[citation needed\]|\s)+$", "", line) if line.endswith("]") else line
        ended = line.endswith((".", "?", "!", '"', "'")) and not line.endswith("...")
        if not (any_line or ended) or len(words(raw)) < 3 or max(map(len, words(raw))) > 1000:
            continue
        lorem += "lorem ipsum" in low
        if "javascript" in low:
            continue
        brackets += "{" in raw
        if not any(phrase in low for phrase in POLICY):
            count += sentences(line)
    return lorem, brackets, count


def plain_statistics(text):
    every, all_lines, full = words(text), lines(text), written(text)
    paragraphs = [
        "\n".join(group) for filled, group in itertools.groupby(all_lines, lambda l: bool(l.strip())) if filled
    ]
    parted = [word for word in every if proper(word) and not any(map(alone, word))]
    mostly_parted = 2 * len(parted) > sum(map(proper, every))
    without_newlines = len(text) - text.count("\n")
    return {
        "characters": len(text),
        "words": sum(map(proper, every)),
        "mean_word_length": sum(map(len, parted)) / len(parted) if mostly_parted else None,
        "alphabetic_word_share": share(sum(any(map(str.isalpha, word)) for word in every), len(every)),
        "stop_words": len({*STOP_WORDS} & {*every}),
        "hashes_per_word": share(text.count("#"), len(every)),
        "ellipses_per_word": share(text.count("...") + text.count("…"), len(every)),
        "bullet_line_share": share(sum(line.lstrip()[:1] in "•-" for line in full), len(all_lines)),
        "ellipsis_line_share": share(sum(line.rstrip().endswith(("...", "…")) for line in full), len(all_lines)),
        "duplicate_paragraph_share": share(len(copies(paragraphs)), len(paragraphs)),
        "duplicate_paragraph_character_share": share(sum(map(len, copies(paragraphs))), len(text)),
        "duplicate_line_share": share(len(copies(full)), len(full)),
        "duplicate_line_character_share": share(sum(map(len, copies(full))), without_newlines),
        **{f"top_{n}gram_share": share(top_ngram(text, n), len(text)) for n in TOP},
        **{f"duplicate_{n}gram_share": share(duplicate_ngram(text, n), len(text)) for n in DUPLICATE},
        **dict(zip(("lorem_ipsum", "curly_brackets", "sentences"), c4(text, any_line=False))),
        **dict(zip(("any_line_lorem_ipsum", "any_line_curly_brackets", "any_line_sentences"), c4(text, any_line=True))),
        "punctuated_line_share": share(sum(line.rstrip()[-1] in TERMINALS for line in full), len(full)),
        "short_line_share": share(sum(len(line) <= SHORT_LINE for line in full), len(full)),
        "newlines_per_word": share(text.count("\n"), len(every)),
        "mean_line_length": share(sum(map(len, all_lines)), len(all_lines)),
        "max_line_length": max(map(len, all_lines), default=0),
        "alphanumeric_share": share(sum(map(str.isalnum, text)), len(text)),
    }
