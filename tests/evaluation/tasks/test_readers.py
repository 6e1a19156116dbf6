import bz2
import gzip
import json
import zipfile

import pytest

from gptjax.corpus.contamination.evaluations import listed, read_items
from gptjax.errors import ConfigError
from gptjax.evaluation.tasks.readers import members_in, read_rows

SQUAD = {
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": "C",
                    "qas": [
                        {"id": "q1", "question": "Q1", "answers": [{"text": "A", "answer_start": 0}]},
                        {"id": "q2", "question": "Q2", "answers": []},
                    ],
                }
            ],
        }
    ]
}
FILES = {
    "jsonl": ('{"a": 1}\n\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
    "csv": ('question,answer\n"a, ""b""",3\n', [{"question": 'a, "b"', "answer": "3"}]),
    "tsv": ('ham\t"quoted\nspam\tb\n', [{"label": "ham", "text": '"quoted'}, {"label": "spam", "text": "b"}]),
    "hellaswag": ("C\n1\nw\nx\ny\nz\n", [{"context": "C", "label": "1", "endings": ["w", "x", "y", "z"]}]),
    "lines": ("one\n\ntwo\n", [{"line": "one"}, {"line": "two"}]),
    "squad": (
        json.dumps(SQUAD),
        [
            {"title": "T", "context": "C", "question": "Q1", "id": "q1", "answers": ["A"]},
            {"title": "T", "context": "C", "question": "Q2", "id": "q2", "answers": []},
        ],
    ),
    "gsm8k": (
        json.dumps({"question": "Q", "answer": "1 + 1 = 2\n#### 2"}),
        [{"question": "Q", "answer": "1 + 1 = 2\n#### 2", "reasoning": "1 + 1 = 2", "number": "2"}],
    ),
}


@pytest.mark.parametrize("reader", FILES)
def test_each_format(reader, tmp_path):
    text, values = FILES[reader]
    path = tmp_path / "data.file"
    path.write_text(text)
    rows, _ = read_rows(str(path), reader, ("label", "text") if reader == "tsv" else ())
    assert [row.values for row in rows] == values


def test_compressed_files_and_archives(tmp_path):
    text = FILES["jsonl"][0].encode()
    for name, compress in (("a.jsonl.gz", gzip.compress), ("a.jsonl.bz2", bz2.compress)):
        (tmp_path / name).write_bytes(compress(text))
        rows, _ = read_rows(str(tmp_path / name), "jsonl", ())
        assert [row.known_as for row in rows] == [("a.jsonl:1",), ("a.jsonl:3",)]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("data/x.jsonl", "data/y.jsonl", "data/deep/z.jsonl", "other.jsonl"):
            archive.writestr(name, text)
    found = members_in(f"{tmp_path}/all.zip!data/*.jsonl")
    assert list(found) == ["x", "y"]
    assert len(read_rows(found["x"], "jsonl", ())[0]) == 2


@pytest.mark.parametrize(("kind", "reader", "name"), [("squad", "squad", "a.json"), ("jsonl", "jsonl", "a.jsonl")])
def test_rows_have_the_ids_of_the_contamination_report(kind, reader, name, tmp_path):
    """Preparation of a corpus and evaluation give the same items the same numbers."""
    (tmp_path / name).write_text(FILES[reader][0].replace('"a"', '"text"').replace("1}", '"one"}'))
    (evaluation,) = listed([_Set(kind, str(tmp_path / name))])
    rows, _ = read_rows(str(tmp_path / name), reader, ())
    assert [item.id for item in read_items(evaluation)] == [row.known_as[0] for row in rows]


def test_lines_of_hellaswag_have_the_ids_of_the_contamination_report(tmp_path):
    (tmp_path / "h.txt").write_text(FILES["hellaswag"][0] * 2)
    (evaluation,) = listed([_Set("text", str(tmp_path / "h.txt"))])
    rows, _ = read_rows(str(tmp_path / "h.txt"), "hellaswag", ())
    assert [item.id for item in read_items(evaluation)] == [each for row in rows for each in row.known_as]


class _Set:
    def __init__(self, kind, path):
        self.name, self.kind, self.path, self.fields = "set", kind, path, ()


@pytest.mark.parametrize(
    ("reader", "text", "told"),
    [
        ("jsonl", '{"a": 1}\n{"a"\n', "row 2"),
        ("jsonl", "[1]\n", "row 1"),
        ("csv", "a,b\n1,2\n3\n", "row 2: has 1 columns"),
        ("hellaswag", "C\n1\nw\n", "not a multiple of 6"),
        ("squad", '{"data": [{"paragraphs": [{}]}]}', "KeyError"),
        ("gsm8k", '{"answer": "7"}\n', "row 1"),
        ("jsonl", "", "no rows"),
    ],
)
def test_invalid_files_are_refused_with_the_row(reader, text, told, tmp_path):
    (tmp_path / "bad").write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_rows(str(tmp_path / "bad"), reader, ())


@pytest.mark.parametrize("name", ["a.gz", "a.bz2", "a.xz", "a.zip!x", "missing", "bytes"])
def test_damaged_files_are_refused(name, tmp_path):
    for file in ("a.gz", "a.bz2", "a.xz", "a.zip"):
        (tmp_path / file).write_bytes(b"not what its name says")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match=name.partition("!")[0]):
        read_rows(str(tmp_path / name), "jsonl", ())
