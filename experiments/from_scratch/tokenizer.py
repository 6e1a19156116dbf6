"""Byte-pair encoding from scratch: learns pieces from a text, then encodes and decodes with them.

  python experiments/from_scratch/tokenizer.py --input=the-verdict.txt --pieces=300 --text='Jack gave it up'

It makes the decisions that SentencePiece makes with the settings of gptjax/tokenizer/training.py, so that both learn
the same pieces in the same order and cut a text at the same places (tests/experiments/from_scratch/test_tokenizer.py).
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections import Counter, defaultdict
from pathlib import Path

SPACE = "\u2581"  # '▁' stands for a space within pieces, as in SentencePiece, so that one sees it
LONGEST = 16  # characters of a piece
COVERAGE = 0.9995  # share of the text whose characters get an own token; the rare others are encoded as bytes


def words_of(text: str) -> list[str]:
    """Cuts a text into the parts that a piece may not cross: a word with the spaces before it, a newline, a tab."""
    return re.findall(f"[\n\t]|{SPACE}*[^{SPACE}\n\t]+|{SPACE}+", text.replace(" ", SPACE))


def may_be_a_piece(joined: str) -> bool:
    """A piece is a part of a word, at most one space before it, or only spaces. A digit is always a token by itself."""
    spaces_fit = SPACE not in joined[1:] or not joined.strip(SPACE)
    return spaces_fit and len(joined) <= LONGEST and not any(map(str.isdecimal, joined))


def frequent_characters(text: str) -> set[str]:
    """The most frequent characters that together make up COVERAGE of the text."""
    counts = Counter("".join(words_of(text)).replace("\n", "").replace("\t", ""))
    wanted, covered, kept = COVERAGE * counts.total(), 0, set()
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= wanted:
            break
        covered += count
        kept.add(character)
    return kept


def learn(text: str, num_pieces: int) -> tuple[set[str], list[str]]:
    """The characters and the pieces of a vocabulary; a piece that was learned earlier is joined first.

    Each round counts all neighbouring tokens, joins the most frequent pair everywhere, and remembers it as a piece.
    Equally frequent pairs are ordered by length, then by alphabet.
    """
    characters = frequent_characters(text)
    words = Counter(words_of(text))
    spelled = [list(word) for word in words]  # the tokens of each different word, at first its characters
    times = list(words.values())
    counts: Counter[tuple[str, str]] = Counter()  # of each pair of neighbours in the whole text
    found_in: defaultdict[tuple[str, str], set[int]] = defaultdict(set)  # the words in which a pair was seen

    def count(word: int, sign: int) -> None:
        for left, right in itertools.pairwise(spelled[word]):
            if may_be_a_piece(left + right) and {*left, *right} <= characters:
                counts[left, right] += sign * times[word]
                found_in[left, right].add(word)

    for word in range(len(spelled)):
        count(word, +1)
    pieces: list[str] = []
    while len(pieces) < num_pieces:
        pair = min(counts, key=lambda pair: (-counts[pair], len("".join(pair)), "".join(pair)), default=None)
        if pair is None or counts[pair] < 1:
            raise ValueError(f"this text gives only {len(pieces)} pieces")
        pieces.append("".join(pair))
        for word in list(found_in.pop(pair)):  # only words with this pair change
            count(word, -1)
            spelled[word] = joined_everywhere(spelled[word], pair)
            count(word, +1)
    return characters, pieces


def joined_everywhere(tokens: list[str], pair: tuple[str, str]) -> list[str]:
    made: list[str] = []
    for token in tokens:
        if made and (made[-1], token) == pair:
            made[-1] += token
        else:
            made.append(token)
    return made


class Tokenizer:
    """Ids: 256 bytes, newline and tab, then the characters, then the pieces in the order in which they were learned."""

    def __init__(self, characters: set[str], pieces: list[str]):
        self.tokens = ["\n", "\t", *sorted(characters), *pieces]
        self.id_of = {token: 256 + i for i, token in enumerate(self.tokens)}
        self.rank_of = {piece: rank for rank, piece in enumerate(pieces)}

    def cut(self, text: str) -> list[str]:
        """The tokens of a text, as strings: in each word, the pair whose piece was learned first is joined first."""
        cut: list[str] = []
        for word in words_of(text):
            tokens = list(word)
            while True:
                ranks = [self.rank_of.get(left + right, len(self.tokens)) for left, right in itertools.pairwise(tokens)]
                if not ranks or min(ranks) == len(self.tokens):
                    break
                first = ranks.index(min(ranks))
                tokens[first : first + 2] = ["".join(tokens[first : first + 2])]
            cut += tokens
        return cut

    def encode(self, text: str) -> list[int]:
        """The ids of a text. A character that the vocabulary does not have becomes its bytes."""
        return [i for token in self.cut(text) for i in ([self.id_of[token]] if token in self.id_of else token.encode())]

    def decode(self, ids: list[int]) -> str:
        known = (bytes([i]) if i < 256 else self.tokens[i - 256].encode() for i in ids)
        return b"".join(known).decode("utf-8", errors="replace").replace(SPACE, " ")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", type=Path, required=True, help="the text to learn from")
    parser.add_argument("--pieces", type=int, default=300, help="how many pieces to learn")
    parser.add_argument("--text", default="Hello, do you like tea? 2026 ☕", help="a text to encode")
    options = parser.parse_args()
    text = options.input.read_text(encoding="utf-8")
    tokenizer = Tokenizer(*learn(text, options.pieces))
    print(f"first pieces: {tokenizer.tokens[-options.pieces :][:12]}")
    print(f"{len(text):,} characters are {len(tokenizer.encode(text)):,} tokens")
    ids = tokenizer.encode(options.text)
    print(f"{options.text!r} → {tokenizer.cut(options.text)} → {ids} → {tokenizer.decode(ids)!r}")


if __name__ == "__main__":
    main()
