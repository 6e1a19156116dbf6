import itertools

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_duplicates import prose, rows, words, write_shards

from gptjax.config import ConfigError
from gptjax.corpus.duplicates import join
from gptjax.corpus.duplicates.passages import Passages, find_passages, write_passages
from gptjax.corpus.duplicates.substrings import covered, later_copies, runs, without


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=50), st.integers(1, 7), st.sampled_from([1 << 20, 200]))
def test_later_copies_have_come_before(tmp_path_factory, values, chunk, memory):
    hashes = [np.array(values[i : i + chunk], np.uint64) << np.uint64(60) for i in range(0, len(values), chunk)]
    found = later_copies(hashes, len(values), tmp_path_factory.mktemp("spill"), memory)
    assert found.tolist() == [value in values[:i] for i, value in enumerate(values)]


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=20), st.integers(1, 5))
def test_covered_units_and_their_runs(windows, n):
    found = covered(np.array(windows, bool), n)
    inside = {unit for place, marked in enumerate(windows) if marked for unit in range(place, place + n)}
    assert found.tolist() == [unit in inside for unit in range(len(windows) + n - 1)]
    places = runs(found).tolist()
    assert {unit for start, end in places for unit in range(start, end)} == inside
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(places))


def search(folder, texts, passages, sizes=()):
    """(report, each text without the later copies)."""
    documents = rows(texts)
    paths = write_shards(folder, documents, list(sizes), row_group=3)
    shards = [(path, path.with_suffix(".npz")) for path in paths]
    for path, hashes in shards:
        write_passages(path, hashes, passages)
    report = find_passages(shards, folder, passages)
    spans = {}
    for row in pyarrow.parquet.read_table(folder / "spans.parquet").to_pylist():
        spans.setdefault(row["id"], []).append((row["start"], row["end"]))
    assert len(spans) == report["documents"]
    kept = [without(row["text"], np.array(spans.get(row["id"], []), int).reshape(-1, 2)) for row in documents]
    assert report["characters"] == sum(map(len, texts)) - sum(map(len, kept))
    return report, kept


def test_windows_are_those_of_brute_force(tmp_path, monkeypatch):
    """Runs of words that have stood before, found by looking at every window of every text."""
    rng = np.random.default_rng(0)
    repeated = " ".join(prose(rng, 30))
    texts = [" ".join(prose(rng, rng.integers(5, 60))) for _ in range(12)]
    texts[2] += f" {repeated}"
    texts[5] = f"Ça commence. {repeated.upper()}! et {repeated}"
    texts[9] = repeated[: len(repeated) // 2]
    seen, expected, count = set(), [], 0
    for text in texts:
        units = words(text)
        marked = set()
        for i in range(len(units) - 9):
            window = tuple(units[i : i + 10])
            if window in seen:
                marked |= set(range(i, i + 10))
                count += 1
            seen.add(window)
        expected.append([unit for i, unit in enumerate(units) if i not in marked])
    for number, sizes in enumerate([(), (4, 4), (1, 10)]):
        if number == 2:
            monkeypatch.setattr(join, "ENTRY_BYTES", 10 << 20)  # as if the join had to be spilled
        report, kept = search(tmp_path / str(number), texts, Passages(words=10), sizes)
        assert [words(text) for text in kept] == expected
        assert report["later_copies"] == count > 40 and report["documents"] == 2


@pytest.mark.parametrize("kind, gap", [("paragraph", "\n\n"), ("line", "\n")])
def test_paragraphs_and_lines(tmp_path, kind, gap):
    text = gap.join(["a first one", "short", "a  second one", "short", "a first one "])
    report, kept = search(tmp_path, [text, f"a second one{gap}a third one"], Passages(kind, words=3))
    assert kept == [gap.join(["a first one", "short", "a  second one", "short", ""]), f"{gap}a third one"]
    assert (report["passages"], report["later_copies"]) == (5, 2)


def test_no_document_and_none_long_enough(tmp_path):
    report, kept = search(tmp_path / "short", ["a b c", "a b c", ""], Passages(words=4))
    assert kept == ["a b c", "a b c", ""] and report["passages"] == 0
    assert search(tmp_path / "none", [], Passages("line"))[0]["characters_in_all"] == 0


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(kind="word"), "passages.kind = 'word': expected one of window, paragraph, line"),
        (dict(words=0), "passages.words = 0: must be at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Passages(**options)
