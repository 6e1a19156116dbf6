import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.corpus.cleaning import characters
from gptjax.corpus.cleaning.statistics import COLUMNS, statistics

# Texts of few different words, so that lines, paragraphs and n-grams repeat, with pieces that the rules look for.
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


# Worked out by hand from the rules' publications. Statistics that a text does not name are 0.
BY_HAND = {
    # Two lines are equal; of four lines that are not blank one ends in "…", none in a full stop. 18 words, including
    # the "-".
    "The cat sat on the mat.\nIt was... fine\n- the end…\n\nThe cat sat on the mat.\n": {
        "characters": 75, "words": 17, "mean_word_length": 55 / 17, "alphabetic_word_share": 17 / 18, "stop_words": 1,
        "ellipses_per_word": 2 / 18, "bullet_line_share": 1 / 5, "ellipsis_line_share": 1 / 5,
        "duplicate_line_share": 1 / 4, "duplicate_line_character_share": 23 / 70,
        "top_2gram_share": 2 * len("The cat") / 75, "top_3gram_share": 2 * len("The cat sat") / 75,
        "top_4gram_share": 2 * len("The cat sat on") / 75, "duplicate_5gram_share": len("Thecatsatonthe") / 75,
        "duplicate_6gram_share": len("Thecatsatonthemat.") / 75, "sentences": 2, "any_line_sentences": 5,
        "punctuated_line_share": 2 / 4, "short_line_share": 1, "newlines_per_word": 5 / 18, "mean_line_length": 70 / 5,
        "max_line_length": 23, "alphanumeric_share": 49 / 75,
    },
    # "a b c d e" occurs three times, the third time after x; no six words occur twice, since x separates them.
    "a b c d e a b c d e x a b c d e": {
        "characters": 31, "words": 16, "mean_word_length": 1, "alphabetic_word_share": 1,
        "top_2gram_share": 3 * len("a b") / 31, "top_3gram_share": 3 * len("a b c") / 31,
        "top_4gram_share": 3 * len("a b c d") / 31, "duplicate_5gram_share": 2 * len("abcde") / 31,
        "any_line_sentences": 1, "mean_line_length": 31, "max_line_length": 31, "alphanumeric_share": 16 / 31,
    },
    # For C4, the first line ends in a reference, the third names scripts, the fourth a policy, the sixth is too short.
    "my name is Lorem Ipsum, friend.[3]\nif (x) { return y; } and so on.\nEnable JavaScript to see this page.\n"
    'Read our Privacy Policy, please. Or not.\nno end of a line {\nshort one\nHe said "no." Then he left! Why?\n': {
        "characters": 206, "words": 40, "mean_word_length": 160 / 40, "alphabetic_word_share": 40 / 43, "stop_words": 3,
        "top_2gram_share": len("my name") / 206, "top_3gram_share": len("my name is") / 206,
        "top_4gram_share": len("my name is Lorem") / 206, "lorem_ipsum": 1, "curly_brackets": 1, "sentences": 5,
        "any_line_lorem_ipsum": 1, "any_line_curly_brackets": 2, "any_line_sentences": 6,
        "punctuated_line_share": 4 / 7, "short_line_share": 2 / 7, "newlines_per_word": 7 / 43,
        "mean_line_length": 199 / 7, "max_line_length": 40, "alphanumeric_share": 143 / 206,
    },
    # Seven characters are words by themselves, so there is no mean word length; "。", "#1" and "！" make ten words.
    "你好世界。今天 #1 好！": {
        "characters": 13, "words": 8, "mean_word_length": None, "alphabetic_word_share": 7 / 10,
        "hashes_per_word": 1 / 10,
        "top_2gram_share": 3 / 13, "top_3gram_share": 5 / 13, "top_4gram_share": 7 / 13, "any_line_sentences": 2,
        "punctuated_line_share": 1, "short_line_share": 1, "mean_line_length": 13, "max_line_length": 13,
        "alphanumeric_share": 8 / 13,
    },
    # Three paragraphs, the third equal to the second; six lines, of which three are blank.
    "# a ## b\n\n\none\n\none\n": {
        "characters": 20, "words": 4, "mean_word_length": 8 / 4, "alphabetic_word_share": 4 / 6,
        "hashes_per_word": 3 / 6,
        "duplicate_paragraph_share": 1 / 3, "duplicate_paragraph_character_share": 3 / 20,
        "duplicate_line_share": 1 / 3, "duplicate_line_character_share": 3 / 14, "top_2gram_share": len("# a") / 20,
        "top_3gram_share": len("# a ##") / 20, "top_4gram_share": len("# a ## b") / 20, "any_line_sentences": 1,
        "short_line_share": 1, "newlines_per_word": 6 / 6, "mean_line_length": 14 / 6, "max_line_length": 8,
        "alphanumeric_share": 8 / 20,
    },
    "": {"mean_word_length": None},
}  # fmt: skip


