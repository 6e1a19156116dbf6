"""Compares what gptjax reads of a paper's source with the words of its PDF, sentence by sentence.

  python experiments/corpus/printed_papers.py PAPER.tex=PRINT.pdf ARTICLE.xml=ARTICLE.pdf… [--differences=20]

Needs pdftotext. A sentence of at least six words is looked for in the PDF by its groups of three words. Formulas,
references in brackets, punctuation, ligatures and what a page break puts between two words do not count. A sentence
that differs is to be looked at: most differ since pdftotext gives two columns, floats or formulas in another order.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import unicodedata
from collections import defaultdict
from difflib import SequenceMatcher
from pathlib import Path

from gptjax.corpus.formats import scholarly
from gptjax.corpus.formats.latex import to_text
from gptjax.corpus.formats.latex_project import flatten, with_macros_expanded, without_comments
from gptjax.corpus.formats.xml import parse

MATHS = re.compile(r"\$\$.*?\$\$|\$[^$]*\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL)
FORMULA = "\0"
LONG = 5  # more words than that between two words of a sentence come from a float or a page's end


def text_of_source(path: Path) -> str:
    if path.suffix in (".xml", ".jats", ".nxml"):
        return "\n\n".join(paper.text for paper in scholarly.papers(parse(path.read_bytes())))
    root = path.parent
    names = {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}
    flat = flatten(path.name, names, lambda name: without_comments((root / name).read_text(errors="replace")), 10**8)
    return to_text(with_macros_expanded(flat.source))


def words_of_print(path: Path) -> list[str]:
    text = subprocess.run(["pdftotext", path, "-"], check=True, capture_output=True, text=True, errors="replace").stdout
    return re.sub(r"(\w)-\n(?=[a-z])", r"\1", unicodedata.normalize("NFKC", text)).split()


def letters(word: str) -> str:
    """What is compared of a word; ligatures are left out, since many PDFs have no letters for them."""
    return re.sub(r"ffi|ffl|ff|fi|fl|\W|[\x00-\x1f]", "", word.lower())


def sentences(text: str) -> list[list[str]]:
    text = MATHS.sub(f" {FORMULA} ", unicodedata.normalize("NFKC", text))
    found = [
        sentence.split()
        for paragraph in text.split("\n\n")
        for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", " ".join(paragraph.split()))
    ]
    return [words for words in found if len(words) >= 6]


def differences(words: list[str], printed: list[str], keys: list[str], places: dict) -> list[str] | None:
    """What differs between a sentence and the print; None if the print does not have it."""
    ours = [letters(word) for word in words]
    votes: dict[int, int] = defaultdict(int)
    for at in range(len(ours) - 2):
        for place in places.get(tuple(ours[at : at + 3]), ()):
            votes[place - at] += 1
    if not votes:
        return None
    best = max(votes, key=lambda start: sum(votes.get(start + shift, 0) for shift in range(-14, 15)))
    near = [start for start in votes if abs(start - best) < 15]
    begin, end = max(min(near) - 3, 0), max(near) + len(words) + 8
    changes = SequenceMatcher(None, ours, keys[begin:end], autojunk=False).get_opcodes()
    changes = changes[changes[0][0] == "insert" :]
    changes = changes[: len(changes) - (changes[-1][0] == "insert")]
    return [
        f"{' '.join(words[a:b])!r} is printed {' '.join(printed[begin + c : begin + d])!r}"
        for kind, a, b, c, d in changes
        if kind != "equal"
        and FORMULA not in words[max(a - 1, 0) : b + 1]
        and "".join(ours[a:b]) != "".join(keys[begin + c : begin + d])
        and not (a == b and (d - c > LONG or re.fullmatch(r"[\W\d]*", "".join(keys[begin + c : begin + d]))))
        and not re.fullmatch(
            re.escape("".join(ours[a:b])) + r"\d*", "".join(keys[begin + c : begin + min(d, c + b - a)])
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="SOURCE=PDF")
    parser.add_argument("--differences", type=int, default=20, help="how many of each paper are shown")
    arguments = parser.parse_args()
    total = [0, 0, 0]
    for pair in arguments.pairs:
        source, _, print_ = pair.partition("=")
        printed = words_of_print(Path(print_))
        keys = [letters(word) for word in printed]
        places: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for place in range(len(keys) - 2):
            places[tuple(keys[place : place + 3])].append(place)
        shown, counts = [], [0, 0, 0]
        for words in sentences(text_of_source(Path(source))):
            changed = differences(words, printed, keys, places)
            counts[2 if changed is None else 1 if changed else 0] += 1
            if changed != []:
                sentence = " ".join(words).replace(FORMULA, "…")
                shown.append(f"  {sentence[:240]}\n    {'; '.join(changed or ['not found'])}")
        total = [a + b for a, b in zip(total, counts)]
        print(f"{source}: {counts[0]} sentences are printed so, {counts[1]} differ, {counts[2]} were not found")
        print("\n".join(shown[: arguments.differences]))
    print(f"all {len(arguments.pairs)}: {total[0]} are printed so, {total[1]} differ, {total[2]} were not found")


if __name__ == "__main__":
    main()
