"""The stages clean and select, alone and within the pipeline."""

import json
import math
import sys
from collections import Counter

import pyarrow.parquet as pq
import pytest
from pipeline_running import Here, config, prepare, text, watch, write

from gptjax.config import ConfigError
from gptjax.corpus.cleaning import config as cleaning
from gptjax.corpus.cleaning.rules import Rule
from gptjax.corpus.config import default, source, validate
from gptjax.corpus.documents import Document, DocumentWriter, rows_of
from gptjax.corpus.engine import Stage, run_stage
from gptjax.corpus.engine.local import LocalProcesses
from gptjax.corpus.pipeline import Pipeline
from gptjax.corpus.sources.listing import list_sources
from gptjax.corpus.stages.clean import STATISTICS, Clean, clean
from gptjax.corpus.stages.histogram import Histogram, reach
from gptjax.corpus.stages.select import KEPT, Select, select
from gptjax.files import file_entry

GERMAN = "Der Ausschuss traf sich am Dienstag, um über die alte Brücke zu sprechen."
ENGLISH = "The committee met on Tuesday to discuss what should be done about the old bridge."
EVERYTHING = {"mend": True, "language": True, "personal": ["email", "secret"]}
TEXTS = [ENGLISH, "cafÃ© of jane@web.de\r\n", GERMAN, "x" * 300, "â€‹", "hidden\x00 jane@web.de, joe@web.de"]


def shard(folder, texts, **fields):
    folder.mkdir(exist_ok=True)
    with DocumentWriter(folder / "documents.parquet") as writer:
        for number, one in enumerate(texts):
            writer.append(rows_of("web", Document(one, f"u{number}", **fields), 1 << 20, Counter()))
    return file_entry(folder / "documents.parquet")


def run(function, work, inputs, **options):
    return run_stage(Stage(function.__name__, function, options=options), [inputs], work, Here())[0]


def cleaned(work, texts, code=False, statistics=True, options=EVERYTHING, **fields):
    inputs = {"documents": shard(work, texts, **fields), "code": code, "statistics": statistics}
    result = run(clean, work, inputs, **options)
    tables = [
        pq.read_table(work / result["files"][name]["name"]) for name in ("documents.parquet", "statistics.parquet")
    ]
    return result, *(table.to_pylist() for table in tables)


def test_clean_keeps_every_row_and_id(tmp_path):
    _, documents, statistics = cleaned(tmp_path, TEXTS)
    before = pq.read_table(tmp_path / "documents.parquet").to_pylist()
    assert [each["id"] for each in before] == [each["id"] for each in documents] == [each["id"] for each in statistics]
    texts = [ENGLISH, "café of <EMAIL>\n", GERMAN, "x" * 300, "", "hidden <EMAIL>, <EMAIL>"]
    assert [each["text"] for each in documents] == texts
    assert [each["bytes"] for each in statistics] == [len(one.encode()) for one in texts]
    assert [each["language"] for each in documents] == [each["language"] for each in statistics]
    assert [documents[row]["language"] for row in (0, 2, 4)] == ["en", "de", ""]
    assert [each["repaired"] for each in statistics] == [
        *("", "encoding, line ends", "", ""),
        *("encoding", "invisible characters"),
    ]
    assert [each["masked_email"] for each in statistics] == [0, 1, 0, 0, 0, 2]
    assert statistics[3]["max_line_length"] == 300 and statistics[0]["words"] == 15


def test_clean_reports_its_changes(tmp_path):
    report = cleaned(tmp_path, TEXTS)[0]["report"]
    assert report["documents"] == len(TEXTS) and report["bytes"] == sum(size for _, size in report["lengths"].values())
    assert report["repaired"] == {"encoding": 2, "invisible characters": 1, "line ends": 1}
    assert report["masked"] == {"email": 3, "secret": 0}
    assert report["languages"]["de"] == [1, len(GERMAN.encode())]
    assert sum(count for count, _ in report["languages"].values()) == len(TEXTS)
    assert report["lengths"]["256"] == [1, 300] and report["lengths"]["0"] == [1, 0]


