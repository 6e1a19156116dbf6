"""The data card agrees with the manifest, and no text of a document can break its layout."""

import json
import re

import numpy as np
import pytest
from pipeline_running import Here, watch

from gptjax.config import flatten
from gptjax.corpus.config import default, evaluation, plain, source, validate
from gptjax.corpus.manifest import finished
from gptjax.corpus.pipeline import Pipeline
from gptjax.corpus.report import public_summary
from gptjax.corpus.report.card import _cleaning, _fenced, _making, inline
from gptjax.corpus.sources.listing import list_sources

HOSTILE = "```\n# A title\n````text\n<script>alert(1)</script> | a | b |\x1b[31m\u202e\n"


def text(seed, words=80):
    return " ".join(np.random.default_rng(seed).choice([f"w{i}" for i in range(99)], words))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """a|b: 30 documents, three of them copies and one with a question; web: 20 documents, one of them with HTML and
    Markdown.
    """
    folder = tmp_path_factory.mktemp("sources")
    texts = [text(i) for i in range(27)] + [text(0), text(1), f"{text(2)} end"]
    texts[5] += " " + text(999, 20)
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in texts))
    (folder / "web.jsonl").write_text(
        "".join(json.dumps({"text": HOSTILE if i == 7 else text(100 + i)}) + "\n" for i in range(20)) + "{bad\n"
    )
    (folder / "quiz.txt").write_text(text(999, 20) + "\n")
    return folder


def prepare(sources, output, **fields):
    made = default()
    made.sources = (
        source(name="a", kind="text", path=f"{sources}/a.jsonl", license="CC0 | <b>", weight=2.0),
        source(name="web", kind="text", path=f"{sources}/web.jsonl", language="en"),
    )
    made.contamination.sets = (evaluation(name="quiz", kind="text", path=f"{sources}/quiz.txt"),)
    made.cleaning.update(repair=False, language=False)
    made.tokenizer.name = "byte"
    made.split.validation_fraction = 0.3
    for field, value in fields.items():
        section, name = field.split("__")
        made[section][name] = value
    validate(made)
    return Pipeline(made, list_sources(made.sources, 3000), output, Here(), watch).prepare({"a": 1})


@pytest.fixture(scope="module")
def prepared(sources, tmp_path_factory):
    output = tmp_path_factory.mktemp("card") / "data"
    return output, prepare(sources, output)


def cells(card, first):
    """The cells of the table rows whose first cell is `first`."""
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith(f"| {first} |")]
    return rows[0] if len(rows) == 1 else rows


def test_figures_equal_those_of_the_manifest(prepared):
    output, manifest = prepared
    card = (output / "card.md").read_text()
    for split, of in manifest["splits"].items():
        row = next(row for row in [cells(card, split)] if row)
        assert row[1] == f"{of['documents']:,}" and row[3] == f"{of['tokens']:,}"
    assert [row for row in re.findall(r"\| +\| out: (.*) \| (\d+) \|", card)] == [
        ("exact duplicate", "2"),
        ("holds evaluation text: quiz", "1"),
        ("near duplicate", "1"),
    ]
    assert cells(card, "unreadable: broken JSON line")[:2] == ["unreadable: broken JSON line", "1"]
    assert cells(card, "CC0 \\| &lt;b&gt;")[1] == "26" and cells(card, "en")[1] == "20"
    assert cells(card, "quiz") == ["quiz", "1", "1", "100.0 %", "0", "1", "0"]
    assert manifest["versions"]["gptjax"] in card and {"ftfy", "pyarrow"} <= manifest["versions"].keys()
    assert cells(card, "clusters of copies") == ["clusters of copies", "3"] and cells(card, "2") == ["2", "3"]
    for entry in (*manifest["splits"]["train"]["shards"], manifest["tokenizer"]["file"]):
        assert cells(card, inline(entry["name"])) == [inline(entry["name"]), f"{entry['size']:,}", entry["hash"]]
    for name in re.findall(r"\]\((card_\w+\.png)\)", card):
        assert (output / name).read_bytes().startswith(b"\x89PNG") and (output / name).stat().st_size < 100_000
    assert len(list(output.glob("card_*.png"))) == 3


