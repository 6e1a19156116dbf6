"""The section `cleaning` of a corpus's config, and what it means for each source."""

from __future__ import annotations

import importlib.util
from typing import Any

from ml_collections import ConfigDict

from gptjax.config import ConfigError, suggestion
from gptjax.corpus.cleaning import personal, rules

# The recipe of a source of each kind, unless the source names one. Other kinds have none.
RECIPE_OF_KIND = {"web": "web", "code": "code", "books": "books", "papers": "papers", "wikipedia": "text"}


def default() -> ConfigDict:
    """Every field, with published thresholds; a rule's name is its field: cleaning.gopher_quality.min_words."""
    return ConfigDict(
        dict(
            repair=True,  # repair encodings, line ends, invisible characters, unusual spaces; in code only line ends
            language=True,  # detect the language of documents whose source does not state it (never of code)
            languages=(),  # languages to keep, as ISO 639-1 codes; none: keep all
            language_confidence=0.65,  # drop documents whose language is less certain than this (FineWeb's value)
            personal=(),  # personal data to mask; any of: email, ip, phone, iban, card, secret
            recipes=dict(rules.RECIPES),  # the rules of each recipe, in order: rules, groups, your own (rules.py)
            # thresholds for single languages: {"de": {"gopher_quality": {"min_stop_words": 0}}}
            by_language=ConfigDict(),
            **rules.default_thresholds(),  # a document exactly at this threshold is kept
        )
    )


def off() -> dict[str, Any]:
    """The fields that switch cleaning off."""
    return {"repair": False, "language": False}


def validate(config: Any) -> None:
    """Raises ConfigError for invalid settings, before anything is read."""
    for kind in config.personal:
        if kind not in personal.KINDS:
            raise ConfigError(
                f"cleaning.personal: {kind!r}: expected some of {', '.join(personal.KINDS)}"
                f"{suggestion(kind, personal.KINDS)}"
            )
    for name, recipe in config.recipes.items():
        try:
            rules.chosen(recipe, config)
        except ConfigError as error:
            raise ConfigError(f"cleaning.recipes.{name}: {error}") from None
    rules.check_by_language(config)
    if not 0 <= config.language_confidence <= 1:
        raise ConfigError(f"cleaning.language_confidence = {config.language_confidence}: must be in [0, 1]")
    if config.languages and not config.language:
        raise ConfigError("cleaning.languages needs cleaning.language = True: documents rarely state their language")
    for field, module in (("repair", "ftfy"), ("language", "py3langid")):
        if config[field] and importlib.util.find_spec(module) is None:
            raise ConfigError(f"cleaning.{field} = True: needs pip install 'gptjax[corpus]', or set it to False")


def validate_recipe(recipe: Any) -> None:
    if recipe and recipe not in rules.RECIPES:
        raise ConfigError(
            f"recipe = {recipe!r}: expected one of {', '.join(rules.RECIPES)}, or '' for none"
            f"{suggestion(str(recipe), rules.RECIPES)}"
        )


def is_asked(config: Any, source: Any) -> bool:
    """Whether the config asks for any cleaning of a source."""
    return bool(config.repair or config.language or config.personal or source.recipe)


def options(config: Any) -> dict[str, Any]:
    """The options of stages/clean.py, the same for all sources."""
    return {"mend": config.repair, "language": config.language, "personal": list(config.personal)}


def libraries(config: Any, source: Any) -> tuple[str, ...]:
    """The libraries that decide the output of stages/clean.py for a source."""
    mended = ("ftfy",) if config.repair else ()
    identified = ("py3langid",) if config.language and not source.language else ()
    return () if source.recipe == "code" else (*mended, *identified)


def treatment(source: Any) -> dict[str, bool]:
    """The inputs of stages/clean.py that depend on the source."""
    return {"code": source.recipe == "code", "statistics": bool(source.recipe)}


def verdict(config: Any, source: Any) -> dict[str, Any]:
    """The inputs of stages/select.py that depend on the source."""
    recipe = config.recipes[source.recipe] if source.recipe else ()
    return {
        "rules": [vars(rule) for rule in rules.chosen(recipe, config)],
        "languages": [] if source.recipe == "code" else list(config.languages),
        "confidence": config.language_confidence,
    }
