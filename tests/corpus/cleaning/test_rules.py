import numpy as np
import pytest

from gptjax.config import ConfigError
from gptjax.corpus.cleaning import rules
from gptjax.corpus.cleaning.statistics import COLUMNS, statistics

NEW = [f"w{number}" for number in range(200_000)]  # words that do not repeat


def words(count, *more):
    return " ".join([*more, *NEW[: count - len(more)]])


def lines(count, *more):
    return "\n".join([*more, *(f"{word} {word}x {word}y." for word in NEW[: count - len(more)])])


def repeated(ngram, share, length=1000):
    """A text of about `length` characters, of which `share` are repetitions of `ngram` after its first occurrence."""
    times = round(share * length / len(ngram.replace(" ", "")))
    new = iter(NEW)
    parts = [ngram]
    for _ in range(times):
        parts += [next(new), ngram]
    while len(" ".join(parts)) < length:
        parts.append(next(new))
    return " ".join(parts)[:length]


def top(n, share, times=8):
    """1,000 characters, of which `share` belong to an n-gram that occurs `times` times."""
    ngram = " ".join("abcdefghij"[:n])
    size = round(share * 1000 / times) - len(ngram)
    ngram = ngram + "a" * size
    new = iter(NEW)
    text = " ".join(f"{ngram} {next(new)}" for _ in range(times))
    while len(text) < 1000:
        text += " " + next(new)
    return text[:1000]


SENTENCE = "Here are five words, {} more. "
# rule: (text that just passes, text that just fails)
EDGES = {
    "gopher_quality.min_words": (words(50), words(49)),
    "gopher_quality.max_words": (words(100_000), words(100_001)),
    "gopher_quality.min_mean_word_length": ("abc abc abcd ab", "abc abc abc ab"),
    "gopher_quality.max_mean_word_length": ("a" * 10, "a" * 11),
    "gopher_quality.max_hashes_per_word": (words(10, "#a"), words(9, "#a")),
    "gopher_quality.max_ellipses_per_word": (words(20, "a...", "b…"), words(20, "a...", "b…", "c...")),
    "gopher_quality.max_bullet_line_share": ("- a\n" * 9 + "b", "- a\n" * 5 + "• b\n" * 5),
    "gopher_quality.max_ellipsis_line_share": ("a…\n" * 3 + "b\n" * 7, "a...\n" * 4 + "b\n" * 6),
    "gopher_quality.min_alphabetic_word_share": ("a a a a 1", "a a a 1"),
    "gopher_quality.min_stop_words": ("the house of", "The house, the end"),
    "gopher_repetition.max_duplicate_paragraph_share": (
        "a\n\n" * 4 + "\n\n".join(NEW[:6]),
        "a\n\n" * 5 + "\n\n".join(NEW[:6]),
    ),
    "gopher_repetition.max_duplicate_paragraph_character_share": (
        "ab\n\n" * 2 + "abcdef",
        "abc\n\n" * 2 + "abcd",
    ),
    "gopher_repetition.max_duplicate_line_share": (lines(10, "a", "a", "a", "a"), lines(10, "a", "a", "a", "a", "a")),
    "gopher_repetition.max_duplicate_line_character_share": ("ab\nab\nabcdef", "abc\nabc\nabcdefgh"),
    **{
        f"gopher_repetition.max_top_{n}gram_share": (top(n, at), top(n, at + 0.008))
        for n, at in ((2, 0.2), (3, 0.176), (4, 0.16))
    },
    **{
        f"gopher_repetition.max_duplicate_{n}gram_share": (
            repeated(" ".join("abcdefghij"[:n]), at - 0.01),
            repeated(" ".join("abcdefghij"[:n]), at + 0.01),
        )
        for n, at in zip(range(5, 11), (0.15, 0.14, 0.13, 0.12, 0.11, 0.10))
    },
    "c4.max_lorem_ipsum": ("Then Lorem ipsum", "Then Lorem ipsum."),  # a line without end punctuation is ignored
    "c4.max_curly_brackets": ("if (a) { and so on", "if (a) { and so on."),
    "c4.min_sentences": (SENTENCE * 5, SENTENCE * 4),
    "c4_any_line.max_lorem_ipsum": ("lorem ipsum", "Then Lorem ipsum"),  # a line of two words is ignored
    "c4_any_line.max_curly_brackets": ("javascript: { and so on", "if (a) { and so on"),
    "c4_any_line.min_sentences": ("Five words are this line\n" * 5, "Five words are this line\n" * 4),
    "fineweb.min_punctuated_line_share": ("a\n" * 22 + "b.\n" * 3, "a\n" * 23 + "b.\n" * 3),
    "fineweb.max_short_line_share": (
        "a\n" * 67 + "b" * 31 + ("\n" + "b" * 31) * 32,
        "a\n" * 68 + ("b" * 31 + "\n") * 32,
    ),
    "fineweb.max_duplicate_line_character_share": ("a\na\n" + "b" * 98, "a\na\n" + "b" * 97),
    "fineweb.max_newlines_per_word": ("a\nb\nc\nd e f g h i j", "a\nb\nc\nd\ne f g h i j"),
    "code.max_mean_line_length": ("a" * 99 + "\n" + "a" * 101, "a" * 100 + "\n" + "a" * 101),
    "code.max_line_length": ("a" * 1000, "a" * 1001),
    "code.min_alphanumeric_share": ("a---", "aa-------"),
}


