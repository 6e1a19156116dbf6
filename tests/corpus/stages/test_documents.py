"""The journal knows at which documents of a shard an attempt is, and at last at which one."""

import pyarrow as pa
import pytest

from gptjax.corpus.documents import DocumentWriter
from gptjax.corpus.engine import Task
from gptjax.corpus.engine.journal import Journal, read_place, rows_place, rows_set_aside
from gptjax.corpus.stages.documents import Noted, batches

TEXTS = ["a", "b", "c"]


@pytest.fixture
def read(tmp_path):
    """A function from how earlier attempts ended to what the next one gets, with the place that it notes meanwhile."""
    with DocumentWriter(tmp_path / "documents.parquet", pa.schema([("text", pa.string())])) as writer:
        for one in TEXTS:
            writer.append([{"text": one}])

    def of(ends):
        journal = Journal(tmp_path / "journal", ends)
        task = Task(0, {"documents": {"name": "documents.parquet"}}, {}, tmp_path, journal)
        found = [(first, batch["text"].to_pylist(), read_place(tmp_path / "journal")) for first, batch in batches(task)]
        assert read_place(tmp_path / "journal") == ""
        return found, rows_set_aside(journal)

    return of


def test_a_batch_in_which_an_attempt_ended_is_given_document_by_document(read):
    assert read({}) == ([(0, TEXTS, "rows 0-3")], {})
    one_by_one = [(row, [one], rows_place(row, row + 1)) for row, one in enumerate(TEXTS)]
    assert read({"rows 0-3": ["SIGSEGV"]}) == (one_by_one, {})


def test_a_row_is_set_aside_at_the_third_strike_and_a_whole_batch_never(read):
    found, rows = read({"rows 0-3": ["killed"] * 3, "rows 1-2": ["exit status 3"] * 3, "rows 2-3": ["killed"] * 2})
    assert len(found) == 3 and rows == {1: "exit status 3"}


def test_the_text_of_a_row_that_is_set_aside_is_empty():
    assert list(Noted(Journal(ends={"rows 1-2": ["killed"] * 3}), TEXTS)) == ["a", "", "c"]
