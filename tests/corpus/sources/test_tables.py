import gzip
import json

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from source_reading import documents, write

from gptjax.config import ConfigError
from gptjax.corpus.sources import tables

ROWS = [
    {"text": f"text {i}", "title": f"T{i}", "url": f"http://x/{i}", "lic": "MIT", "lang": "en", "n": i}
    for i in range(3)
]
TABLE = pa.Table.from_pylist(ROWS)
TEXTS = [row["text"] for row in ROWS]


def write_arrow(path, open_writer=pa.ipc.new_stream):
    with open_writer(str(path), TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=2)


@pytest.mark.parametrize(
    "name", ["a.parquet", "a.arrow", "file.arrow", "a.jsonl", "a.jsonl.gz", "a.json", "a.csv", "a.tsv.gz"]
)
def test_every_kind_of_table_is_read(tmp_path, name):
    if name.endswith(".parquet"):
        pq.write_table(TABLE, tmp_path / name, row_group_size=2)
    elif name.endswith(".arrow"):
        write_arrow(tmp_path / name, pa.ipc.new_file if name == "file.arrow" else pa.ipc.new_stream)
    elif name.endswith(".json"):
        write(tmp_path, {name: json.dumps(ROWS)})
    elif "json" in name:
        raw = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
        write(tmp_path, {name: gzip.compress(raw) if name.endswith(".gz") else raw})
    else:
        by = "\t" if "tsv" in name else ","
        raw = "\n".join([by.join(ROWS[0]), *(by.join(map(str, row.values())) for row in ROWS)]).encode()
        write(tmp_path, {name: gzip.compress(raw) if name.endswith(".gz") else raw})
    found, skipped = documents("tables", tmp_path)
    assert [one.text for one in found] == TEXTS and not skipped
    assert found[1].uri == f"{tmp_path}/{name}:2" and found[1].license == ""

    found, _ = documents("tables", tmp_path, text="{title}: {text}\n{n}", uri="url", license="lic", language="lang")
    assert found[2].text == "T2: text 2\n2"
    assert (found[2].uri, found[2].license, found[2].language) == ("http://x/2", "MIT", "en")


def test_the_folder_of_a_dataset_is_read(tmp_path):
    card = {
        "README.md": "---\nlicense: mit\n---\n",
        "dataset_infos.json": "{}",
        "train/state.json": "{}",
        ".cache/x.json": "{}",
    }
    write(tmp_path, card | {"train/dataset_info.json": "{}"})
    write_arrow(tmp_path / "train" / "data-00000-of-00001.arrow")
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        pq.write_table(TABLE, tmp_path / "data" / f"{name}.parquet")
    pq.write_table(TABLE, tmp_path / "validation.parquet")
    assert len(documents("tables", tmp_path)[0]) == 5 * 3
    assert len(documents("tables", tmp_path, split="train")[0]) == 3 * 3
    assert len(documents("tables", tmp_path, split="t*")[0]) == 4 * 3
    assert len(documents("tables", tmp_path, split="validation")[0]) == 3
    assert len(documents("tables", tmp_path / "validation.parquet", split="train")[0]) == 3  # named in the path
    with pytest.raises(ConfigError, match="no such file"):
        documents("tables", tmp_path / "nowhere")


def test_a_large_parquet_file_is_divided_into_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "PIECE_BYTES", 3000)
    table = pa.table({"text": [f"{i} " + "x" * 100 for i in range(100)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10, compression="none", use_dictionary=False)
    pieces = tables.find(str(tmp_path), tables.OPTIONS)
    assert len(pieces) == 5 and 0.9 < sum(one.size for one in pieces) / (tmp_path / "a.parquet").stat().st_size <= 1
    found, _ = documents("tables", tmp_path)
    assert [one.text for one in found] == table["text"].to_pylist()
    assert [one.uri.rpartition(":")[2] for one in found] == [str(i) for i in range(1, 101)]
    assert len({one.uri for one in pieces}) == 5


def test_rows_without_text_and_missing_columns_are_counted(tmp_path):
    rows = [{"a": "x", "b": None}, {"a": None, "b": None}, {"a": "", "b": "y"}]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema({"a": pa.string(), "b": pa.string()})), tmp_path / "a.parquet")
    found, skipped = documents("tables", tmp_path, text="{a}\n\n{b}")
    assert [one.text for one in found] == ["x", "y"]
    assert skipped == {"no text in '{a}\\n\\n{b}'": 1}
    assert documents("tables", tmp_path, text="body")[1] == {"no text in 'body'": 3}


def test_unusual_columns_are_read(tmp_path):
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"]).buffers())
    columns = {
        "bad.parquet": bad,
        "coded.parquet": pa.array(["one"]).dictionary_encode(),
        "lists.parquet": pa.array([["x"]]),
    }
    for name, column in columns.items():
        pq.write_table(pa.table({"text": column}), tmp_path / name)
    write(tmp_path, {"surrogate.jsonl": '{"text": "caf\\ud800"}\n', "nul.jsonl": '{"text": "a\\u0000b"}\n[1]\n'})
    found, skipped = documents("tables", tmp_path)
    assert [one.text.replace("\ufffd", "?").rstrip("?") for one in found] == ["café", "one", "caf"]
    assert skipped == {
        "kept: read as cp1252, judging by its bytes": 1,
        "kept: bytes that are not UTF-8 became U+FFFD": 1,
        "no text in 'text'": 1,
        "unreadable: NUL bytes: not a text": 1,
        "unreadable: a line that is not a record": 1,
    }


def test_csv_cells_may_contain_line_breaks(tmp_path):
    write(
        tmp_path,
        {"a.csv": '\ufefftext,n\n"one\ntwo, ""three""",1\nfour,2\n', "b.csv": 'text\n"never ' + "closed " * 200},
    )
    found, skipped = documents("tables", tmp_path, max_line_bytes=1000)
    assert [one.text for one in found] == ['one\ntwo, "three"', "four"]
    assert sum(skipped.values()) == 1


def test_bad_files_are_counted_and_the_others_read(tmp_path):
    write(tmp_path, {"a.parquet": b"PAR1 no PAR1", "b.arrow": b"no", "c.jsonl": "{broken\n", "d.jsonl.gz": b"no"})
    write_arrow(tmp_path / "e.arrow")
    whole = (tmp_path / "e.arrow").read_bytes()
    (tmp_path / "e.arrow").write_bytes(whole[: len(whole) - len(whole) // 3])
    pq.write_table(TABLE, tmp_path / "z.parquet")
    found, skipped = documents("tables", tmp_path)
    assert [one.text for one in found[-3:]] == TEXTS
    assert skipped["unreadable: corrupt parquet"] == 1 and skipped["unreadable: corrupt arrow"] == 2
    assert skipped["unreadable: broken JSON line"] == 1 and skipped["unreadable: corrupt gzip"] == 1


@pytest.mark.parametrize("text", ["{", "{}", "{a!r}", "{a:>9}", "no {braces"])
def test_a_text_option_without_columns_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="text = "):
        documents("tables", tmp_path, text=text)
