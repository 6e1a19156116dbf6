"""experiments/from_scratch/tokenizer.py learns the pieces, and makes the cuts, that SentencePiece does."""

import pydoc_data.topics
from pathlib import Path

import pytest
import tokenizer as own

from gptjax.tokenizer.training import train_sentencepiece

LICENCE = (Path(__file__).parents[3] / "LICENSE").read_text(encoding="utf-8")
PYTHON = "".join(pydoc_data.topics.topics.values())  # the reference of the language: prose with tables and examples
UNSEEN = "Héllo, 世界 ☕!  Call me in 2026,\n\n\tat   half past seven.\n"


def sentencepiece_of(text: str, num_pieces: int):
    num_characters = len(own.frequent_characters(text))
    controls_and_bytes = 9 + 256 + 2  # and the newline and the tab
    return train_sentencepiece(text.splitlines(keepends=True), "bpe", controls_and_bytes + num_characters + num_pieces)


@pytest.mark.parametrize(
    ("text", "num_pieces"),
    [
        (LICENCE, 400),
        (PYTHON[:30_000], 200),
        pytest.param(PYTHON[:300_000], 2000, marks=pytest.mark.exhaustive),
    ],
    ids=["licence", "python", "much"],
)
def test_pieces_and_cuts_are_those_of_sentencepiece(text, num_pieces):
    characters, pieces = own.learn(text, num_pieces)
    theirs = sentencepiece_of(text, num_pieces)
    learned = [theirs._model.id_to_piece(i) for i in range(theirs.vocab_size)][9 + 256 + 2 :]
    assert learned[:num_pieces] == pieces
    assert set(learned[num_pieces:]) == characters

    mine = own.Tokenizer(characters, pieces)
    for probe in (text[:20_000], UNSEEN):
        ids = mine.encode(probe)
        cuts = [mine.decode([i]).encode() if i >= 256 else bytes([i]) for i in ids]
        assert cuts == [theirs.decode_bytes([i]) for i in theirs.encode(probe)]
        assert mine.decode(ids) == probe


def test_the_earliest_pair_of_equally_frequent_ones_is_the_shortest_and_first_in_the_alphabet():
    assert own.learn("xbc xbc xbc", 3)[1] == ["bc", "xbc", f"{own.SPACE}xbc"]


def test_a_text_that_gives_too_few_pieces_is_an_error():
    with pytest.raises(ValueError, match="only 1 pieces"):
        own.learn("ab ", 5)