def test_clean_applies_only_the_options_that_are_set(tmp_path):
    options = {"mend": False, "language": False, "personal": []}
    result, documents, statistics = cleaned(tmp_path, TEXTS, statistics=False, options=options)
    assert [each["text"] for each in documents] == TEXTS and result["report"]["masked"] == {}
    assert statistics[0]["characters"] == len(ENGLISH) and math.isnan(statistics[0]["words"])
    assert set(statistics[0]) == set(STATISTICS.names)


def test_the_language_that_a_source_states_is_used_and_code_has_no_language(tmp_path):
    _, documents, statistics = cleaned(tmp_path, TEXTS, language="nl")
    assert {each["language"] for each in documents} == {"nl"} and statistics[0]["language_confidence"] == 1
    _, documents, _ = cleaned(tmp_path / "code", TEXTS, code=True)
    assert {each["language"] for each in documents} == {""}
    assert documents[1]["text"] == "cafÃ© of <EMAIL>\n", "in code only the line ends are repaired"


def test_clean_writes_the_same_bytes_again(tmp_path):
    for name in ("one", "two"):
        cleaned(tmp_path / name, TEXTS * 50)
    for name in ("documents.parquet", "statistics.parquet"):
        one, two = (next((tmp_path / run).glob(f"clean-*/*.{name}")).read_bytes() for run in ("one", "two"))
        assert one == two


def selected(work, texts, rules, languages=(), **fields):
    result, *_ = cleaned(work, texts, **fields)
    files = result["files"]
    inputs = {"documents": files["documents.parquet"], "statistics": files["statistics.parquet"]}
    inputs |= {"rules": [vars(rule) for rule in rules], "languages": list(languages), "confidence": 0.5}
    found = run(select, work, inputs)
    return found["report"], pq.read_table(work / found["files"]["verdicts.parquet"]["name"]).to_pylist()


def test_select_writes_verdicts_counts_and_examples(tmp_path):
    rules = [Rule("g", "min_words", "words", 10), Rule("g", "max_line_length", "max_line_length", 200)]
    report, verdicts = selected(tmp_path, TEXTS, rules)
    assert [(each["row"], each["reason"]) for each in verdicts] == [
        *((1, "g.min_words"), (3, "g.min_words"), (4, "empty"), (5, "g.min_words")),
    ]
    assert {each["representative"] for each in verdicts} == {0}
    assert report["reasons"] == {"empty": [1, 1], "g.min_words": [3, 4], "g.max_line_length": [0, 1]}
    examples = report["examples"]
    assert [each["text"] for each in examples[KEPT]] == [ENGLISH, GERMAN]
    assert [len(each["text"]) for each in examples["g.min_words"]] == [16, 200, 23]
    assert examples["empty"][0]["uri"] == "u4" and int(examples["empty"][0]["id"], 16) == verdicts[2]["id"]


def test_select_drops_other_languages(tmp_path):
    report, verdicts = selected(tmp_path, [ENGLISH, GERMAN], [], languages=["en"])
    assert report["reasons"] == {"other language": [1, 1]} and [each["row"] for each in verdicts] == [1]


def test_examples_come_from_every_row_group(tmp_path, monkeypatch):
    monkeypatch.setattr("gptjax.corpus.documents.GROUP_BYTES", 100)
    texts = [f"{ENGLISH} {number}" for number in range(40)] + ["short"]
    report, verdicts = selected(tmp_path, texts, [Rule("g", "min_words", "words", 10)])
    assert [each["text"] for each in report["examples"]["g.min_words"]] == ["short"] and verdicts[0]["row"] == 40


