"""Every recipe loads, is valid, and finds its sources."""

import importlib.util
from pathlib import Path

import pytest
from source_reading import write

from gptjax.config import ConfigError
from gptjax.corpus.config import validate
from gptjax.corpus.sources.listing import list_sources

RECIPES = Path(__file__).parents[2] / "configs" / "corpus"
NAMES = [
    "standard_library",
    "python_environment",
    "books_and_code",
    "books_and_code:a,b",
    "common_crawl_100b",
    "common_crawl_100b:raw,warcs/*.warc.gz",
]


def load(name):
    file, _, arg = name.partition(":")
    spec = importlib.util.spec_from_file_location(file, RECIPES / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg) if arg else module.get_config()


def raw_data(folder):
    latex = "\\documentclass{a}\\begin{document}x\\end{document}"
    write(
        folder, {"text/a.txt": "x", "text/wikipedia_xml/b.xml": "<mediawiki/>", "web/c.warc": "x", "books/d.txt": "x"}
    )
    write(
        folder,
        {"web/dolma_docs/e.jsonl": "{}", "papers/f/g.tex": latex, "code/h/i.py": "x", "tables/j.csv": "text\nx\n"},
    )
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_valid(name):
    validate(load(name))


def test_every_recipe_is_tested():
    assert {name.partition(":")[0] for name in NAMES} | {"everything"} == {file.stem for file in RECIPES.glob("*.py")}


def test_everything_has_a_source_for_each_subfolder(tmp_path):
    config = load(f"everything:{raw_data(tmp_path)}")
    validate(config)
    names = ["books", "papers", "wikipedia", "code", "tables", "text", "web_documents", "web"]
    assert [one.name for one in config.sources] == names
    assert list_sources(config.sources, 10**6).pieces == dict.fromkeys(names, 1)


def test_missing_subfolders_have_no_source(tmp_path):
    write(tmp_path, {"books/d.txt": "x", "notes.txt": "x"})
    assert [one.name for one in load(f"everything:{tmp_path}").sources] == ["books"]


@pytest.mark.parametrize("name", ["everything:/nowhere", "books_and_code:a", "common_crawl_100b:raw"])
def test_invalid_arguments_are_refused(name):
    file, _, argument = name.partition(":")
    with pytest.raises(ConfigError, match=rf"^configs/corpus/{file}\.py:{argument}: (expected|must contain)"):
        load(name)


def test_the_python_environment_is_found():
    sources = load("python_environment").sources
    found = list_sources(sources, 10**8)
    assert found.pieces["packages"] > 1000 and found.pieces["stdlib"] > 500


def test_common_crawl_takes_a_part_of_a_crawl():
    path = load("common_crawl_100b").sources[-1].path
    assert path == "s3://commoncrawl/crawl-data/CC-MAIN-2024-51/segments/*/warc/*-00[0-3]??.warc.gz"
    assert load("common_crawl_100b:raw,warcs").sources[-1].path == "warcs"
