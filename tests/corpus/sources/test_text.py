import gzip
import json
import os
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptjax.config import ConfigError
from gptjax.corpus.documents import BLANK
from gptjax.corpus.sources import opening, read_piece, text


def documents(*inputs, **options):
    """(documents, what was skipped) of a text source."""
    options, skipped = {**text.OPTIONS, **options}, Counter()
    pieces = text.find(",".join(map(str, inputs)), options)
    return [document for piece in pieces for document in read_piece("text", piece, options, skipped)], skipped


def texts(*inputs, **options):
    found, skipped = documents(*inputs, **options)
    return [document.text for document in found], skipped


def write_parquet(path, values, name="text"):
    pq.write_table(pa.table({name: values}), path)


def test_files_of_every_kind_are_read_in_sorted_order(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.md").write_text("# é\r\n", newline="")
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbftext")  # a byte order mark is not text
    (tmp_path / "c.py").write_text("x = 1\n")
    (tmp_path / "d.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}')
    with gzip.open(tmp_path / "e.jsonl.gz", "wt") as file:
        file.write('{"text": "three"}\n')
    write_parquet(tmp_path / "f.parquet", ["four", "five"])
    (tmp_path / ".hidden.txt").write_text("not seen")
    (tmp_path / "g.csv").write_text("not seen")
    found, skipped = texts(tmp_path)
    assert found == ["text", "x = 1\n", "one", "two", "three", "four", "five", "# é\r\n"]
    assert not skipped


def test_a_piece_has_its_size_and_its_version_follows_changes(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (piece,) = text.find(str(tmp_path), text.OPTIONS)
    assert piece.uri == f"{tmp_path}/a.txt" and piece.size == 4
    os.utime(tmp_path / "a.txt", (1, 1))
    assert text.find(str(tmp_path), text.OPTIONS)[0].version != piece.version


def test_a_document_has_its_position_in_its_file(tmp_path):
    (tmp_path / "a.txt").write_text("whole")
    (tmp_path / "d.jsonl").write_text('\n{"text": "one"}\n')
    assert [document.uri for document in documents(tmp_path)[0]] == [f"{tmp_path}/a.txt", f"{tmp_path}/d.jsonl:2"]


def test_several_inputs_keep_their_order_and_no_file_is_read_twice(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text(name)
    assert texts(tmp_path / "b", tmp_path / "a", tmp_path / "b" / "x.txt")[0] == ["b", "a"]


def test_a_separator_divides_text_files_also_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("gptjax.corpus.sources.records.BLOCK", 3)
    (tmp_path / "a.txt").write_text("one<|end|>two<|end|><|end|>three")
    found, skipped = texts(tmp_path, separator="<|end|>")
    assert found == ["one", "two", "three"]
    assert skipped == {BLANK: 1}


@pytest.mark.parametrize("kind", ["txt", "jsonl", "jsonl text", "parquet"])
def test_text_that_is_not_utf8_is_replaced_skipped_or_an_error(tmp_path, kind):
    latin = "é".encode("latin-1")
    if kind == "txt":
        (tmp_path / "a.txt").write_bytes(b"caf" + latin)
    elif kind == "jsonl":
        (tmp_path / "a.jsonl").write_bytes(b'{"text": "caf' + latin + b'"}\n')
    elif kind == "jsonl text":
        (tmp_path / "a.jsonl").write_text('{"text": "caf\\ud800"}\n')  # a lone surrogate
    else:
        strings = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf" + latin]).buffers())
        pq.write_table(pa.table({"text": strings}), tmp_path / "a.parquet")
    (tmp_path / "z.txt").write_text("fine")

    found, skipped = texts(tmp_path, encoding_errors="replace")
    assert found[0].startswith("caf\ufffd") and found[1] == "fine"
    assert skipped == {"kept: bytes that are not UTF-8 became U+FFFD": 1}

    found, skipped = texts(tmp_path, encoding_errors="skip")
    assert found == ["fine"]
    assert skipped == {"unreadable: not UTF-8": 1}

    with pytest.raises(ConfigError, match=r"a\.\w+(:1)?: not UTF-8 at byte \d+"):
        texts(tmp_path, encoding_errors="error")


def test_unreadable_files_and_records_are_counted_and_the_others_read(tmp_path):
    (tmp_path / "a_empty.txt").write_bytes(b"")
    (tmp_path / "a_mark.txt").write_bytes(b"\xef\xbb\xbf")
    (tmp_path / "b_binary.txt").write_bytes(b"ELF\0\1\2")
    (tmp_path / "c.jsonl").write_text('{"text": "kept"}\n{"text": "bro\n[1]\n{"text": 3}\n' + "[" * 100_000 + "\n")
    (tmp_path / "d_corrupt.parquet").write_bytes(b"PAR1 this is not parquet PAR1")
    write_parquet(tmp_path / "e.parquet", ["also kept", None])
    write_parquet(tmp_path / "f_other.parquet", ["x"], name="body")
    write_parquet(tmp_path / "f_numbers.parquet", [1, 2])
    write_parquet(tmp_path / "g_cut.parquet", ["x" * 1000])
    cut = (tmp_path / "g_cut.parquet").read_bytes()
    (tmp_path / "g_cut.parquet").write_bytes(cut[: len(cut) // 2])
    lines = "".join(json.dumps({"text": os.urandom(2000).hex()}) + "\n" for _ in range(50)).encode()
    (tmp_path / "h_cut.jsonl.gz").write_bytes(gzip.compress(lines)[:-20_000])
    (tmp_path / "i_not.jsonl.gz").write_bytes(b"not gzip")
    (tmp_path / "z.txt").write_text("last")

    found, skipped = texts(tmp_path)
    assert found[:2] == ["kept", "also kept"] and found[-1] == "last"
    assert len(found) > 10, "documents before the end of the truncated gzip file are kept"
    assert skipped == {
        BLANK: 2,
        "unreadable: NUL bytes: not a text": 1,
        "unreadable: broken JSON line": 2,
        "no text in field 'text'": 2 + 1 + 3,
        "unreadable: corrupt parquet": 2,
        "unreadable: truncated gzip": 1,
        "unreadable: corrupt gzip": 1,
    }


def test_a_damaged_parquet_page_is_counted(tmp_path):
    write_parquet(tmp_path / "a.parquet", [os.urandom(50).hex() for _ in range(1000)])
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[4:200] = bytes(196)
    (tmp_path / "a.parquet").write_bytes(data)
    (tmp_path / "b.txt").write_text("fine")
    found, skipped = texts(tmp_path)
    assert found == ["fine"] and skipped == {"unreadable: corrupt parquet": 1}


def test_links_are_followed_but_not_in_cycles(tmp_path):
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    corpus.mkdir()
    elsewhere.mkdir()
    (elsewhere / "a.txt").write_text("linked")
    (corpus / "folder").symlink_to(elsewhere)
    (corpus / "loop").symlink_to(corpus)
    (corpus / "gone.txt").symlink_to(tmp_path / "nowhere")
    (corpus / "self.txt").symlink_to(corpus / "self.txt")
    found, skipped = texts(corpus, links="all")
    assert found == ["linked"]
    assert not skipped


def test_a_file_that_may_not_be_read_is_counted(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("secret")
    (tmp_path / "b.txt").write_text("fine")

    def refuse(path, mode):
        if path.endswith("a.txt"):
            raise PermissionError(13, "Permission denied", path)
        return open(path, mode)

    monkeypatch.setattr(opening, "open", refuse, raising=False)
    found, skipped = texts(tmp_path)
    assert found == ["fine"] and skipped == {"unreadable: PermissionError": 1}


def test_bytes_that_are_no_text_are_counted_once_as_left_out(tmp_path):
    (tmp_path / "a.txt").write_bytes(bytes(range(256)))
    (tmp_path / "b.txt").write_text("fine")
    found, skipped = texts(tmp_path)
    assert found == ["fine"] and skipped == {"unreadable: NUL bytes: not a text": 1}


@pytest.mark.parametrize(
    "name, message",
    [
        ("nowhere", r"'.*nowhere': no such file or folder"),
        ("a.csv", r"'.*a\.csv': a file must end in one of \.txt .*other kinds of source read tables"),
    ],
)
def test_invalid_inputs_are_refused(tmp_path, name, message):
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=message):
        texts(tmp_path / name)


def test_an_unknown_encoding_option_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="encoding_errors = 'ignore': expected one of detect, replace, skip, error"):
        texts(tmp_path, encoding_errors="ignore")


def test_the_standard_library_is_found():
    pieces = text.find("python-stdlib", text.OPTIONS)
    names = [piece.uri for piece in pieces]
    assert "python-stdlib/argparse.py" in names and names == sorted(names, key=lambda name: name.split("/"))
    assert not [name for name in names if "/test" in name or "site-packages" in name]
    assert sum(piece.size for piece in pieces) > 5_000_000


KINDS = {  # how a file of each kind contains a text
    "a.txt": lambda text: text,
    "a.md": lambda text: text,
    "a.jsonl": lambda text: "".join(
        json.dumps({"text": one}, ensure_ascii=False) + "\n" for one in ("first", text, "last")
    ),
    "a.json": lambda text: json.dumps([{"text": "first"}, {"text": text}, {"text": "last"}], ensure_ascii=False),
}
RUSSIAN = "Был холодный ясный апрельский день, и часы пробили тринадцать. Все счастливые семьи похожи друг на друга."


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "cp1251", "koi8-r"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_is_read_in_its_encoding_without_loss(tmp_path, name, encoding):
    (tmp_path / name).write_bytes(KINDS[name](RUSSIAN).encode(encoding))
    found, skipped = texts(tmp_path)
    assert found == (["first", RUSSIAN, "last"] if "json" in name else [RUSSIAN])
    told = [reason for reason in skipped if reason.startswith("kept: ")]
    assert len(told) == (encoding != "utf-8-sig") and set(skipped) == set(told)


def test_the_encoding_of_a_file_of_lines_is_detected_once_for_all_lines(tmp_path):
    """Single lines would not show it: they are short, or ASCII beyond the part that is examined."""
    lines = ["四月的第一天，天气晴朗而寒冷，时钟敲了十三下。"] * 20 + ["ok"] * 20_000 + ["智"]
    (tmp_path / "a.jsonl").write_bytes(
        "".join(json.dumps({"text": one}, ensure_ascii=False) + "\n" for one in lines).encode("gbk")
    )
    found, skipped = texts(tmp_path)
    assert found == lines and skipped == {"kept: files read as gb18030": 1}


def test_with_a_separator_byte_order_marks_and_encodings_are_recognized(tmp_path):
    for encoding in ("utf-8-sig", "utf-16", "cp1251"):
        (tmp_path / "a.txt").write_bytes(f"{RUSSIAN}<|end|>{RUSSIAN}".encode(encoding))
        assert texts(tmp_path, separator="<|end|>")[0] == [RUSSIAN] * 2


def test_bad_bytes_in_utf8_are_replaced_and_the_rest_is_kept(tmp_path):
    raw = RUSSIAN.encode()
    (tmp_path / "a.txt").write_bytes(raw[:60] + b"\xff" + raw[60:])
    found, skipped = texts(tmp_path)
    assert found == [RUSSIAN.encode()[:60].decode() + "\ufffd" + RUSSIAN.encode()[60:].decode()]
    assert skipped == {"kept: bytes that are not UTF-8 became U+FFFD": 1}
