"""A user's own stages: named in a config, they run at the given place, are counted, and continue after a stop."""

import json
import sys

import pyarrow.parquet as pq
import pytest
from pipeline_running import Here, config, prepare, text, watch, write

from gptjax.config import ConfigError
from gptjax.corpus.config import BUILT_IN, PLACES, plain, stage, validate
from gptjax.corpus.engine.local import LocalProcesses
from gptjax.corpus.pipeline import STAGES, Pipeline, with_own
from gptjax.corpus.report.card import page
from gptjax.corpus.sources.listing import list_sources

SHORTEN = """
from gptjax.corpus.documents import Document

def shorten(document, words=30, without="return"):
    assert set(document) == {"text", "uri", "source", "license", "language"}
    if document["text"].split()[0] == without:
        return None
    return " ".join(document["text"].split()[:words])

def same(document):
    return document["text"]

def odd(document):
    return 3
"""

WHOLE = """
import shutil
import pyarrow.parquet as pq
from gptjax.corpus.stages.base import CorpusStage

def count(task, folder):
    table = pq.read_table(task.path(task.inputs["documents"]), columns=["text"])
    return {"documents": len(table), "letters": task.options["letters"]}

class Count(CorpusStage):
    name, after, function = "count", "extract", staticmethod(count)

    def __init__(self, letters):
        self.letters = letters

    def options(self, corpus):
        return {"letters": self.letters}

    def finish(self, corpus, results):
        corpus.sections["counted"] = sum(result["report"]["documents"] for result in results)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A working folder, with modules that only this test has imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path / "books", [text(i) for i in range(40)])
    write(tmp_path / "web", [text(i) for i in range(100, 130)])

    def make(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        forget(name)

    def forget(name):
        from gptjax.config import named_functions

        sys.modules.pop(name, None)
        named_functions._hash_of.cache_clear()

    make("my_stages", SHORTEN)
    make("my_whole_stage", WHOLE)
    return make


def state(output):
    """(stage's folder, part) → when its marker was written."""
    paths = sorted(output.glob("work/*/part-?????.json"))
    return {(path.parent.name, int(path.stem[5:])): path.stat().st_mtime_ns for path in paths}


def redone(before, after):
    """The stages that have run a task since `before`."""
    return {key[0].rpartition("-")[0] for key, written in after.items() if before.get(key) != written}


def texts(output, manifest):
    return [
        row for part in manifest["parts"] for row in pq.read_table(output / "work" / part["name"])["text"].to_pylist()
    ]


def test_the_list_of_stages_has_the_names_that_configs_are_checked_against():
    assert tuple(each.name for each in STAGES) == BUILT_IN and set(PLACES) < set(BUILT_IN)
    assert len(set(BUILT_IN)) == len(BUILT_IN)


def test_stages_follow_the_ones_that_they_name_in_the_given_order():
    own = [
        stage(name=name, function="m:f", after=after)
        for name, after in (("a", "select"), ("b", "extract"), ("c", "select"), ("d", "copies"))
    ]
    names = [each.name for each in with_own(STAGES, own)]
    assert names[1:6] == ["extract", "b", "clean", "score", "select"] and names[6:10] == ["a", "c", "sketch", "copies"]
    assert names[10] == "d" and len(names) == len(BUILT_IN) + 4


def test_an_own_stage_changes_and_drops_documents_and_is_counted(module, tmp_path):
    starts = [text(i).split()[0] for i in [*range(40), *range(100, 130)]]
    expected = starts.count("return")
    made = config(tmp_path, stages=(stage(name="shorten", function="my_stages:shorten", words=20),))
    listing = list_sources(made.sources, 20_000)
    with LocalProcesses(1) as executor:
        manifest = Pipeline(made, listing, tmp_path / "out", executor, watch).prepare({"stages": plain(made.stages)})
    found = texts(tmp_path / "out", manifest)
    assert sum(len(one.split()) == 20 for one in found) == 70 - expected > 0 < expected
    dropped = sum(one["dropped"].get("shorten", {"documents": 0})["documents"] for one in manifest["sources"])
    assert dropped == expected
    left = sum(split["documents"] for split in manifest["splits"].values())
    assert left == 70 - expected
    counts = {name: manifest["own_stages"]["shorten"][name] for name in ("documents", "changed", "dropped")}
    assert counts == {"documents": 70, "changed": 70 - expected, "dropped": expected}
    assert manifest["stages"]["shorten"]["options"]["options"] == {"words": 20}
    card = page(manifest, [], {})
    assert f"| shorten | my\\_stages:shorten | 1 | 70 | {70 - expected} | {expected} |" in card
    assert list(manifest["stages"])[:5] == ["extract", "clean", "select", "shorten", "sketch"]


def test_an_own_stage_continues_and_runs_again_only_for_other_options_version_or_code(module, tmp_path):
    def run(**fields):
        made = config(
            tmp_path, stages=(stage(**{"name": "own", "function": "my_stages:shorten", "words": 25, **fields}),)
        )
        manifest = prepare(made, tmp_path / "out", shard_bytes=5000)
        return manifest, state(tmp_path / "out")

    _, before = run()
    (marker,) = (tmp_path / "out").glob("work/own-*/part-00001.json")
    marker.unlink()  # as if killed before the second task was done
    _, resumed = run()
    assert {key for key in resumed if resumed[key] != before[key]} == {(marker.parent.name, 1)}
    for fields in ({"words": 24}, {"version": 2}):
        _, again = run(**fields)
        assert "own" in redone(resumed, again) and not redone(resumed, again) & {"extract", "clean"}
        assert run(**fields)[1] == again
        _, resumed = run()
    module("my_stages", SHORTEN.replace("[:words]", "[:words - 1]"))
    manifest, again = run()
    assert "own" in redone(resumed, again) and not redone(resumed, again) & {"extract", "clean"}
    assert {len(one.split()) for one in texts(tmp_path / "out", manifest)} == {24, 122}  # changed; dropped before


def test_an_own_stage_that_changes_nothing_writes_no_documents(module, tmp_path):
    made = config(tmp_path, stages=(stage(name="same", function="my_stages:same", after="copies"),))
    manifest = prepare(made, tmp_path / "out")
    assert manifest["own_stages"]["same"]["changed"] == manifest["own_stages"]["same"]["dropped"] == 0
    assert not list((tmp_path / "out").glob("work/same-*/*documents*"))


def test_a_stage_object_writes_its_own_files_and_sections(module, tmp_path):
    import my_whole_stage

    def run(letters):
        manifest = prepare(config(tmp_path, stages=(my_whole_stage.Count(letters),)), tmp_path / "out")
        return manifest, state(tmp_path / "out")

    manifest, before = run("ab")
    assert manifest["counted"] == 70 and manifest["stages"]["count"]["options"] == {"letters": "ab"}
    assert run("ab")[1] == before
    assert redone(before, run("abc")[1]) == {"count"}
    made = config(tmp_path, stages=(my_whole_stage.Count("ab"),))
    assert json.dumps(plain(made.stages)) == '[{"name": "count", "version": 1, "after": "extract", "letters": "ab"}]'


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"name": "clean"}, "stages: name = 'clean': another stage has this name"),
        ({"name": "a/b"}, "stages: name = 'a/b': must be a name of letters"),
        ({"after": "survey"}, "stages: own: after = 'survey': expected one of extract, select, copies"),
        ({"version": 0}, "stages: own: version = 0: must be a whole number of at least 1"),
        ({"function": "my_stages:shorte"}, "my_stages defines no function shorte; did you mean shorten"),
        ({"function": "none_such:f"}, "there is no module none_such"),
        ({"wrds": 3}, "must take a document and its options: got an unexpected keyword argument 'wrds'"),
        ({"words": float("nan")}, "stages: own: its options cannot be stored"),
        ({"libraries": (3,)}, "stages: own: libraries = .*: must be names of packages"),
    ],
)
def test_invalid_stages_are_refused_before_anything_is_read(module, tmp_path, fields, message):
    fields = {"name": "own", "function": "my_stages:shorten", **fields}
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, stages=(stage(**fields),))


def test_a_value_that_is_not_a_stage_is_refused(module, tmp_path):
    import my_whole_stage

    with pytest.raises(ConfigError, match=r"stages: 'my_stages:shorten' is not allowed: make each with stage\(…\)"):
        config(tmp_path, stages=("my_stages:shorten",))
    local = my_whole_stage.Count("a")
    local.function = lambda task, folder: {}
    with pytest.raises(ConfigError, match="stages: count: its function must be at the top level of a module"):
        validate(config(tmp_path, stages=(local,)))


def test_a_function_that_returns_something_else_is_named(module, tmp_path):
    made = config(tmp_path, stages=(stage(name="odd", function="my_stages:odd"),))
    with pytest.raises(
        ConfigError, match=r"stages: odd: 'my_stages:odd' must return the text to keep, or None .* not 3"
    ):
        Pipeline(made, list_sources(made.sources, 20_000), tmp_path / "out", Here(), watch).prepare({})
