"""Named rules, each a figure of a document and a published threshold; a recipe is the rules for a kind of source.

A rule's name is that of its threshold in a config and of the reason in a verdict: gopher_quality.min_words.

A recipe names your own rule as 'my_ideas:shouts': a function of my_ideas.py in the current folder, or of any
installed module. It is given a document's cleaned text, and returns whether the document is dropped:

    def shouts(text): return text.isupper()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gptjax.config import ConfigError, suggestion
from gptjax.config.named_functions import called, code_hash, is_named, named_function
from gptjax.corpus.cleaning.statistics import DUPLICATE

EMPTY = "empty"  # nothing is left of it
OTHER_LANGUAGE = "other language"
RECIPES_FIELD = "cleaning.recipes"


@dataclass(frozen=True)
class Rule:
    """Drops a document whose figure is too low (`min_…`) or too high (`max_…`).

    Attributes:
      group, name: name the rule; column: the figure (statistics.py); threshold: the last value that is allowed.
      language: the rule judges only documents of this or of unknown language; empty: all documents.
      by_language: language → its own threshold; the rule judges documents of these languages, too.
    """

    group: str
    name: str
    column: str
    threshold: float
    language: str = ""
    by_language: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.group}.{self.name}"

    def objects(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """bool [documents]: whether the rule drops each; it never drops one whose figure is not a number."""
        figures = columns[self.column]
        threshold: Any = self.threshold
        if self.by_language:
            threshold = np.array([self.by_language.get(one, self.threshold) for one in columns["language"]])
        out = figures < threshold if self.name.startswith("min_") else figures > threshold
        if self.language:
            out = out & np.isin(columns["language"], ("", self.language, *self.by_language))
        return out


@dataclass(frozen=True)
class OwnRule:
    """A rule that is the user's function: 'module:function', str → bool.

    Attributes:
      function: its name, which is the rule's name; source: a hash of its file, so that verdicts of another version of
        the function are not used.
    """

    function: str
    source: str

    column = "text"

    def __str__(self) -> str:
        return self.function

    def objects(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """bool [documents].

        Raises:
          ConfigError: the function does not exist, differs from the one at the start, fails, or returns no bool.
        """
        judge = named_function(RECIPES_FIELD, self.function, takes=1)
        if code_hash(self.function) != self.source:
            raise ConfigError(
                f"{RECIPES_FIELD} = {self.function!r}: its file is not the same in all processes, or has changed since "
                "the command was started; start it again"
            )
        verdicts = called(RECIPES_FIELD, self.function, lambda: [judge(text) for text in columns["text"]])
        if odd := [verdict for verdict in verdicts if not isinstance(verdict, bool | np.bool_)]:
            raise ConfigError(f"{RECIPES_FIELD} = {self.function!r}: must return True or False, not {odd[0]!r}")
        return np.array(verdicts, bool)


def own_rule(name: str) -> OwnRule:
    """The rule 'module:function', after it was tried on two texts.

    Raises:
      ConfigError: as for `OwnRule.objects`.
    """
    named_function(RECIPES_FIELD, name, takes=1)
    rule = OwnRule(name, code_hash(name) or "")
    rule.objects({"text": np.array(["", "A document of two words, or of more.\n"], object)})
    return rule


def rule_of(fields: Mapping[str, Any]) -> Rule | OwnRule:
    """Returns the rule with these `vars`."""
    return OwnRule(**fields) if "function" in fields else Rule(**fields)


def _group(group: str, *rules: tuple) -> tuple[Rule, ...]:
    return tuple(Rule(group, *fields) for fields in rules)


# Gopher's and FineWeb's rules are for English words. `any_line` counts C4's rules as FineWeb does, where lines need not
# end in punctuation.
GROUPS: dict[str, tuple[Rule, ...]] = {
    # arXiv:2112.11446, appendix A.1.1
    "gopher_quality": _group(
        "gopher_quality",
        ("min_words", "words", 50),
        ("max_words", "words", 100_000),
        ("min_mean_word_length", "mean_word_length", 3.0),
        ("max_mean_word_length", "mean_word_length", 10.0),
        ("max_hashes_per_word", "hashes_per_word", 0.1),
        ("max_ellipses_per_word", "ellipses_per_word", 0.1),
        ("max_bullet_line_share", "bullet_line_share", 0.9),
        ("max_ellipsis_line_share", "ellipsis_line_share", 0.3),
        ("min_alphabetic_word_share", "alphabetic_word_share", 0.8),
        ("min_stop_words", "stop_words", 2, "en"),
    ),
    # The same, table A1
    "gopher_repetition": _group(
        "gopher_repetition",
        ("max_duplicate_paragraph_share", "duplicate_paragraph_share", 0.3),
        ("max_duplicate_paragraph_character_share", "duplicate_paragraph_character_share", 0.2),
        ("max_duplicate_line_share", "duplicate_line_share", 0.3),
        ("max_duplicate_line_character_share", "duplicate_line_character_share", 0.2),
        ("max_top_2gram_share", "top_2gram_share", 0.2),
        ("max_top_3gram_share", "top_3gram_share", 0.18),
        ("max_top_4gram_share", "top_4gram_share", 0.16),
        *(
            (f"max_duplicate_{n}gram_share", f"duplicate_{n}gram_share", share)
            for n, share in zip(DUPLICATE, (0.15, 0.14, 0.13, 0.12, 0.11, 0.10))
        ),
    ),
    # arXiv:1910.10683, section 2.2
    "c4": _group(
        "c4",
        ("max_lorem_ipsum", "lorem_ipsum", 0),
        ("max_curly_brackets", "curly_brackets", 0),
        ("min_sentences", "sentences", 5),
    ),
    # The same on all lines, arXiv:2406.17557, section 3.5
    "c4_any_line": _group(
        "c4_any_line",
        ("max_lorem_ipsum", "any_line_lorem_ipsum", 0),
        ("max_curly_brackets", "any_line_curly_brackets", 0),
        ("min_sentences", "any_line_sentences", 5),
    ),
    # arXiv:2406.17557, section 3.6; the last two as in its released code
    "fineweb": _group(
        "fineweb",
        ("min_punctuated_line_share", "punctuated_line_share", 0.12),
        ("max_short_line_share", "short_line_share", 0.67),
        ("max_duplicate_line_character_share", "duplicate_line_character_share", 0.01),
        ("max_newlines_per_word", "newlines_per_word", 0.3),
    ),
    # arXiv:2107.03374, section 3.1; the alphanumeric share from arXiv:2305.06161
    "code": _group(
        "code",
        ("max_mean_line_length", "mean_line_length", 100.0),
        ("max_line_length", "max_line_length", 1000),
        ("min_alphanumeric_share", "alphanumeric_share", 0.25),
    ),
}

# The rules, or whole groups, of each recipe in order: the first rule that objects is the reason.
RECIPES: dict[str, tuple[str, ...]] = {
    "web": ("gopher_repetition", "gopher_quality", "c4_any_line", "fineweb"),
    "code": ("code",),
    # Verse and plays have short lines, and chapters may have any number of words.
    "books": (
        *("gopher_quality.min_words", "gopher_quality.min_mean_word_length", "gopher_quality.max_mean_word_length"),
        *("gopher_quality.min_alphabetic_word_share", "gopher_quality.min_stop_words", "gopher_repetition"),
    ),
    # Formulas are words without letters.
    "papers": ("gopher_quality.min_words", "gopher_quality.min_stop_words", "gopher_repetition"),
    "text": ("gopher_repetition", "gopher_quality"),
}


def default_thresholds() -> dict[str, dict[str, float]]:
    """group → name → threshold, as published."""
    return {group: {rule.name: rule.threshold for rule in rules} for group, rules in GROUPS.items()}


def chosen(names: Iterable[str], thresholds: Mapping[str, Any]) -> list[Rule | OwnRule]:
    """The rules of a recipe, with thresholds by group and name.

    Raises:
      ConfigError: no rule or group has such a name.
    """
    every = {str(rule): rule for rules in GROUPS.values() for rule in rules}
    found: list[Rule | OwnRule] = []
    for name in names:
        if is_named(name):
            found.append(own_rule(name))
            continue
        if name not in GROUPS and name not in every:
            known = [*GROUPS, *every]
            raise ConfigError(f"{name!r}: there is no such rule or group of rules{suggestion(name, known)}")
        for rule in GROUPS.get(name) or (every[name],):
            threshold = thresholds[rule.group][rule.name]
            own = {language: rules[str(rule)] for language, rules in _by_language(thresholds) if str(rule) in rules}
            found.append(Rule(rule.group, rule.name, rule.column, threshold, rule.language, own))
    return found


def _by_language(thresholds: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """(language, rule → its threshold there), from language → group → name → threshold."""
    return sorted(
        (language, {f"{group}.{name}": limit for group, rules in groups.items() for name, limit in rules.items()})
        for language, groups in thresholds.get("by_language", {}).items()
    )


def check_by_language(thresholds: Mapping[str, Any]) -> None:
    """Raises ConfigError unless the field by_language has thresholds of rules."""
    known = [str(rule) for rules in GROUPS.values() for rule in rules]
    field = "cleaning.by_language"
    if odd := [name for name, groups in thresholds["by_language"].items() if not all(map(_has_items, groups.values()))]:
        raise ConfigError(
            f'{field}.{odd[0]}: expected groups of thresholds, as {{"gopher_quality": {{"min_words": 20}}}}'
        )
    for language, rules in _by_language(thresholds):
        for name, limit in rules.items():
            if name not in known:
                raise ConfigError(f"{field}.{language}: there is no rule {name!r}{suggestion(name, known)}")
            if isinstance(limit, bool) or not isinstance(limit, int | float):
                raise ConfigError(f"{field}.{language}.{name} = {limit!r}: must be a number")


def _has_items(value: Any) -> bool:
    return hasattr(value, "items")


def decide(
    columns: Mapping[str, np.ndarray],
    rules: Sequence[Rule | OwnRule],
    languages: Sequence[str] = (),
    confidence: float = 0.0,
) -> dict[str, np.ndarray]:
    """Which documents each rule objects to: reason → bool [documents], in the order of the rules.

    Args:
      columns: those of statistics.py, with language and language_confidence, and text if a rule of the user needs it.
      languages: documents stay only if one of these was detected with this confidence; empty: all stay.
    """
    objections = {EMPTY: columns["characters"] == 0}
    if languages:
        sure = columns["language_confidence"] >= confidence
        objections[OTHER_LANGUAGE] = ~(np.isin(columns["language"], languages) & sure)
    return objections | {str(rule): rule.objects(columns) for rule in rules}


def first_objections(objections: Mapping[str, np.ndarray]) -> np.ndarray:
    """str [documents]: the first reason to drop each; '' if there is none."""
    opposed = np.stack(list(objections.values()))
    reasons = np.array(["", *objections], object)
    return reasons[np.where(opposed.any(axis=0), opposed.argmax(axis=0) + 1, 0)]
