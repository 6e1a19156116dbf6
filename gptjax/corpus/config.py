"""The config of a corpus: its sources and what is done to them.

A config file is Python: its `get_config(arg=None)` starts from `default()`, names `sources` and sets what differs;
flags override any field but those of sources (`--config.tokenizer.vocab_size=32000`).
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from gptjax.config import ConfigError, check_fields, check_values, get, suggestion
from gptjax.config.named_functions import named_function
from gptjax.conversation import load_template
from gptjax.corpus import sources
from gptjax.corpus.cleaning import config as cleaning
from gptjax.corpus.contamination import evaluations
from gptjax.corpus.duplicates.sketch import bands_and_rows
from gptjax.corpus.forms import TEMPLATED, TEXT, form_of
from gptjax.corpus.plain import plain
from gptjax.corpus.settings import Settings
from gptjax.corpus.stages.base import CorpusStage, importable_name
from gptjax.data.prepared import SPLITS
from gptjax.settings import allowed_values, thaw

BUILT_IN = (  # the names of all other stages, in their order (pipeline.py)
    *("evaluations", "extract", "clean", "score", "select", "sketch", "copies", "passages", "join", "mark"),
    *("contaminate", "overlap", "columns", "survey", "sample", "tokenizer"),
    *("source_sample", "source_tokenizer", "encode"),
)
PLACES = ("extract", "select", "copies")  # the stages that a user's stage may follow
NOTHING: Mapping[str, Any] = {}
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
    given_split: str = "",
    max_failure_share: float | None = None,
    **options: Any,
) -> ConfigDict:
    """A source of documents.

    Args:
      name: any name, different for each source; it appears in ids, tables and the manifest.
      kind: how it is read, such as text (gptjax/corpus/sources lists all kinds).
      path: where it is; separate several paths with commas.
      weight: how often the training split repeats each document: 2 is twice; 0.3 keeps three of ten documents.
      license, language: for documents that do not state their own.
      recipe: the cleaning rules for its documents: web | code | books | papers | text, or '' for none. Default: the
        recipe of its kind (gptjax/corpus/cleaning/config.py); kind text has none.
      given_split: the split of all of its documents, where others have divided them: train | validation | test. Such a
        split is not drawn from the other sources, and none of its held-out documents is dropped as a copy. '': no such.
      max_failure_share: the share of its documents and files that may be unreadable. Default: the config's.
      options: the kind's own options (OPTIONS in its module).
    """
    recipe = cleaning.RECIPE_OF_KIND.get(kind, "") if recipe is None else recipe
    described = dict(name=name, kind=kind, path=path, weight=weight, license=license, language=language, recipe=recipe)
    options = {option: tuple(value) if isinstance(value, list) else value for option, value in options.items()}
    described |= {"given_split": given_split} if given_split else {}  # so that older folders are still recognized
    described |= {} if max_failure_share is None else {"max_failure_share": max_failure_share}
    return ConfigDict({**described, "options": options})


def evaluation(*, name: str, kind: str, path: str, fields: tuple[str | int, ...] = ()) -> ConfigDict:
    """An evaluation set whose text should not be in the training text.

    Args:
      name: any name; it appears in verdicts, the manifest and the data card.
      kind: the format of its files: squad | jsonl | table | text (gptjax/corpus/contamination/evaluations.py).
      path: a file, a folder or a pattern; separate several with commas.
      fields: the fields of a record to look for; none: the default of the kind (see that module).
    """
    return ConfigDict(dict(name=name, kind=kind, path=path, fields=tuple(fields)))


def stage(
    *,
    name: str,
    function: str,
    after: str = "select",
    version: int = 1,
    libraries: tuple[str, ...] = (),
    **options: Any,
) -> ConfigDict:
    """Your own stage, which is given one document at a time.

    Args:
      name: any name that no other stage has; also the reason that tables give for the documents that it drops.
      function: 'module:function', of a module in the current folder or of an installed one. It is given a document
        (text, uri, source, license, language, each a str) and the options, and returns the text to keep, changed or
        not, or None to drop the document. It must return the same for the same document, in whatever process it runs.
      after: the stage that it follows: extract (before cleaning), select (after cleaning), copies (after copies of
        documents are dropped). Several that follow the same stage run in the order given.
      version: raise it to run the stage again if neither its options nor the function's file has changed, for example
        when a module that the file imports has changed.
      libraries: packages whose versions decide what the function returns: after an upgrade the stage runs again.
      options: keyword arguments of the function (numbers, texts, lists, True, False, None).
    """
    fields = dict(name=name, function=function, after=after, version=version, libraries=tuple(libraries))
    return ConfigDict({**fields, "options": options})


def score(
    *,
    name: str,
    function: str,
    min: float | None = None,
    max: float | None = None,
    weight: bool = False,
    version: int = 1,
    libraries: tuple[str, ...] = (),
    **options: Any,
) -> ConfigDict:
    """A number for every document, from your own function: a classifier, a perplexity, a count.

    Args:
      name: any name that no other score has; the column of the number is score_NAME, and the reason for a document that
        is dropped is score.min_NAME or score.max_NAME.
      function: 'module:function', as for `stage`. It is given a list of documents, each a dict of text, uri, source,
        license and language, and the options, and returns a finite number for each, in their order.
      min, max: documents with a smaller or a greater number are dropped.
      weight: the number, which must not be negative, multiplies the weight of the document's source.
      version, libraries, options: as for `stage`.
    """
    fields = dict(name=name, function=function, weight=weight, version=version, libraries=tuple(libraries))
    made = ConfigDict({**fields, "options": options})
    made.min, made.max = min, max
    return made


def default() -> ConfigDict:
    """Every field (settings.py and cleaning/config.py), with values that make a corpus of good text."""
    config = thaw(Settings())
    config.cleaning = cleaning.default()
    return config.lock()


def allowed(field: str) -> str:
    """What a field allows besides its type, in a few words; '' if its comment says it."""
    found = allowed_values(Settings).get(field)
    return found.text() if found else ""


_WORDS = ("cleaning.languages", "cleaning.personal", "duplicates.earlier", "tokenizer.compare")  # and all recipes


def validate(config: Any) -> None:
    """Checks everything that can be checked without reading a source.

    Raises:
      ConfigError: the first invalid setting, with the field, the value and what is allowed.
    """
    if "training" in config:
        raise ConfigError("this config describes a training run: give it to gptjax train")
    fields = default().unlock()
    fields.cleaning.by_language = config.cleaning.by_language  # its languages are the user's
    check_fields(config, fields)
    check_values(config, allowed_values(Settings))
    for field in (*_WORDS, *(f"cleaning.recipes.{name}" for name in config.cleaning.recipes)):
        _check_members(field, get(config, field), str)
    if config.duplicates.kind == "none" and config.duplicates.earlier:
        raise ConfigError("duplicates.earlier: needs duplicates.kind = 'near' or 'exact'")
    if config.duplicates.kind == "near":
        bands_and_rows(config.duplicates.threshold, config.duplicates.permutations)
    cleaning.validate(config.cleaning)
    _validate_sources(config.sources)
    form = form_of(config.sources)
    if form in TEMPLATED:
        load_template(config.template)
    if form != TEXT:
        if config.cleaning.repair or config.cleaning.language or config.cleaning.personal:
            raise ConfigError(
                "cleaning: pairs, labelled texts and conversations are not cleaned: set "
                "config.cleaning.repair = False, "
                "config.cleaning.language = False and config.cleaning.personal = ()"
            )
        if config.passages.kind != "none":
            raise ConfigError(f"passages.kind = {config.passages.kind!r}: only of running text")
    _validate_evaluations(config.contamination)
    _validate_stages(config.stages)
    _validate_scores(config)


def _check_members(field: str, given: Any, kind: Any) -> None:
    """kind: the type of the members of a tuple, or several types as in str | int."""
    for one in given:
        if not isinstance(one, kind) or isinstance(one, bool):
            raise ConfigError(
                f"{field} has {one!r}: expected {getattr(kind, '__name__', kind)}, got {type(one).__name__}"
            )
        check_fields({field: one}, {field: one})


def _validate_parts(
    field: str, given: Any, made_by: Callable[..., ConfigDict], optional: Mapping[str, Any] = NOTHING
) -> None:
    """Checks what sources and evaluation sets have in common.

    optional: fields that may be missing → a value of their type.
    """
    for number, one in enumerate(given, 1):
        if not isinstance(one, ConfigDict | FrozenConfigDict):
            raise ConfigError(f"{field}: {one!r} is not allowed: make each with {made_by.__name__}(…)")
        reference = made_by(
            name="", kind="", path="", **{name: value for name, value in optional.items() if name in one}
        )
        try:
            check_fields(*({name: part[name] for name in part if name != "options"} for part in (one, reference)))
        except ConfigError as error:
            raise ConfigError(f"{field}: number {number}: {error}") from None
    names = [one.name for one in given]
    for name in names:
        if not SOURCE_NAME.fullmatch(name):
            raise ConfigError(f"{field}: name = {name!r}: must be letters, digits, dots, dashes and underscores")
        if names.count(name) > 1:
            raise ConfigError(f"{field}: name = {name!r}: must be different for each; {names.count(name)} have it")


def _validate_evaluations(config: Any) -> None:
    if config.least_words > config.ngram:
        raise ConfigError(
            f"contamination.least_words = {config.least_words}: must not exceed contamination.ngram = {config.ngram}"
        )
    _validate_parts("contamination.sets", config.sets, evaluation)
    for one in config.sets:
        _check_members(f"contamination.sets: {one.name}: fields", one.fields, str | int)
        if one.kind not in evaluations.KINDS:
            raise ConfigError(
                f"contamination.sets: {one.name}: kind = {one.kind!r}: expected one of "
                f"{', '.join(evaluations.KINDS)}{suggestion(one.kind, evaluations.KINDS)}"
            )


def _validate_stages(given: Any) -> None:
    names: list[str] = []
    for one in given:
        if not isinstance(one, ConfigDict | FrozenConfigDict | CorpusStage):
            raise ConfigError(f"stages: {one!r} is not allowed: make each with stage(…), or give a CorpusStage")
        if not (isinstance(one.name, str) and SOURCE_NAME.fullmatch(one.name)):
            raise ConfigError(
                f"stages: name = {one.name!r}: must be a name of letters, digits, dots, dashes and underscores"
            )
        if one.name in BUILT_IN or one.name in names:
            raise ConfigError(f"stages: name = {one.name!r}: another stage has this name")
        names.append(one.name)
        field = f"stages: {one.name}"
        if one.after not in PLACES:
            raise ConfigError(
                f"{field}: after = {one.after!r}: expected one of {', '.join(PLACES)}{suggestion(one.after, PLACES)}"
            )
        if type(one.version) is not int or one.version < 1:
            raise ConfigError(f"{field}: version = {one.version!r}: must be a whole number of at least 1")
        if isinstance(one, CorpusStage):
            importable_name(field, one.function)
            continue
        if not (isinstance(one.libraries, tuple | list) and all(isinstance(name, str) for name in one.libraries)):
            raise ConfigError(f"{field}: libraries = {one.libraries!r}: must be names of packages")
        try:
            json.dumps(plain(one.options), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{field}: its options cannot be stored ({error})") from None
        if not isinstance(one.function, str):
            raise ConfigError(f"{field}: function = {one.function!r}: must be a text, 'module:function'")
        function = named_function(field, one.function)
        try:
            inspect.signature(function).bind({}, **one.options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{field}: {one.function!r} must take a document and its options: {error}") from None


def _validate_scores(config: Any) -> None:
    names: list[str] = []
    for one in config.scores:
        if not isinstance(one, ConfigDict | FrozenConfigDict) or "weight" not in one:
            raise ConfigError(f"scores: {one!r} is not allowed: make each with score(…)")
        if not (isinstance(one.name, str) and re.fullmatch(r"[A-Za-z]\w*", one.name)) or one.name in names:
            raise ConfigError(
                f"scores: name = {one.name!r}: must be a name of letters, digits and _, different for each"
            )
        names.append(one.name)
        field = f"scores: {one.name}"
        for end in ("min", "max"):
            if not (one[end] is None or isinstance(one[end], int | float)):
                raise ConfigError(f"{field}: {end} = {one[end]!r}: must be a number")
        if not isinstance(one.weight, bool):
            raise ConfigError(f"{field}: weight = {one.weight!r}: must be True or False")
        function = named_function(field, one.function)
        try:
            json.dumps(plain(one.options), allow_nan=False)
            inspect.signature(function).bind([], **one.options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{field}: {one.function!r} must take documents and its options: {error}") from None
    for one in config.sources if names else ():
        if not cleaning.is_asked(config.cleaning, one):
            raise ConfigError(f"scores: {one.name} is not cleaned: set cleaning.repair = True, or give it a recipe")


def _validate_sources(given: Any) -> None:
    if not given:
        raise ConfigError("sources: must not be empty; set config.sources = (source(name=…, kind=…, path=…), …)")
    _validate_parts("sources", given, source, optional={"given_split": " ", "max_failure_share": 0.5})
    for one in given:
        if one.get("given_split", "") not in ("", *SPLITS):
            raise ConfigError(
                f"sources: {one.name}: given_split = {one.given_split!r}: expected one of {', '.join(SPLITS)}, or '' "
                "where the split is drawn"
            )
        if not 0 <= one.get("max_failure_share", 0) <= 1:
            raise ConfigError(f"sources: {one.name}: max_failure_share = {one.max_failure_share!r}: must be in [0, 1]")
        if not 0 <= one.weight < 1000:
            raise ConfigError(f"sources: {one.name}: weight = {one.weight!r}: must be in [0, 1000)")
        try:
            cleaning.validate_recipe(one.recipe)
            known = sources.kind_named(one.kind).OPTIONS
        except ConfigError as error:
            raise ConfigError(f"sources: {one.name}: {error}") from None
        if not isinstance(one.options, ConfigDict | FrozenConfigDict):
            raise ConfigError(f"sources: {one.name}: options = {one.options!r}: give each by its name to source(…)")
        for option in one.options:
            if option not in known:
                raise ConfigError(
                    f"sources: {one.name}: a source of kind {one.kind!r} has no option {option!r}"
                    f"{suggestion(option, known)} (options: {', '.join(known) or 'none'})"
                )
        try:
            check_fields(one.options, {option: known[option] for option in one.options})
            for option, value in one.options.items():
                if isinstance(value, tuple):
                    _check_members(option, value, str)
        except ConfigError as error:
            raise ConfigError(f"sources: {one.name}: {error}") from None
    if form_of(given) != TEXT:
        for one in given:
            if one.recipe:
                raise ConfigError(
                    f"sources: {one.name}: recipe = {one.recipe!r}: only running text is cleaned by rules"
                )
    if not any(one.weight for one in given):
        raise ConfigError("sources: all weights are 0, so the training split would be empty")