def test_histograms_are_merged_key_by_key():
    merged = Histogram()
    for sizes in ([1, 3, 1000], [2, 3]):
        one = Histogram()
        one.add(map(reach, sizes), sizes)
        merged.merge(one.counts)
    assert merged.counts == {"1": [1, 1], "2": [3, 8], "512": [1, 1000]} and reach(0) == 0 and reach(4096) == 4096


# --- Within the pipeline ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """The source books: 40 documents, of which five are too short and one is empty once repaired."""
    texts = [text(i) for i in range(34)] + [f"short {i}" for i in range(5)] + ["â€‹"]
    write(
        tmp_path / "in" / "books", [one + " naïve cafÃ© jane@web.de" if i < 3 else one for i, one in enumerate(texts)]
    )
    write(tmp_path / "in" / "web", [text(i) for i in range(100, 120)])
    return tmp_path / "in"


def made(folder, recipe="books", **fields):
    made = config(folder, duplicates__kind="none", **fields)
    made.sources[0].recipe = recipe
    made.cleaning.recipes.books = ("gopher_quality.min_words", "gopher_quality.min_stop_words")
    made.cleaning.gopher_quality.min_stop_words = 1
    return made


def stages(output):
    return sorted(path.name.split("-")[0] for path in output.glob("work/*-*"))


def test_the_manifest_describes_the_stage(folder, tmp_path):
    settings = made(folder, cleaning__personal=("email",))
    manifest = prepare(settings, tmp_path / "out")
    books, web = manifest["sources"]
    assert books["dropped"]["gopher_quality.min_words"]["documents"] == 5
    assert books["dropped"]["empty"] == {"documents": 1, "bytes": 0}
    assert books["cleaned"]["repaired"] == {"encoding": 4}
    assert books["cleaned"]["masked"] == {"email": 3} and web["cleaned"]["masked"] == {"email": 0}
    assert books["cleaned"]["reasons"]["gopher_quality.min_words"] == [5, 6]
    assert len(books["cleaned"]["examples"]["gopher_quality.min_words"]) == 3
    for found in (books, web):
        left = sum(split["documents"] for split in found["splits"].values())
        assert left + sum(drop["documents"] for drop in found["dropped"].values()) == found["extracted"]["documents"]
        for name in ("languages", "lengths"):
            assert sum(count for count, _ in found[name].values()) == left
            assert sum(count for count, _ in found["cleaned"][name].values()) == found["extracted"]["documents"]
    part = pq.read_table(tmp_path / "out" / "work" / manifest["parts"][0]["name"])
    assert "naïve café <EMAIL>" in part["text"][0].as_py(), "the token stream is the text of the parts"
    json.dumps(manifest)


def test_another_threshold_or_language_rewrites_no_text(folder, tmp_path):
    def state():
        return {path: path.stat().st_ino for path in tmp_path.glob("out/work/*/*")}

    settings = made(folder)
    prepare(settings, tmp_path / "out")
    before = state()
    settings.cleaning.gopher_quality.min_words = 200
    settings.cleaning.languages = ("en", "de")
    settings.cleaning.language_confidence = 0.0
    settings.cleaning.recipes.books = ("gopher_quality.min_words", "gopher_repetition.max_top_2gram_share")
    with pytest.raises(ConfigError, match=r"would be empty|no document"):
        settings.split.validation_fraction = 0.999999
        prepare(settings, tmp_path / "out")
    after = state()
    changed = {path.parent.name.split("-")[0] for path, inode in after.items() if before.get(path) != inode}
    assert "select" in changed and not changed & {"extract", "clean"}


def test_stages_without_options_do_not_run(folder, tmp_path):
    settings = made(folder, recipe="")
    settings.cleaning.update(cleaning.off())
    manifest = prepare(settings, tmp_path / "out")
    assert not {"clean", "select"} & set(stages(tmp_path / "out"))
    assert [found["cleaned"] for found in manifest["sources"]] == [None, None]
    settings.sources[0].recipe = "books"
    manifest = prepare(settings, tmp_path / "again", shard_bytes=1_000_000)
    assert len(list(tmp_path.glob("again/work/clean-*/*.json"))) == 1, "only one source needs the stage"
    assert [bool(found["cleaned"]) for found in manifest["sources"]] == [True, False]


