import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_folders import random_documents

from gptjax.config import ConfigError
from gptjax.data.packed_index import best_fit
from gptjax.data.packing import PackedWindows
from gptjax.data.tokens import TokenSource


def best_fit_one_by_one(lengths, capacity):
    """The textbook algorithm: longest piece first, each into the fullest row with enough room, else into a new row."""
    rooms, row_of = [], {}
    for piece in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = min((r for r in range(len(rooms)) if rooms[r] >= lengths[piece]), key=lambda r: rooms[r], default=None)
        if row is None:
            rooms.append(capacity)
            row = len(rooms) - 1
        rooms[row] -= lengths[piece]
        row_of[piece] = row
    return row_of, rooms


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 30).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=80))))
def test_best_fit_by_groups_equals_best_fit(case):
    capacity, lengths = case
    row_of, num_rows = best_fit(np.array(lengths, int), capacity)
    used = np.bincount(row_of, weights=lengths, minlength=num_rows)
    _, rooms = best_fit_one_by_one(lengths, capacity)
    assert num_rows == len(rooms)
    assert sorted(capacity - used) == sorted(rooms)


@pytest.mark.parametrize("length, shard_tokens", [(8, 10), (8, 10**6), (64, 10**6)])
def test_every_token_occurs_once_and_no_segment_crosses_documents(prepared, length, shard_tokens):
    documents = random_documents(300, 40)
    source = TokenSource(prepared(train=documents, shard_tokens=shard_tokens), "train")
    rows = PackedWindows(source, length)
    batch = rows.gather(np.arange(len(rows)))
    for name, values in batch.items():
        assert values.shape == (len(rows), length)
        assert values.dtype == (np.float32 if name == "weights" else np.int32)

    supervised = batch["weights"] == 1
    np.testing.assert_array_equal(supervised, batch["segments"] > 0)
    pairs = sorted(zip(batch["tokens"][supervised].tolist(), batch["targets"][supervised].tolist()))
    stream = [source.begin_id, *np.concatenate(documents).tolist()]
    assert pairs == sorted(itertools.pairwise(stream))

    # In a segment the stream continues, positions count from 0, and a document is cut only if it is longer than T.
    starts = {int(ids[0]): len(ids) for ids in documents}
    for b in range(len(rows)):
        segments = batch["segments"][b]
        filled = np.count_nonzero(segments)
        assert (segments[filled:] == 0).all(), "padding comes last"
        for segment in range(1, segments.max() + 1):
            (places,) = np.nonzero(segments == segment)
            assert (np.diff(places) == 1).all()
            assert batch["positions"][b, places].tolist() == list(range(len(places)))
            targets = batch["targets"][b, places]
            assert (np.diff(targets) == 1).all()
            whole = starts.get(int(targets[0]), 0)
            assert len(places) == length or (len(places) < length and (whole == len(places) or whole == 0))
    padding = batch["segments"] == 0
    assert not any(values[padding].any() for values in batch.values())


def test_documents_that_fit_are_not_cut(prepared):
    """T tokens fill exactly one row; a piece from inside a document begins with the token before it."""
    source = TokenSource(prepared(train=[[*range(20, 27), 2], [*range(10, 18), 2]]), "train")
    rows = PackedWindows(source, 8)
    batch = rows.gather(np.arange(len(rows)))
    assert batch["tokens"].tolist() == [[2, *range(20, 27)], [2, *range(10, 17)], [17, *[0] * 7]]
    assert batch["targets"].tolist() == [[*range(20, 27), 2], [*range(10, 18)], [2, *[0] * 7]]


def test_rows_are_full_and_deterministic(prepared):
    source = TokenSource(prepared(train=random_documents(2000, 30)), "train")
    one, two = PackedWindows(source, 64), PackedWindows(source, 64)
    a, b = one.gather(np.arange(len(one))), two.gather(np.arange(len(two)))
    assert all((a[name] == b[name]).all() for name in a)
    assert a["weights"].mean() > 0.99
    some = one.gather(np.array([7, 3]))
    assert all((some[name] == a[name][[7, 3]]).all() for name in a)


def test_a_split_without_targets_is_refused(prepared):
    source = TokenSource(prepared(train=[[1], [1]], bos=True), "train")
    with pytest.raises(ConfigError, match="has no document with a token to learn"):
        PackedWindows(source, 8)
