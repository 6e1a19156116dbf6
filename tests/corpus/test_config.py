import json

import pytest
from pipeline_running import Here, text, watch, write

from gptjax.config import ConfigError, flatten
from gptjax.corpus.config import default, evaluation, plain, source, validate
from gptjax.corpus.pipeline import Pipeline
from gptjax.corpus.sources.listing import list_sources


def config(*sources, **fields):
    made = default()
    made.sources = sources or (source(name="web", kind="text", path="x", weight=2),)
    for field, value in fields.items():
        section, _, name = field.rpartition("__")
        (made[section] if section else made)[name] = value
    return made


def test_the_defaults_are_valid_except_for_sources():
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
def test_invalid_values_are_refused(fields, message):
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
def test_invalid_sources_are_refused(sources, message):
    with pytest.raises(ConfigError, match=message):
        validate(config(*(source(**{"name": "web", "kind": "text", "path": "x", **fields}) for fields in sources)))


def test_a_value_that_is_not_a_source_is_refused():
    with pytest.raises(ConfigError, match=r"sources: \{'name': 'web'\} is not allowed: make each with source\(…\)"):
        validate(config({"name": "web"}))


def test_a_config_becomes_plain_values():
    told = plain(config())
    (web,) = told["sources"]
    assert web == dict(name="web", kind="text", path="x", weight=2, license="", language="", recipe="", options={})
    assert told["duplicates"]["threshold"] == 0.8 and type(told["duplicates"]) is dict


# Values of every kind that a user may give to a field, by mistake or on purpose.
HOSTILE = (
    *(0, -1, 1, 3, 7, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 10**30),
    *(0.0, -0.0, 1e-300, 0.5, 1.0, 1.5, 1e38, 1e300, float("nan"), float("inf"), float("-inf")),
    *("", "0", "-1", "\0", "\ud800", "a" * 10_000, "no_such_module:make", "\x1b]0;x\a", "../..", "~no-such-user/x"),
    *((), (1,), ((1,),), ((), ()), ("",), ("\0",), ("\ud800",), ("/no/such",), ("no_such_module:make",), (None,)),
    *(True, False, None, [], {}, b"", 1j, object()),
)
OF_SOURCES = [*source(name="", kind="", path=""), "options.encoding_errors", "options.text_field", "options.separator"]
OF_SETS = [*evaluation(name="", kind="", path="")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A function that makes a config with real documents and a real evaluation set."""
    folder = tmp_path_factory.mktemp("corpus")
    write(folder / "web", [text(number) for number in range(3)])
    (folder / "set.jsonl").write_text(json.dumps({"question": text(9)}) + "\n")

    def make():
        made = default()
        made.sources = (source(name="web", kind="text", path=f"{folder}/web", text_field="text", separator=""),)
        made.contamination.sets = (evaluation(name="set", kind="jsonl", path=f"{folder}/set.jsonl"),)
        made.tokenizer.name = "byte"
        return made

    return make


@pytest.mark.parametrize(
    "field",
    [*flatten(default()), *(f"sources/{name}" for name in OF_SOURCES), *(f"contamination.sets/{n}" for n in OF_SETS)],
)
def test_no_value_of_any_field_ends_in_a_traceback(field, corpus, tmp_path, monkeypatch):
    """Each hostile value is refused with a message before a document is read, or the pipeline accepts it."""
    here = tmp_path / "a" / "b"  # so that '../..' is a small folder, not a whole disk
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    refused = 0
    for value in HOSTILE:
        config = corpus()
        where, _, part = field.partition("/")
        *sections, name = (part or where).split(".")
        section = config
        if part:
            section = (config.sources if where == "sources" else config.contamination.sets)[0]
        for inner in sections:
            section = section[inner]
        try:
            with section.ignore_type(), section.unlocked():
                section[name] = value
            validate(config)
            json.dumps(plain(config)).encode()
            Pipeline(config, list_sources(config.sources, 1_000_000), tmp_path, Here(), watch)
        except ConfigError as error:
            refused += 1
            what = str(error)
            assert (name in what or f": {value!r}: " in what) and "\n" not in what, what
    assert refused


def test_lists_are_accepted_for_tuples():
    validate(config(source(name="code", kind="code", path="x", languages=["Python"])))