def test_the_card_has_samples_of_every_source_and_reason(prepared):
    output, _ = prepared
    card = (output / "card.md").read_text()
    stayed, gone = card.split("## Documents that stayed")[1].split("## Documents that did not")
    assert len(re.findall(r"^a, .*document \d+$", stayed, re.M)) == 2
    assert len(re.findall(r"^web, .*document \d+$", stayed, re.M)) == 2
    for reason, count in {"exact duplicate": 2, "near duplicate": 1, "holds evaluation text: quiz": 1}.items():
        assert len(re.findall(rf"^{reason}: a, ", gone, re.M)) == count
    assert text(999, 20) in gone


def test_the_same_corpus_gives_the_same_bytes(sources, prepared, tmp_path):
    output, _ = prepared
    prepare(sources, tmp_path / "again")
    for path in output.glob("card*"):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_folder_is_still_a_prepared_folder(prepared):
    output, manifest = prepared
    assert finished(output, {"a": 1}, overwrite=False) == json.loads(json.dumps(manifest))


def test_the_card_has_no_sections_of_searches_that_did_not_run(sources, tmp_path):
    prepare(sources, tmp_path, duplicates__kind="none", contamination__sets=())
    card = (tmp_path / "card.md").read_text()
    assert "## Duplicates" not in card and "## Evaluation" not in card and "did not" not in card
    assert not (tmp_path / "card_duplicates.png").exists()
    prepare(sources, tmp_path / "exact", duplicates__kind="exact")
    assert (tmp_path / "exact" / "card_duplicates.png").exists()


def test_what_was_repaired_and_masked_is_told_by_kind():
    sources = [
        {"name": "a", "cleaned": {"repaired": {"encoding": 3}, "masked": {"email": 5, "ip": 0}}},
        {"name": "b", "cleaned": None},
    ]
    told = _cleaning({"sources": sources})
    assert "| a | repaired documents | encoding | 3 |" in told and "| a | masked places | email | 5 |" in told
    assert _cleaning({"sources": sources[1:]}) == ""


def test_the_public_summary_has_the_sections_of_the_template_and_only_figures_of_the_manifest(prepared):
    output, manifest = prepared
    told = (output / "public_summary.md").read_text()
    numbers = "1. 1.1 1.2 1.3 2. 2.1 2.2 2.2.1 2.2.2 2.3 2.4 2.5 2.6 3. 3.1 3.2 3.3".split()
    assert re.findall(r"^##+ (\S+) ", told, re.M) == numbers
    tokens = sum(of["tokens"] for of in manifest["splits"].values())
    assert f"less than 1 billion tokens ({tokens:,} tokens" in told
    assert cells(told, "a")[1] == "text" and cells(told, "a")[3] == "CC0 \\| &lt;b&gt;"
    assert cells(told, "near duplicate")[1] == "1" and cells(told, "en")[1] == "20"
    assert told.count("to be stated by the provider") >= 30 and "None in this folder" in told
    assert public_summary.page(json.loads((output / "manifest.json").read_text())) == told, "from the manifest alone"


def test_options_that_differ_from_the_defaults_are_listed_and_the_others_counted():
    made = default()
    made.split.validation_fraction = 0.125
    options = {name: plain(of) for name, of in flatten(made).items()} | {"input_files": 3}
    files = {"file": {"name": "tokenizer.json", "size": 1, "hash": "h"}}
    manifest = {"options": options, "versions": {}, "tokenizer": files, "splits": {}, "stages": {}}
    told = _making(manifest)
    assert "| split.validation\\_fraction | 0.125 |" in told and "| input\\_files | 3 |" in told
    assert "split.by" not in told
    assert f"The other {len(options) - 2} options have their default values; manifest.json has all." in told


def test_hostile_text_is_escaped():
    block = _fenced(HOSTILE)
    fence = block.split("text")[0]
    assert fence == "`" * 5 and block.endswith("\n" + fence) and block.count(fence) == 2
    line = inline(f"a\n{HOSTILE} **b** [c](d) ~~e~~ & \\")
    assert "\n" not in line and not re.search(r"(?<!\\)[|`*\[\]~_]|[<\x1b\u202e]", line)
