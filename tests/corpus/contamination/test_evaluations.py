"""Items are read from the files of evaluation sets."""

import bz2
import json

import pytest

from gptjax.config import ConfigError
from gptjax.corpus.config import evaluation
from gptjax.corpus.contamination.evaluations import Item, listed, read_items

SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": "A paragraph.",
                    "qas": [
                        {"id": "q1", "question": "Which?", "answers": [{"text": "that", "answer_start": 0}]},
                        {"id": 2, "question": "What?"},
                    ],
                }
            ]
        }
    ]
}


def items(path, kind, *fields):
    (one,) = listed([evaluation(name="it", kind=kind, path=str(path), fields=fields)])
    return list(read_items(json.loads(json.dumps(one))))


def test_squad_files_are_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(SQUAD))
    first, second = items(tmp_path / "a.json", "squad")
    assert first == Item("q1", ("A paragraph.", "Which?")) and second == Item("2", ("A paragraph.", "What?"))
    assert items(tmp_path / "a.json", "squad", "answers")[0].texts == ("that",)


def test_several_jsonl_files_are_read_compressed_or_not(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"query": "one\u2028two", "choices": ["no", {"deep": "yes"}], "gold": 0}\n\n')
    (tmp_path / "b.jsonl.bz2").write_bytes(bz2.compress(b'{"id": 7, "query": "two", "choices": []}\n'))
    path = f"{tmp_path}/a.jsonl,{tmp_path}/b.*"
    assert items(path, "jsonl") == [Item("a.jsonl:1", ("one\u2028two", "no", "yes")), Item("7", ("two",))]
    assert items(path, "jsonl", "query")[0].texts == ("one\u2028two",)


def test_tables_are_read(tmp_path):
    (tmp_path / "a.csv").write_text('question,A\n"one, ""two""",x\n')
    (tmp_path / "b.tsv").write_text('ham\tGo on\nspam\t"Call now\nham\tOk\n')
    assert items(tmp_path / "a.csv", "table") == [Item("a.csv:1", ('one, "two"', "x"))]
    assert items(tmp_path / "a.csv", "table", "question")[0].texts == ('one, "two"',)
    texts = ["Go on", '"Call now', "Ok"]  # as an evaluation reads them, so that the numbers of rows agree
    assert items(tmp_path / "b.tsv", "table", 1) == [Item(f"b.tsv:{k}", (text,)) for k, text in enumerate(texts, 1)]


def test_lines_of_text_are_items(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffone\n\n two\n")
    assert items(tmp_path / "a.txt", "text") == [Item("a.txt:1", ("one",)), Item("a.txt:3", (" two",))]


@pytest.mark.parametrize(
    "name, content, kind, fields, message",
    [
        ("a.json", "[]", "squad", (), r"contamination: it: .*a.json cannot be read as kind 'squad' \(TypeError"),
        ("a.jsonl", '{"text": ""}', "jsonl", ("query",), r"with fields query \(KeyError: 'query'\)"),
        ("a.csv", "a,b\n", "table", ("c",), r"'table' with fields c \(ValueError"),
        ("a.txt", "\n", "text", (), "contamination: it: there is no item in it"),
        ("a.txt.bz2", "no bzip2", "text", (), r"cannot be read as kind 'text' \(Unreadable"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, name, content, kind, fields, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        items(tmp_path / name, kind, *fields)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"contamination: it: .*no such file"):
        items(tmp_path / "none", "text")
    with pytest.raises(ConfigError, match=r"contamination: it: .*no file there"):
        items(tmp_path, "text")