def test_the_default_recipe_follows_the_kind():
    kinds = {
        kind: source(name="a", kind=kind, path="x").recipe for kind in ("text", "web", "code", "books", "wikipedia")
    }
    assert kinds == {"text": "", "web": "web", "code": "code", "books": "books", "wikipedia": "text"}
    assert source(name="a", kind="code", path="x", recipe="").recipe == ""


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"personal": ("emails",)}, "cleaning.personal: 'emails': expected some of email, ip.*; did you mean email"),
        ({"language_confidence": 2.0}, r"cleaning.language_confidence = 2.0: must be in \[0, 1\]"),
        ({"languages": ("en",), "language": False}, "cleaning.languages needs cleaning.language = True"),
        ({"recipes.web": ("gopher",)}, "cleaning.recipes.web: 'gopher': there is no such rule or group"),
    ],
)
def test_invalid_cleaning_options_are_refused(fields, message):
    made = default()
    made.sources = (source(name="a", kind="text", path="x"),)
    for name, value in fields.items():
        section, _, name = name.rpartition(".")
        (made.cleaning[section] if section else made.cleaning)[name] = value
    with pytest.raises(ConfigError, match=message):
        validate(made)


def test_an_unknown_recipe_is_refused():
    made = default()
    made.sources = (source(name="a", kind="text", path="x", recipe="book"),)
    with pytest.raises(
        ConfigError, match=r"sources: a: recipe = 'book': expected one of web, code.*did you mean books"
    ):
        validate(made)


def test_a_missing_library_is_reported_at_once(monkeypatch):
    made = default()
    made.sources = (source(name="a", kind="text", path="x"),)
    monkeypatch.setattr(cleaning.importlib.util, "find_spec", lambda name: None if name == "py3langid" else True)
    with pytest.raises(ConfigError, match=r"cleaning.language = True: needs pip install 'gptjax\[corpus\]'"):
        validate(made)
    made.cleaning.language = False
    validate(made)


def test_a_corpus_without_documents_is_not_cleaned(folder, tmp_path):
    settings = made(folder)
    corpus = Pipeline(settings, list_sources(settings.sources, 20_000), tmp_path / "out", Here(), watch).corpus
    assert not Clean().is_wanted(corpus) and not Select().is_wanted(corpus)


def test_a_users_rule_drops_documents_in_other_processes(tmp_path, monkeypatch):
    (tmp_path / "my_rules.py").write_text("def shouts(text): return text.isupper()\n")
    monkeypatch.chdir(tmp_path)
    asked = default().cleaning
    asked.recipes.text = ("my_rules:shouts",)
    told = cleaning.verdict(asked, source(name="a", kind="text", path="x", recipe="text"))
    work = tmp_path / "work"
    result, *_ = cleaned(work, ["LOUD WORDS", "calm words", "LOUD again"])
    inputs = {name: result["files"][f"{name}.parquet"] for name in ("documents", "statistics")} | told
    with LocalProcesses(1) as processes:
        (judged,) = run_stage(Stage("select", select, options={}), [inputs], work, processes)
    assert judged["report"]["reasons"]["my_rules:shouts"] == [1, 1]
    (tmp_path / "my_rules.py").write_text("def shouts(text): return len(text) > 3\n")
    stale = Stage("select", select, version=2, options={})
    with LocalProcesses(1) as processes, pytest.raises(ConfigError, match=r"my_rules:shouts.* start it again"):
        run_stage(stale, [inputs], work, processes)
    sys.modules.pop("my_rules")  # as in a new command
    assert cleaning.verdict(asked, source(name="a", kind="text", path="x", recipe="text")) != told  # judged again
