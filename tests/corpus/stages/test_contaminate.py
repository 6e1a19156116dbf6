"""Evaluation text in a whole pipeline: removed or only reported, and counted by item."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from pipeline_running import Here, watch

from gptjax.config import ConfigError
from gptjax.corpus.config import default, evaluation, source, validate
from gptjax.corpus.pipeline import Pipeline
from gptjax.corpus.sources.listing import list_sources

WORDS = [f"w{number}" for number in range(500)]


def text(seed, words=200):
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """30 documents: 3 contains all of question 0 (and 17 is its copy), 5 thirteen words of question 1, 7 twelve."""
    folder = tmp_path_factory.mktemp("sources")
    questions = [text(1000 + number, 40) for number in range(10)]
    texts = [text(number) for number in range(30)]
    texts[3] = f"{texts[3]}. {questions[0].upper()}? {texts[3]}"
    texts[17] = texts[3] + "\n"
    texts[5] += " " + " ".join(questions[1].split()[5:18])
    texts[7] += " " + " ".join(questions[2].split()[5:17])
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in texts))
    records = [{"id": f"q{number}", "question": one} for number, one in enumerate(questions)]
    (folder / "quiz.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    (folder / "brief.txt").write_text(" ".join(questions[0].split()[:8]) + "\nfour words, no more\n")
    return folder


def config(folder, **fields):
    made = default()
    made.sources = (source(name="texts", kind="text", path=f"{folder}/texts.jsonl"),)
    made.contamination.sets = (
        evaluation(name="quiz", kind="jsonl", path=f"{folder}/quiz.jsonl", fields=("question",)),
        evaluation(name="brief", kind="text", path=f"{folder}/brief.txt"),
    )
    made.tokenizer.name = "byte"
    made.split.validation_fraction = 0.2
    made.contamination.update(fields)
    validate(made)
    return made


def prepare(made, output):
    return Pipeline(made, list_sources(made.sources, 10_000), output, Here(), watch).prepare({})


def test_contaminated_documents_are_removed_and_the_items_reported(folder, tmp_path):
    manifest = prepare(config(folder), tmp_path)
    dropped = manifest["sources"][0]["dropped"]
    assert {reason: counts["documents"] for reason, counts in dropped.items()} == {
        "exact duplicate": 1,
        "holds evaluation text: quiz": 2,
    }
    found = manifest["contamination"]
    quiz, brief = found["sets"]["quiz"], found["sets"]["brief"]
    assert (quiz["items"], quiz["contaminated"], quiz["share"], quiz["left"], quiz["documents"]) == (10, 2, 0.2, 0, 2)
    assert (brief["items"], brief["contaminated"], brief["too_short"], brief["documents"]) == (2, 1, 1, 1)
    first, second = quiz["examples"]
    assert (first["item"], first["ngrams"]) == ("q0", 28) and (second["item"], second["ngrams"]) == ("q1", 1)
    assert second["text"] == " ".join(text(1001, 40).split()[5:18])
    rows = pq.read_table(tmp_path / "work" / found["items"]["name"]).to_pylist()
    assert rows == [
        {"set": "quiz", "item": "q0", "ngrams": 28, "found": 28, "left": 0},
        {"set": "quiz", "item": "q1", "ngrams": 28, "found": 1, "left": 0},
        {"set": "brief", "item": "brief.txt:1", "ngrams": 1, "found": 1, "left": 0},
    ]
    hits = [row for path in tmp_path.glob("work/contaminate-*/*hits*") for row in pq.read_table(path).to_pylist()]
    assert sorted((hit["set"], hit["item"], hit["ngrams"]) for hit in hits) == [
        ("brief", "brief.txt:1", 1),
        ("quiz", "q0", 28),
        ("quiz", "q1", 1),
    ]


def test_the_action_report_removes_nothing(folder, tmp_path):
    manifest = prepare(config(folder, action="report"), tmp_path)
    assert set(manifest["sources"][0]["dropped"]) == {"exact duplicate"}
    assert manifest["contamination"]["sets"]["quiz"]["left"] == 2


def test_documents_with_fewer_than_least_hits_are_kept(folder, tmp_path):
    manifest = prepare(config(folder, least_hits=2), tmp_path)
    assert manifest["sources"][0]["dropped"]["holds evaluation text: quiz"]["documents"] == 1
    assert manifest["contamination"]["sets"]["quiz"]["left"] == 1


def test_without_sets_the_stage_does_not_run(folder, tmp_path):
    manifest = prepare(config(folder, sets=()), tmp_path)
    assert manifest["contamination"] is None and not list(tmp_path.glob("work/contaminate-*"))


def test_a_changed_file_is_searched_again(folder, tmp_path):
    sets = tmp_path / "quiz.jsonl"
    sets.write_bytes((folder / "quiz.jsonl").read_bytes())
    made = config(folder, sets=(evaluation(name="quiz", kind="jsonl", path=str(sets)),))
    assert prepare(made, tmp_path / "out")["contamination"]["sets"]["quiz"]["contaminated"] == 2
    sets.write_text(json.dumps({"id": "q0", "question": text(2000)}) + "\n")
    assert prepare(made, tmp_path / "out")["contamination"]["sets"]["quiz"]["contaminated"] == 0


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(least_words=14), "contamination.least_words = 14: must not exceed contamination.ngram = 13"),
        (dict(action="drop"), "contamination.action = 'drop': expected one of remove, report"),
        (dict(ngram=0), "contamination.ngram = 0: must be at least 1"),
        (dict(sets=(evaluation(name="a", kind="squat", path="."),)), "a: kind = 'squat': .*did you mean squad"),
        (
            dict(sets=(evaluation(name="a", kind="text", path="."),) * 2),
            "name = 'a': must be different for each; 2 have it",
        ),
    ],
)
def test_invalid_fields_are_refused(folder, fields, message):
    with pytest.raises(ConfigError, match=message):
        config(folder, **fields)
