"""A corpus = one config: its sources and what is done to them, every field with its meaning.

A config file is Python: its `get_config(arg=None)` starts from `default()`, names `sources` and sets what differs;
flags override any field but those of sources (`--config.tokenizer.vocab_size=32000`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from gptjax.config import ConfigError, check_fields, get, suggestion
from gptjax.corpus import sources
from gptjax.corpus.cleaning import config as cleaning
from gptjax.corpus.contamination import evaluations
from gptjax.corpus.duplicates.bands import parameters
from gptjax.corpus.duplicates.passages import KINDS as PASSAGES

SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def source(
    *,
    name: str,
    kind: str,
    path: str,
    weight: float = 1.0,
    license: str = "",
    language: str = "",
    recipe: str | None = None,
    **options: Any,
) -> ConfigDict:
    """A source of documents.

    Args:
      name: of your choice, one for each source; in ids, tables and the manifest.
      kind: how it is read: text (gptjax/corpus/sources has all).
      path: where it is; several with commas between.
      weight: how often each of its documents stands in the training split: 2 is twice, 0.3 are three in ten of them.
      license, language: of documents that do not tell their own.
      recipe: by which rules its documents are judged: web | code | books | papers | text, '' for none; not given: what
        goes with its kind (gptjax/corpus/cleaning/config.py), for text none.
      options: of the kind (OPTIONS in its module).
    """
    recipe = cleaning.RECIPE_OF_KIND.get(kind, "") if recipe is None else recipe
    told = dict(name=name, kind=kind, path=path, weight=weight, license=license, language=language, recipe=recipe)
    return ConfigDict({**told, "options": options})


def evaluation(*, name: str, kind: str, path: str, fields: tuple[str | int, ...] = ()) -> ConfigDict:
    """An evaluation set that should not stand in the training text.

    Args:
      name: of your choice, in verdicts, the manifest and the data card.
      kind: of its files: squad | jsonl | table | text (gptjax/corpus/contamination/evaluations.py).
      path: of a file, a folder or a pattern; several with commas between.
      fields: which of a record's fields give an item away; none: see there.
    """
    return ConfigDict(dict(name=name, kind=kind, path=path, fields=tuple(fields)))


def default() -> ConfigDict:
    """Every field there is, with values that make a corpus of good text."""
    config = ConfigDict()
    config.sources = ()  # of source(…)
    config.seed = 0  # of the split, of samples and of hashing
    config.shard_megabytes = 128  # of text in one task: bounds memory, and what a killed worker loses
    config.max_document_megabytes = 4.0  # longer ones are cut at paragraphs
    config.max_failure_share = 0.5  # of a source's documents and files that may be unreadable

    config.cleaning = cleaning.default()
    config.duplicates = ConfigDict(
        dict(
            kind="near",  # none | exact (the same but for white space) | near (exact ones, too)
            threshold=0.8,  # near: least Jaccard similarity of the sets of shingles
            unit="word",  # near: of a shingle: word | character (for scripts that do not part words)
            ngram=5,  # near: units in a shingle
            permutations=128,  # near: of MinHash
            verify=True,  # near: candidates are compared exactly, by all their shingles
            scope="global",  # global | source: copies in other sources are no copies
            earlier=(),  # prepared folders: what is a copy of a document there is left out, they keep all of theirs
            memory_megabytes=512,  # for the join of keys; more are spilled to disk
        )
    )
    config.passages = ConfigDict(
        dict(
            kind="none",  # none | paragraph | line | window (any run of words): what may stand in several places
            words=50,  # in it, at least
            action="report",  # report | remove: later copies are left out of the text (of code, windows tear files)
            memory_megabytes=512,  # for the join of hashes; more are spilled to disk
        )
    )
    config.contamination = ConfigDict(
        dict(
            sets=(),  # of evaluation(…): what must not stand in the training text
            ngram=13,  # words in a row that give a text of an evaluation set away
            least_words=8,  # shorter texts are looked for whole, from this many words on
            least_hits=1,  # different n-grams of one set in a document, from which on it is contaminated
            action="remove",  # remove | report: contaminated documents are left out, or only counted
        )
    )
    config.tokenizer = ConfigDict(
        dict(
            name="bpe",  # bpe | unigram | byte | char | a prepared folder or tokenizer file to reuse
            vocab_size=0,  # 0: every character for char; for bpe and unigram 8192, or fewer where the text is small
            split_digits=True,  # bpe, unigram: every digit is a token of its own
            sample_megabytes=100.0,  # bpe, unigram: learn from this much of the training text, by the sources' weights
            compare=(),  # other tokenizers (folders or files) whose bytes a token the manifest tells, too
        )
    )
    config.split = ConfigDict(
        dict(
            validation_fraction=0.05,  # share held out; 0: no validation split
            # Of what is expected to be held out of a source, one document is at most so much: of longer ones that are
            # held out, the beginning is validation text, and the rest stands in no split. 1: they are held out whole.
            largest_share=0.05,
            by="auto",  # document: whole ones, copies on one side | tail: each one's end | auto: tail if they are few
        )
    )
    config.tokens = ConfigDict(
        dict(
            # What each document starts after, in training, evaluation and generation alike. False: the end-of-text
            # token of the document before; True: a beginning-of-text token of its own.
            bos=False,
            shard_tokens=1 << 28,  # tokens a shard file
        )
    )
    return config.lock()


_CHOICES = {
    "duplicates.kind": ("none", "exact", "near"),
    "duplicates.unit": ("word", "character"),
    "duplicates.scope": ("global", "source"),
    "passages.kind": ("none", *PASSAGES),
    "passages.action": ("report", "remove"),
    "contamination.action": ("remove", "report"),
    "split.by": ("auto", "document", "tail"),
}
_AT_LEAST_ONE = (
    "shard_megabytes duplicates.ngram duplicates.permutations duplicates.memory_megabytes contamination.ngram "
    "contamination.least_words contamination.least_hits passages.words passages.memory_megabytes tokens.shard_tokens"
).split()
_POSITIVE = ("max_document_megabytes", "tokenizer.sample_megabytes")


def allowed(field: str) -> str:
    """What a field may be beyond its type, in a few words; '' where its comment says all."""
    limits = ((_AT_LEAST_ONE, "at least 1"), (_POSITIVE, "positive"))
    return " | ".join(_CHOICES.get(field, ())) or ", ".join(text for fields, text in limits if field in fields)


def validate(config: Any) -> None:
    """Checks all that can be known without reading a source.

    Raises:
      ConfigError: the first thing that cannot work, with the field, the value and what is allowed.
    """
    check_fields(config, default())
    for field, allowed in _CHOICES.items():
        if (value := get(config, field)) not in allowed:
            raise ConfigError(f"{field} = {value!r}: expected one of {', '.join(allowed)}{suggestion(value, allowed)}")
    limits = (
        (_AT_LEAST_ONE, lambda v: v >= 1, "must be at least 1"),
        (_POSITIVE, lambda v: v > 0, "must be positive"),
        (["seed", "tokenizer.vocab_size"], lambda v: v >= 0, "must not be negative"),
        (["split.validation_fraction"], lambda v: 0 <= v < 1, "must be in [0, 1)"),
        (["split.largest_share"], lambda v: 0 < v <= 1, "must be in (0, 1]"),
        (["max_failure_share"], lambda v: 0 <= v <= 1, "must be in [0, 1]"),
        (["duplicates.threshold"], lambda v: 0 < v <= 1, "must be in (0, 1]"),
    )
    for fields, holds, allowed in limits:
        for field in fields:
            if not holds(get(config, field)):
                raise ConfigError(f"{field} = {get(config, field)}: {allowed}")
    if config.duplicates.kind == "none" and config.duplicates.earlier:
        raise ConfigError("duplicates.earlier: needs duplicates.kind = 'near' or 'exact'")
    if config.duplicates.kind == "near":
        parameters(config.duplicates.threshold, config.duplicates.permutations)
    cleaning.validate(config.cleaning)
    _validate_sources(config.sources)
    _validate_evaluations(config.contamination)


def _validate_names(field: str, given: Any, made_by: Callable[..., ConfigDict]) -> None:
    for one in given:
        if not isinstance(one, ConfigDict | FrozenConfigDict):
            raise ConfigError(f"{field}: {one!r} is none: they are made by {made_by.__name__}(…)")
    names = [one.name for one in given]
    for name in names:
        if not SOURCE_NAME.fullmatch(name):
            raise ConfigError(f"{field}: name = {name!r}: letters, digits, dots, dashes and underscores, please")
        if names.count(name) > 1:
            raise ConfigError(f"{field}: {name!r} is the name of {names.count(name)} of them")


def _validate_evaluations(config: Any) -> None:
    if config.least_words > config.ngram:
        raise ConfigError(
            f"contamination.least_words = {config.least_words}: must not exceed contamination.ngram = {config.ngram}"
        )
    _validate_names("contamination.sets", config.sets, evaluation)
    for one in config.sets:
        if one.kind not in evaluations.KINDS:
            raise ConfigError(
                f"contamination.sets: {one.name}: kind = {one.kind!r}: expected one of "
                f"{', '.join(evaluations.KINDS)}{suggestion(one.kind, evaluations.KINDS)}"
            )


def _validate_sources(given: Any) -> None:
    if not given:
        raise ConfigError("sources: there are none; config.sources = (source(name=…, kind=…, path=…), …)")
    _validate_names("sources", given, source)
    for one in given:
        if not (isinstance(one.weight, int | float) and 0 <= one.weight < 1000):
            raise ConfigError(f"sources: {one.name}: weight = {one.weight!r}: must be in [0, 1000)")
        try:
            cleaning.validate_recipe(one.recipe)
            known = sources.kind_named(one.kind).OPTIONS
        except ConfigError as error:
            raise ConfigError(f"sources: {one.name}: {error}") from None
        for option in one.options:
            if option not in known:
                raise ConfigError(
                    f"sources: {one.name}: a source of kind {one.kind!r} has no option {option!r}"
                    f"{suggestion(option, known)} (options: {', '.join(known) or 'none'})"
                )
    if not any(one.weight for one in given):
        raise ConfigError("sources: the weight of each is 0, so the training split would be empty")


def plain(value: Any) -> Any:
    """A config as JSON's own types."""
    if isinstance(value, ConfigDict | FrozenConfigDict):
        return {name: plain(inner) for name, inner in sorted(value.items())}
    if isinstance(value, tuple | list):
        return [plain(inner) for inner in value]
    return value
