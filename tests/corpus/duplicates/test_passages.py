import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_duplicates import prose, words

from gptjax.config import ConfigError
from gptjax.corpus.documents import Document, DocumentWriter, rows_of
from gptjax.corpus.duplicates import join
from gptjax.corpus.duplicates.passages import Passages, covered, later_copies, paragraph_hashes, paragraph_spans, runs
from gptjax.corpus.duplicates.sketch import exact_hashes
from gptjax.corpus.engine import Stage, Task, run_stage
from gptjax.corpus.stages.passages import hash_passages, join_passages, mark_passages
from gptjax.corpus.stages.verdicts import EMPTIED, PASSAGES, remaining
from gptjax.files import file_entry


class Here:
    def run(self, function, items):
        return ((index, function(item)) for index, item in enumerate(items))


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=50), st.integers(1, 7), st.sampled_from([1 << 20, 200]))
def test_later_copies_are_those_that_came_before(tmp_path_factory, values, chunk, memory):
    hashes = [np.array(values[i : i + chunk], np.uint64) << np.uint64(60) for i in range(0, len(values), chunk)]
    found = later_copies(hashes, len(values), tmp_path_factory.mktemp("spill"), memory)
    assert found.tolist() == [value in values[:i] for i, value in enumerate(values)]


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=20), st.integers(1, 5))
def test_covered_units_are_grouped_into_runs(windows, n):
    found = covered(np.array(windows, bool), n)
    inside = {unit for place, marked in enumerate(windows) if marked for unit in range(place, place + n)}
    assert found.tolist() == [unit in inside for unit in range(len(windows) + n - 1)]
    places = runs(found).tolist()
    assert {unit for start, end in places for unit in range(start, end)} == inside
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(places))


def search(folder, texts, passages, sizes=()):
    """(counts, each text without later copies), computed by the stages over shards of the given sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    cuts = [0, *np.cumsum(sizes, dtype=int).tolist(), len(texts)]
    inputs = []
    for number, (start, end) in enumerate(itertools.pairwise(cuts)):
        with DocumentWriter(folder / f"{number}.parquet") as writer:
            for text in texts[start:end]:
                writer.append(rows_of("a", Document(text, "uri"), 10**6, Counter()))
        inputs.append({"documents": file_entry(folder / f"{number}.parquet"), "verdicts": []})
    options = {"kind": passages.kind, "words": passages.words}
    hashed = run_stage(Stage("passages", hash_passages, options=options), inputs, folder, Here())
    join = Stage("join", join_passages, options={"memory_megabytes": 512})
    entries = [result["files"]["hashes.npy"] for result in hashed]
    (joined,) = run_stage(join, [{"shards": entries}], folder, Here())
    later = [joined["files"][f"later-{number:05d}.npy"] for number in range(len(inputs))]
    with_later = [{**one, "later": entry} for one, entry in zip(inputs, later)]
    marked = run_stage(Stage("mark", mark_passages, options=options), with_later, folder, Here())
    kept, cut, emptied = [], 0, 0
    for one, result in zip(inputs, marked):
        task = Task(0, {**one, "spans": result["files"]["spans.parquet"]}, {}, folder)
        rows = {}
        for shard in remaining(task):
            rows |= dict(zip(shard.rows.tolist(), shard.texts))
            cut += shard.dropped.get(PASSAGES, (0, 0))[1]
            emptied += shard.dropped.get(EMPTIED, (0, 0))[0]
        kept += [rows.get(row, "") for row in range(result["report"]["documents"])]
    report = joined["report"] | {
        name: sum(result["report"][name] for result in marked) for name in ("documents_with_copies", "characters")
    }
    assert emptied == sum(not text.strip() for text in kept) - sum(not text.strip() for text in texts)
    if not emptied:
        assert cut == sum(len(text.encode()) for text in texts) - sum(len(text.encode()) for text in kept)
        assert report["characters"] == sum(map(len, texts)) - sum(map(len, kept))
    return report, kept


def test_windows_equal_those_of_brute_force(tmp_path, monkeypatch):
    """Runs of words that came before, found by comparing every window of every text."""
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
        assert report["later_copies"] == count > 40 and report["documents_with_copies"] == 2


@pytest.mark.parametrize("kind, gap", [("paragraph", "\n\n"), ("line", "\n")])
def test_repeated_paragraphs_and_lines_are_found(tmp_path, kind, gap):
    text = gap.join(["a first one", "short", "a  second one", "short", "a first one "])
    report, kept = search(tmp_path, [text, f"a second one{gap}a third one"], Passages(kind, words=3))
    assert kept == [gap.join(["a first one", "short", "a  second one", "short", ""]), f"{gap}a third one"]
    assert (report["passages"], report["later_copies"]) == (5, 2)


def test_without_long_enough_documents_no_passage_is_found(tmp_path):
    report, kept = search(tmp_path / "short", ["a b c", "a b c", "d"], Passages(words=4))
    assert kept == ["a b c", "a b c", "d"] and report["passages"] == 0


def test_a_document_of_only_copies_is_dropped(tmp_path):
    report, kept = search(tmp_path, ["a b c d", "new", "A b,  c d\n"], Passages("window", words=4))
    assert kept == ["a b c d", "new", ""] and report["documents_with_copies"] == 1


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(kind="word"), "passages.kind = 'word': expected one of window, paragraph, line"),
        (dict(words=0), "passages.words = 0: must be at least 1"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Passages(**options)


def test_paragraphs_are_separated_by_blank_lines():
    texts = ["one\n\n two \n \nthree", "", "two", "\n\n \n"]
    flat, offsets = paragraph_hashes(texts)
    assert offsets.tolist() == [0, 3, 3, 4, 4]
    assert flat[1] == flat[3] == exact_hashes(["two"])[0] and len(set(flat.tolist())) == 3
    assert [texts[0][a:b] for a, b in paragraph_spans(texts[0]).tolist()] == ["one", " two ", "three"]
    assert np.diff(paragraph_hashes(["a\nb\n\nc"], "\n")[1]).tolist() == [3]
