"""SQuAD's rule for hard cases, derived by hand from the published script of version 1.1."""

from decimal import Decimal

import pytest

from gptjax.evaluation.tasks.answers import SCORES, final_number, rouge_scores, squad_f1, squad_normalized


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Eiffel\tTower.", "eiffel tower"),
        ("an apple a day", "apple day"),
        ("U.S.A.", "usa"),  # punctuation is removed before articles, so no separate "a" remains
        ("the-end", "theend"),
        ("Theatre", "theatre"),
        ("A", ""),
        ("—", "—"),  # not ASCII, so it stays, as in the script
        ("L'été, «the» sun", "lété « » sun"),
    ],
)
def test_normalization_follows_the_script(text, normal):
    assert squad_normalized(text) == normal


@pytest.mark.parametrize(
    ("answer", "references", "f1", "exact"),
    [
        ("the Denver Broncos", ["Denver Broncos"], 1.0, 1.0),
        ("Broncos of Denver", ["Denver Broncos"], 0.8, 0.0),  # 2 of 3 and 2 of 2
        ("Denver, Denver", ["Denver Broncos"], 0.5, 0.0),  # a repeated token counts once
        ("no, no, no", ["no no"], 0.8, 0.0),  # and twice if both repeat it
        ("in 1984.", ["1985", "the year 1984", "1984!"], 2 / 3, 0.0),  # the best of several references
        ("in 1984.", ["1985", "In 1984"], 1.0, 1.0),
        ("", ["Denver"], 0.0, 0.0),
        ("Denver", ["the"], 0.0, 0.0),  # nothing is left of the reference
        ("the", ["A"], 1.0, 1.0),  # nothing is left of both, so they are equal
    ],
)
def test_f1_and_exact_match(answer, references, f1, exact):
    assert SCORES["squad_f1"](answer, references) == pytest.approx(f1)
    assert SCORES["squad_exact_match"](answer, references) == exact


def test_f1_is_symmetric():
    assert squad_f1("one two", "two three four") == squad_f1("two three four", "one two") == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 + 4 = 7", 7),
        ("#### 1,200", 1200),
        ("it is 12 dollars #### 5 of them and 9 more", 5),
        ("#### -3.50", Decimal("-3.5")),
        ("$18.", 18),
        ("none", None),
        ("####", None),
        ("1,2,3", 123),  # commas between thousands
    ],
)
def test_the_final_number(text, number):
    assert final_number(text) == number


def test_numbers_are_equal_by_value():
    assert SCORES["final_number"]("that makes 18.00", ["18"]) == 1
    assert SCORES["final_number"]("nothing", ["nothing"]) == 0  # no number is no answer


def test_exact_match_ignores_only_surrounding_white_space():
    assert SCORES["exact_match"](" Paris\n", ["Rome", "Paris"]) == 1
    assert SCORES["exact_match"]("paris", ["Paris"]) == 0


def test_rouge_equals_the_library_with_the_best_reference():
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    references = ["cats sleep all day", "the dogs ran in the park"]
    expected = scorer.score(references[1], "a dog runs in the park")
    found = rouge_scores("a dog runs in the park", references, ["rouge1", "rougeL"])
    assert found == {name: score.fmeasure for name, score in expected.items()}
    assert found["rouge1"] > 0.6
