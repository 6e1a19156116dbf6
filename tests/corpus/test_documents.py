from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from gptjax.corpus import documents
from gptjax.corpus.documents import (
    BLANK,
    Document,
    DocumentWriter,
    cut_at_paragraphs,
    document_id,
    is_blank,
    read_documents,
    rows_of,
)


def test_an_id_depends_only_on_source_uri_and_content():
    base = document_id("web", "http://a", "text")
    assert base == document_id("web", "http://a", "text") and 0 <= base < 2**64
    others = [
        ("web", "http://a", "text "),
        ("web", "http://b", "text"),
        ("books", "http://a", "text"),
        ("webh", "ttp://a", "text"),
    ]
    assert base not in {document_id(*other) for other in others}


@pytest.mark.parametrize(
    "text",
    [
        "paragraph one\n\nparagraph two, longer\n\nthree",
        "lines\nand\nmore\nlines" * 5,
        "words " * 30,
        "é中😀" * 30,
        "a",
    ],
)
@pytest.mark.parametrize("most", [8, 16, 40])
def test_parts_are_short_enough_and_join_to_the_whole(text, most):
    parts = cut_at_paragraphs(text, most)
    assert "".join(parts) == text and all(parts)
    assert max(len(part.encode()) for part in parts) <= most
    assert (len(parts) == 1) == (len(text.encode()) <= most)


def test_cuts_are_after_paragraphs_then_lines_then_words():
    assert cut_at_paragraphs("one two\nthree\n\nfour five\nsix", 24) == ["one two\nthree\n\n", "four five\nsix"]
    assert cut_at_paragraphs("one two\nthree four five", 12) == ["one two\n", "three four ", "five"]
    assert cut_at_paragraphs("x" * 10, 4) == ["xxxx", "xxxx", "xx"]


def test_parts_of_a_long_document_name_their_parent():
    (row,) = rows_of("books", Document("short", "a.txt", license="CC0", language="en"), 100, Counter())
    assert row == {
        **{"id": document_id("books", "a.txt", "short"), "parent_id": 0, "source": "books", "uri": "a.txt"},
        **{"license": "CC0", "language": "en", "text": "short"},
    }
    rows = list(rows_of("books", Document("same\n\n" * 8, "a.txt"), 12, Counter()))
    assert [row["uri"] for row in rows] == [f"a.txt#part={i}" for i in (1, 2, 3, 4)]
    assert len({row["id"] for row in rows}) == 4, "parts of one text have different ids"
    assert {row["parent_id"] for row in rows} == {document_id("books", "a.txt", "same\n\n" * 8)}


BLANKS = ("", " ", "\n\n\t", "\ufeff", "\u200b\u2060\u00ad", "\u00a0\u3000\u2028", "\x0c\x1b", "\u2800\u3164")


@pytest.mark.parametrize("text", BLANKS)
def test_text_without_visible_characters_is_no_document(text):
    skipped = Counter()
    assert is_blank(text) and not list(rows_of("s", Document(text, "a"), 100, skipped)) and skipped == {BLANK: 1}
    for visible in ("x", "。", "\U0001f600", "\u0301", "\ue000"):
        assert not is_blank(f"{text}{visible}{text}")


def test_parts_that_are_blank_are_no_documents():
    skipped = Counter()
    rows = list(rows_of("s", Document("one\n" + "\n" * 40 + "two\n", "a"), 12, skipped))
    assert [row["text"].strip() for row in rows] == ["one", "two"] and skipped == {BLANK: 2}
    assert [row["uri"] for row in rows] == ["a#part=1", "a#part=4"], "parts keep their positions"


def test_documents_are_written_and_read_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "GROUP_BYTES", 5000)
    rng = np.random.default_rng(0)
    made = (Document("é" * int(rng.integers(1, 500)), str(i)) for i in range(100))
    rows = [row for document in made for row in rows_of("s", document, 10**6, Counter())]
    for name in ("one", "two"):
        with DocumentWriter(tmp_path / name) as writer:
            writer.append(rows)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert writer.documents == 100 and writer.bytes == sum(len(row["text"].encode()) for row in rows)
    batches = list(read_documents(tmp_path / "one"))
    assert [row for batch in batches for row in batch.to_pylist()] == rows
    sizes = [sum(len(text.encode()) for text in batch["text"].to_pylist()) for batch in batches]
    assert max(sizes) < 6000 and min(sizes[:-1]) >= 5000
    assert [batch.schema.names for batch in read_documents(tmp_path / "one", ["id"])] == [["id"]] * len(batches)

    with DocumentWriter(tmp_path / "three") as writer:
        for batch, size in zip(batches, sizes):
            writer.append_batch(batch, size)
    assert pq.read_table(tmp_path / "three").to_pylist() == rows and writer.bytes == sum(sizes)


def test_a_file_without_documents_is_read(tmp_path):
    DocumentWriter(tmp_path / "none").close()
    assert list(read_documents(tmp_path / "none")) == []
