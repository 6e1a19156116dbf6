"""Upgrading a library repeats the tasks whose results depend on it, and no others."""

import itertools
import json

import pytest
from pipeline_running import Here, config, prepare, text, write

from gptjax.config import ConfigError
from gptjax.corpus import libraries
from gptjax.corpus.cleaning import config as cleaning
from gptjax.corpus.config import source
from gptjax.corpus.engine import Stage, run_stage
from gptjax.corpus.manifest import other_versions
from gptjax.corpus.sources import KINDS, kind_named, pages

PAGE = "<html><body><article>{}</article></body></html>"


@pytest.fixture
def upgrade(monkeypatch):
    """A function that changes the version that a library reports."""

    def to(name, number="99.0"):
        monkeypatch.setattr(libraries, "installed", lambda each: number if each == name else true(each))

    true = libraries.installed
    return to


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    write(folder / "books", [text(i) for i in range(30)])
    (folder / "pages").mkdir()
    for i in range(100, 106):
        paragraphs = "".join(f"<p>{text(seed)}</p>" for seed in range(10 * i, 10 * i + 4))
        (folder / "pages" / f"{i}.html").write_text(PAGE.format(paragraphs))
    return folder


def corpus(folder, **fields):
    made = config(folder, tokenizer__name="bpe", tokenizer__vocab_size=300, **fields)
    made.sources = (made.sources[0], source(name="pages", kind="web", path=f"{folder}/pages", recipe=""))
    made.sources[0].language = "en"
    return made


def remade(output, before):
    """(stage, part) of the markers that were written again."""
    return {key for key, written in markers(output).items() if before[key] != written}


def markers(output):
    """(stage, part) → when its marker was written."""
    paths = sorted(output.glob("work/*/part-?????.json"))
    return {(path.parent.name.rpartition("-")[0], int(path.stem[5:])): path.stat().st_mtime_ns for path in paths}


@pytest.mark.parametrize(
    "name, again",
    [
        ("trafilatura", {("extract", 1)}),
        ("lxml", {("extract", 1)}),
        ("resiliparse", {("extract", 0), ("extract", 1)}),  # it may detect the encoding of either file
        ("py3langid", {("clean", 1)}),  # the books state their language
        ("ftfy", {("clean", 0), ("clean", 1)}),
        ("sentencepiece", {("tokenizer", 0), ("encode", 0), ("encode", 1)}),
        ("pypdf", set()),  # no PDF is read
        ("fastwarc", set()),
        ("pyarrow", set()),
    ],
)
def test_an_upgrade_repeats_the_tasks_that_depend_on_the_library(sources, tmp_path, upgrade, name, again):
    made = corpus(sources)
    manifest = prepare(made, tmp_path, shard_bytes=1 << 20)
    before = markers(tmp_path)
    assert manifest["stages"]["encode"]["libraries"].keys() == {"sentencepiece"}
    upgrade(name)
    assert (name in other_versions(manifest)) == bool(again)
    upgraded = prepare(made, tmp_path, shard_bytes=1 << 20)
    assert remade(tmp_path, before) == again
    assert not other_versions(upgraded)
    assert (name in json.dumps(upgraded["stages"])) == bool(again)


def test_later_stages_run_again_if_the_new_version_gives_other_results(sources, tmp_path, upgrade, monkeypatch):
    made = corpus(sources)
    prepare(made, tmp_path, shard_bytes=1 << 20)
    before = markers(tmp_path)
    upgrade("trafilatura")
    extract = pages._trafilatura
    monkeypatch.setattr(pages, "_trafilatura", lambda *given: extract(*given) + " the upgrade" * 99)
    prepare(made, tmp_path, shard_bytes=1 << 20)
    again = remade(tmp_path, before)
    following = ("extract", "clean", "sketch", "survey", "encode")
    assert {(stage, 1) for stage in following} <= again and ("encode", 0) in again  # with another tokenizer
    assert not again & {(stage, 0) for stage in following[:-1]}


def test_options_decide_on_which_libraries_a_source_depends(sources):
    web = {**kind_named("web").OPTIONS, "extractor": "resiliparse"}
    assert set(kind_named("web").libraries("a.html", web)) == {"resiliparse"}
    assert set(kind_named("web").libraries("a.warc.gz", web)) == {"resiliparse", "fastwarc"}
    exact = {**kind_named("text").OPTIONS, "encoding_errors": "replace"}
    assert kind_named("text").libraries("a.txt", exact) == ()
    assert kind_named("text").libraries("a.parquet", exact) == ("pyarrow",)
    papers = kind_named("papers")
    decides = {uri: "pypdf" in papers.libraries(uri, papers.OPTIONS) for uri in ("a.pdf", "a.tar", "a.xml", "a.tex")}
    assert decides == {"a.pdf": True, "a.tar": True, "a.xml": False, "a.tex": False}
    asked, told = cleaning.default(), source(name="a", kind="text", path="a")
    for repair, language in itertools.product((True, False), repeat=2):
        asked.update(repair=repair, language=language)
        expected = {name for name, on in (("ftfy", repair), ("py3langid", language)) if on}
        assert set(cleaning.libraries(asked, told)) == expected
    assert cleaning.libraries(asked, source(name="a", kind="code", path="a")) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_named_libraries_are_installed_with_the_corpus_extra(kind):
    module = kind_named(kind)
    for uri in ("a.txt", "a.html", "a.parquet", "a.pdf", "a.warc.gz", "a.epub"):
        assert all(libraries.versions_of(module.libraries(uri, module.OPTIONS)).values())


def write_one(task, folder):
    (folder / "one").write_text("1")
    return {}


def test_a_worker_with_other_library_versions_is_refused(tmp_path):
    inputs = [{"libraries": {"numpy": "0.1", "no-such-library": None}}]
    with pytest.raises(ConfigError, match=r"numpy 0\.1 \(here [1-9][^,]*\)$"):
        run_stage(Stage("write", write_one), inputs, tmp_path, Here())
    assert not list(tmp_path.glob("*/part*"))
