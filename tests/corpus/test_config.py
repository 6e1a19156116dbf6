import pytest

from gptjax.config import ConfigError
from gptjax.corpus.config import default, plain, source, validate


def config(*sources, **fields):
    made = default()
    made.sources = sources or (source(name="web", kind="text", path="x", weight=2),)
    for field, value in fields.items():
        section, _, name = field.rpartition("__")
        (made[section] if section else made)[name] = value
    return made


def test_the_defaults_are_fine_but_for_sources():
    validate(config())
    with pytest.raises(ConfigError, match="sources: must not be empty"):
        validate(default())


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"duplicates__kind": "fuzzy"}, "duplicates.kind = 'fuzzy': expected one of none, exact, near"),
        ({"duplicates__scope": "globl"}, "did you mean global?"),
        ({"duplicates__threshold": 1.5}, r"duplicates.threshold = 1.5: must be in \(0, 1\]"),
        ({"duplicates__permutations": 2}, "duplicates.permutations = 2: too few"),
        ({"shard_megabytes": 0}, "shard_megabytes = 0: must be at least 1"),
        ({"max_document_megabytes": 0.0}, "max_document_megabytes = 0.0: must be positive"),
        ({"split__validation_fraction": 1.0}, r"split.validation_fraction = 1.0: must be in \[0, 1\)"),
        ({"split__by": "line"}, "split.by = 'line': expected one of auto, document, tail"),
        ({"seed": -1}, "seed = -1: must not be negative"),
    ],
)
def test_values_that_cannot_work(fields, message):
    with pytest.raises(ConfigError, match=message):
        validate(config(**fields))


@pytest.mark.parametrize(
    "sources, message",
    [
        ([dict(name="a/b")], "name = 'a/b': must be letters, digits"),
        ([dict(name="a"), dict(name="a")], "name = 'a': must be different for each; 2 have it"),
        ([dict(weight=-1.0)], "web: weight = -1.0"),
        ([dict(weight=0.0), dict(name="code", weight=0)], "all weights are 0"),
        ([dict(kind="texts")], "web: kind = 'texts': expected one of .*; did you mean text"),
        ([dict(text_fild="x")], "a source of kind 'text' has no option 'text_fild'; did you mean text_field"),
    ],
)
def test_sources_that_cannot_work(sources, message):
    with pytest.raises(ConfigError, match=message):
        validate(config(*(source(**{"name": "web", "kind": "text", "path": "x", **fields}) for fields in sources)))


def test_a_source_that_is_none():
    with pytest.raises(ConfigError, match=r"sources: \{'name': 'web'\} is not allowed: make each with source\(…\)"):
        validate(config({"name": "web"}))


def test_a_config_as_plain_values():
    told = plain(config())
    (web,) = told["sources"]
    assert web == dict(name="web", kind="text", path="x", weight=2, license="", language="", recipe="", options={})
    assert told["duplicates"]["threshold"] == 0.8 and type(told["duplicates"]) is dict