def test_statistics_equal_figures_worked_out_by_hand():
    found = statistics(list(BY_HAND))
    assert tuple(found) == COLUMNS
    for number, (text, figures) in enumerate(BY_HAND.items()):
        assert not figures.keys() - {*COLUMNS}
        for name in COLUMNS:
            expected = figures.get(name, 0)
            expected = math.nan if expected is None else expected
            assert found[name][number] == pytest.approx(expected, abs=1e-12, nan_ok=True), (name, text)


@pytest.mark.parametrize(
    "text, name, expected",
    [
        ("x" * 1000 + " a b.", "sentences", 1),
        ("x" * 1001 + " a b.", "sentences", 0),  # a word that is too long for C4
        ("İ" * 40 + "\nlorem ipsum, then.\nb", "lorem_ipsum", 1),  # a letter that becomes two in lower case
        ("...... a", "ellipses_per_word", 2 / 2),
        ("one two three.)) four", "any_line_sentences", 2),
        ("one two three.))) four", "any_line_sentences", 1),  # two closers at most
        ("一二三。四五六！」", "any_line_sentences", 2),
        ("a b c ... d", "any_line_sentences", 2),
    ],
)
def test_statistics_of_edge_cases(text, name, expected):
    assert statistics(["before it.", text, "after it."])[name][1] == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(TEXTS, REPEATING), min_size=2, max_size=5))
def test_statistics_of_a_text_do_not_depend_on_other_texts(texts):
    together = statistics(texts)
    for number, text in enumerate(texts):
        for name, (value,) in statistics([text]).items():
            np.testing.assert_equal(together[name][number], value, err_msg=f"{name} of {text!r}")


def test_batches_do_not_change_statistics(monkeypatch):
    texts = ["the a of\n" * 20, "the a of\n" * 3, "Ünïcode the a of\n" * 5, "", "a " * 3000] * 3
    together = statistics(texts)
    monkeypatch.setattr(characters, "BATCH_CHARACTERS", 10)
    for number, text in enumerate(texts):
        for name, (value,) in statistics([text]).items():
            np.testing.assert_equal(together[name][number], value, err_msg=name)


def test_no_texts_have_no_statistics():
    assert all(len(column) == 0 for column in statistics([]).values())


def test_a_line_of_a_megabyte_is_handled():
    found = statistics(["word " * 200_000, "x" * 1_000_000])
    assert found["words"].tolist() == [200_000, 1] and found["max_line_length"].tolist() == [1_000_000, 1_000_000]
    assert found["duplicate_10gram_share"][0] == pytest.approx(0.8, abs=1e-3)


def test_scripts_without_spaces_have_words_but_no_word_length():
    (count,), (length,) = (
        statistics(["我们在北京大学学习中文, 2014 NBA。"])[name] for name in ("words", "mean_word_length")
    )
    assert count == 13 and math.isnan(length)
