import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_statistics import plain_statistics

from gptjax.corpus.cleaning import characters
from gptjax.corpus.cleaning.statistics import COLUMNS, statistics

# Texts of few words, so that lines, paragraphs and n-grams repeat; and of what the rules look for.
PIECES = [
    *("a", "b", "the", "of", "naïve", "слово", "你", "好", "世界", "ไทย", "٣", "1984", "İstanbul", "e\u0301"),
    *(" ", " ", " ", "  ", "\t", "\n", "\n\n", "\n \n", "\u3000"),
    *(".", "...", "…", "!", "?", '"', "'", ")", "。", "।", "#", "-", "•", "{", ",", "[3]", "[edit]", "_", "😀"),
    *("lorem ipsum", "JavaScript", "Privacy Policy", "uses cookies", "x" * 1001),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)
REPEATING = st.lists(st.sampled_from(["a b c d e f g h. ", "b c d e f g h i\n", "a b ", "你好世界 "]), max_size=12).map(
    "".join
)


def check(texts):
    found = statistics(texts)
    assert tuple(found) == COLUMNS
    for number, text in enumerate(texts):
        for name, value in plain_statistics(text).items():
            got = found[name][number]
            same = math.isnan(got) if value is None else got == pytest.approx(value, abs=1e-12)
            assert same, f"{name} of {text!r}: {got}, not {value}"


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, max_size=5))
@example(["", "\n", " ", "a", "\n\na\n\n", "....", "...... a", "a.[3] [edit]\n"])
@example(["one two three.)) four", 'one two "three." four', "a b c ... d", "一二三。四五六！」"])
@example(["x" * 1000 + " a b.", "x" * 1001 + " a b.", "İ" * 40 + "\nlorem ipsum, then.\nb"])
def test_every_figure_is_the_plain_one(texts):
    check(texts)


@settings(max_examples=100, deadline=None)
@given(st.lists(REPEATING, max_size=3))
def test_what_repeats(texts):
    check(texts)


def test_texts_are_judged_alone_whatever_they_come_with(monkeypatch):
    texts = ["the a of\n" * 20, "the a of\n" * 3, "Ünïcode the a of\n" * 5, "", "a " * 3000] * 3
    together = statistics(texts)
    monkeypatch.setattr(characters, "BATCH_CHARACTERS", 10)
    for number, text in enumerate(texts):
        for name, (value,) in statistics([text]).items():
            np.testing.assert_equal(together[name][number], value, err_msg=name)


def test_no_texts():
    assert all(len(column) == 0 for column in statistics([]).values())


def test_a_line_of_a_megabyte():
    found = statistics(["word " * 200_000, "x" * 1_000_000])
    assert found["words"].tolist() == [200_000, 1] and found["max_line_length"].tolist() == [1_000_000, 1_000_000]
    assert found["duplicate_10gram_share"][0] == pytest.approx(0.8, abs=1e-3)


def test_scripts_without_spaces_have_words_and_no_word_length():
    (count,), (length,) = (
        statistics(["我们在北京大学学习中文, 2014 NBA。"])[name] for name in ("words", "mean_word_length")
    )
    assert count == 13 and math.isnan(length)