def objections(text, *names, language="en"):
    columns = statistics([text]) | {"language": np.array([language])}
    found = rules.decide(columns, rules.chosen(names, rules.default_thresholds()))
    return [reason for reason, (against,) in found.items() if against]


def test_every_rule_has_an_edge_case():
    assert set(EDGES) == {str(rule) for group in rules.GROUPS.values() for rule in group}
    assert {rule.column for group in rules.GROUPS.values() for rule in group} <= set(COLUMNS)


@pytest.mark.parametrize("name", EDGES)
def test_rules_decide_edge_cases(name):
    fine, not_fine = EDGES[name]
    assert objections(fine, name) == []
    assert objections(not_fine, name) == [name]


def test_the_first_rule_that_fails_is_the_reason():
    columns = statistics(["", "short", words(60, "the", "of"), words(60)]) | {"language": np.array(["en"] * 4)}
    found = rules.decide(
        columns,
        rules.chosen([f"gopher_quality.min_{what}" for what in ("words", "stop_words")], rules.default_thresholds()),
    )
    reasons = ["empty", "gopher_quality.min_words", "", "gopher_quality.min_stop_words"]
    assert rules.first_objections(found).tolist() == reasons
    assert found["gopher_quality.min_stop_words"].tolist() == [True, True, False, True]


@pytest.mark.parametrize("language, out", [("en", True), ("", True), ("de", False)])
def test_english_stop_words_are_required_only_of_english(language, out):
    assert bool(objections("ein Haus", "gopher_quality.min_stop_words", language=language)) == out


def test_no_rule_drops_a_text_whose_statistic_is_nan():
    assert objections("我们在北京大学学习中文。", "gopher_quality.min_mean_word_length") == []


def test_only_texts_in_chosen_languages_are_kept():
    columns = statistics(["text"] * 4) | {
        "language": np.array(["en", "en", "de", "fr"]),
        "language_confidence": np.array([0.65, 0.64, 1.0, 1.0]),
    }
    found = rules.decide(columns, [], languages=["en", "de"], confidence=0.65)
    assert rules.first_objections(found).tolist() == ["", "other language", "", "other language"]


def test_recipes_name_existing_rules():
    thresholds = rules.default_thresholds()
    web = rules.chosen(
        rules.RECIPES["web"], thresholds | {"fineweb": dict(thresholds["fineweb"], max_short_line_share=0.9)}
    )
    assert [str(rule) for rule in web][-3] == "fineweb.max_short_line_share" and web[-3].threshold == 0.9
    assert all(rules.chosen(recipe, thresholds) for recipe in rules.RECIPES.values())
    with pytest.raises(
        ConfigError, match=r"'gopher_quality.min_word': there is no such rule.*did you mean gopher_quality.min_words"
    ):
        rules.chosen(["gopher_quality.min_word"], thresholds)
