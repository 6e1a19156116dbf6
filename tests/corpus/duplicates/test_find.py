import dataclasses
import hashlib
import json
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pyarrow.parquet
import pytest
from planted_duplicates import pair_similarities, planted, rows, write_shards

from gptjax.config import ConfigError
from gptjax.corpus.duplicates import find as find_module
from gptjax.corpus.duplicates import join
from gptjax.corpus.duplicates.find import Search, find_duplicates
from gptjax.corpus.duplicates.nodes import Earlier, SketchedShard
from gptjax.corpus.duplicates.sketch import COLUMNS, Sketch, Sketches, write_sketches

SKETCH = Sketch(bands=18, rows=7)


def sketched(folder, documents, sizes=(), sketch=SKETCH, **options):
    """Shards of the documents and of their sketches."""
    shards = []
    for path in write_shards(folder, documents, list(sizes)):
        shards.append(SketchedShard(path, path.with_suffix(".npz")))
        write_sketches(path, shards[-1].sketches, sketch, **options)
    return shards


def find(folder, documents, sizes=(), earlier=None, parallel=map, **search):
    """(report, {id: row of clusters.parquet}, rows of drops.parquet)."""
    shards = sketched(folder, documents, sizes)
    report = find_duplicates(shards, folder, Search(**search), earlier, parallel)
    clusters, drops = (pyarrow.parquet.read_table(folder / f"{name}.parquet") for name in ("clusters", "drops"))
    assert clusters["id"].to_pylist() == list({row["id"]: 0 for row in clusters.to_pylist()})  # each id occurs once
    return report, {row["id"]: row for row in clusters.to_pylist()}, drops.to_pylist()


def true_clusters(documents, threshold):
    """Sets of two or more ids joined by chains of similarities of at least `threshold`, computed by brute force."""
    near = pair_similarities([row["text"] for row in documents]) >= threshold
    while not np.array_equal(wider := (near.astype(int) @ near) > 0, near):
        near = wider
    ids = np.array([row["id"] for row in documents], object)
    return {frozenset(ids[linked]) for linked in near if linked.sum() > 1}


def clusters_found(clusters):
    by_representative = {}
    for row in clusters.values():
        by_representative.setdefault(row["representative"], set()).add(row["id"])
    return {frozenset(ids) for ids in by_representative.values()}


def chain(length, words=220, step=10):
    """Texts of which each has most words of the one before; the last has none of the first."""
    every = [f"w{i}" for i in range(words + step * length)]
    texts = [" ".join(every[step * i : step * i + words]) for i in range(length)]
    return [
        {"id": 1000 + i, "source": "s", "uri": f"{i}", "license": "", "language": "", "text": text}
        for i, text in enumerate(texts)
    ]


def test_a_document_goes_only_if_it_resembles_one_that_stays(tmp_path):
    documents = [{**rows(planted())[0], **row} for row in chain(25)]
    similar = pair_similarities([row["text"] for row in documents])
    assert similar.diagonal(1).min() >= 0.8 and similar[0, -1] == 0
    (tmp_path / "chain").mkdir()
    _, clusters, _ = find(tmp_path / "chain", documents, resembling="chain")
    assert sum(row["kind"] == "kept" for row in clusters.values()) == 1 and len(clusters) == 25
    (tmp_path / "kept").mkdir()
    _, clusters, drops = find(tmp_path / "kept", documents)
    dropped = {row["id"]: row["representative"] for row in drops}
    stay = [i for i, row in enumerate(documents) if row["id"] not in dropped]
    assert len(stay) > 5 and np.triu(similar[np.ix_(stay, stay)], 1).max() < 0.8
    for number, representative in dropped.items():
        assert similar[number - 1000, representative - 1000] >= 0.8 and representative not in dropped


def test_planted_copies_are_found_and_no_others(tmp_path):
    documents = rows(planted())
    by_id = {row["id"]: row["text"] for row in documents}
    report, clusters, drops = find(tmp_path, documents, [40, 0, 1], resembling="chain")
    assert clusters_found(clusters) == true_clusters(documents, 0.8)
    for row in clusters.values():
        members = [other["id"] for other in clusters.values() if other["representative"] == row["representative"]]
        assert row["size"] == len(members) > 1
        assert row["representative"] == min(members, key=lambda one: (-len(by_id[one]), one))
        same = by_id[row["id"]].split() == by_id[row["representative"]].split()
        kept = row["id"] == row["representative"]
        assert row["kind"] == ("kept" if kept else "exact" if same else "near")
        pair = pair_similarities([by_id[row["id"]], by_id[row["representative"]]])
        assert row["jaccard"] == pytest.approx(pair[0, 1], abs=1e-6)
    assert {row["id"] for row in drops} == {one for one, row in clusters.items() if row["kind"] != "kept"}
    for row in drops:
        found = clusters[row["id"]]
        assert row == {**row, "reason": f"{found['kind']} duplicate", "representative": found["representative"]}
    kinds = [row["kind"] for row in clusters.values()]
    assert report["exact_dropped"] == kinds.count("exact") >= 5
    assert report["near_dropped"] == kinds.count("near") > 25
    assert report["clusters"] == kinds.count("kept") and report["documents"] == len(documents)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_similarities_equal_those_counted_by_hand(tmp_path):
    """30 different words make 26 shingles of five words; changing an inner word changes five, the last word one."""
    original = [f"word{number}" for number in range(30)]
    changes = {
        "last word": [*original[:-1], "x"],  # 25 of 27
        "two words short": original[2:],  # 24 of 26
        "case and punctuation": [f"{word.upper()}," for word in original][:-1],  # 25 of 26
        "middle word": [*original[:15], "x", *original[16:]],  # 21 of 31
        "backwards": original[::-1],  # none
    }
    documents = rows([" ".join(words) for words in (original, *changes.values())])
    documents[0]["source"] = "first"
    _, clusters, drops = find(tmp_path, documents, sources=("first",))
    found = [clusters[row["id"]]["jaccard"] for row in documents[:4]]
    assert found == pytest.approx([1, 25 / 27, 24 / 26, 25 / 26])
    assert {row["id"] for row in drops} == {row["id"] for row in documents[1:4]} and len(clusters) == 4
    assert {row["representative"] for row in drops} == {documents[0]["id"]}


def test_without_verification_all_candidates_count_as_duplicates(tmp_path):
    documents = rows(planted())
    report, clusters, _ = find(tmp_path, documents, threshold=0.8, verify=False)
    found, verified = clusters_found(clusters), true_clusters(documents, 0.8)
    assert sum(map(len, found)) > sum(map(len, verified)) and all(
        any(one <= other for other in found) for one in verified
    )
    assert {row["jaccard"] for row in clusters.values()} == {None} and "near_pairs" not in report


def test_results_do_not_depend_on_order_shards_memory_or_processes(tmp_path, monkeypatch):
    documents = rows(planted(1))
    some = rows(planted(2, families=5, alone=5), "books")

    def digest(name, documents, sizes, **options):
        find(tmp_path / name, documents, sizes, **options)
        files = [tmp_path / name / f"{table}.parquet" for table in ("clusters", "drops")]
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]

    expected = digest("one", documents + some, [])
    tables = [
        pyarrow.parquet.read_table(tmp_path / f"one/{name}.parquet").to_pylist() for name in ("clusters", "drops")
    ]
    content = hashlib.sha256(json.dumps(tables).encode()).hexdigest()
    assert content.startswith("36f0ed33f16a1f59"), "that of the search which had all documents in memory"
    shuffled = [(documents + some)[i] for i in np.random.default_rng(0).permutation(len(documents + some))]
    assert digest("many", shuffled, [7, 50, 0, 3]) == expected
    monkeypatch.setattr(find_module, "FEW", 0)
    with ProcessPoolExecutor(2) as executor:
        assert digest("processes", some + documents, [30, 30], parallel=executor.map) == expected
    monkeypatch.setattr(join, "ENTRY_BYTES", 100 << 20)  # as if every join had to be spilled
    assert digest("spilled", shuffled, [20]) == expected


def test_scope_and_order_of_sources_decide_which_copy_is_kept(tmp_path):
    web, books = rows(["a b c d e f g", "alone in the web it stands"], "web"), rows(["A b c d, e f g"] * 2, "books")
    _, clusters, drops = find(tmp_path / "1", web + books, scope="source")
    assert {row["source"] for row in web + books if row["id"] in clusters} == {"books"} and len(drops) == 1
    for number, sources in enumerate([(), ("web",), ("web", "books"), ("papers", "web")]):
        _, clusters, drops = find(tmp_path / f"2{number}", web + books, sources=sources)
        expected = web[0]["id"] if sources else min(row["id"] for row in books)
        assert {row["representative"] for row in clusters.values()} == {expected} and len(drops) == 2


def test_short_documents_have_only_exact_copies(tmp_path):
    documents = rows(["a b c d", "a  b c\nd", "a b c e", "漢字", "漢 字", "", " ", "a b c d."])
    report, clusters, _ = find(tmp_path, documents)
    ids = [row["id"] for row in documents]
    assert clusters_found(clusters) == {frozenset(ids[0:2]), frozenset(ids[3:5]), frozenset(ids[5:7])}
    assert {row["kind"] for row in clusters.values()} == {"kept", "exact"} and report["candidate_pairs"] == 0


def kept_ids(documents, drops):
    return {row["id"] for row in documents} - {row["id"] for row in drops}


def test_daily_searches_keep_what_one_search_keeps(tmp_path):
    """Each day's drops are those of one search over all days in which the days are sources in order."""
    documents = rows(planted(3, families=40))
    days = [[dict(row, source=f"day {day}") for row in documents[day::3]] for day in range(3)]
    _, _, drops = find(tmp_path / "all", [row for day in days for row in day], sources=("day 0", "day 1", "day 2"))
    expected = kept_ids(documents, drops)
    shards, clusters, kept = [], [], set()
    for number, day in enumerate(days):
        folder = tmp_path / str(number)
        earlier = Earlier(shards, clusters) if number else None
        report, table, drops = find(folder, day, [20], earlier)
        assert report["documents"] == len(day) and set(table) <= {row["id"] for row in day}
        kept |= kept_ids(day, drops)
        shards = [
            *shards,
            *(SketchedShard(path, path.with_suffix(".npz")) for path in sorted(folder.glob("part*.parquet"))),
        ]
        clusters = [*clusters, folder / "clusters.parquet"]
    assert len(expected) < len(documents)
    # A later document may join two kept ones of earlier days into one cluster: what is kept stays kept.
    assert expected <= kept and len(kept - expected) <= 2


def test_a_kept_document_of_an_earlier_day_is_never_dropped(tmp_path):
    text = " ".join(f"word{number}" for number in range(60))
    old, new = rows([text], "z"), rows([f"{text} and more", text.replace(" ", ", ")], "a")
    _, first, _ = find(tmp_path / "old", old)
    assert not first
    yesterday = [SketchedShard(tmp_path / "old/part-00000.parquet", tmp_path / "old/part-00000.npz")]
    earlier = Earlier(yesterday, [tmp_path / "old/clusters.parquet"])
    _, clusters, drops = find(tmp_path / "new", new, earlier=earlier, sources=("a",))
    assert [row["representative"] for row in drops] == [old[0]["id"]] * 2
    assert {row["size"] for row in clusters.values()} == {3} and old[0]["id"] not in clusters
    # The same document again is dropped: the id in the table is that of the new one.
    report, _, drops = find(tmp_path / "again", old, earlier=earlier)
    assert [(row["id"], row["reason"]) for row in drops] == [(old[0]["id"], "exact duplicate")]
    assert report["repeated_ids"] == 0


def test_an_id_that_occurs_twice_is_not_dropped(tmp_path):
    one = rows(["a b c d e f g h"])
    report, clusters, drops = find(tmp_path, one + one, [1])
    assert (report["repeated_ids"], drops) == (1, []) and report["documents"] == 2
    assert [row["kind"] for row in clusters.values()] == ["kept"]


def test_sketches_are_a_pure_function_of_the_shard(tmp_path):
    documents = rows(["one two three four five six", "", "short", "é" * 50, "one two three four five sixty"])
    (path,) = write_shards(tmp_path, documents, [], row_group=2)
    report = write_sketches(path, tmp_path / "a.npz", SKETCH)
    assert report == {"documents": 5, "bytes": sum(len(row["text"].encode()) for row in documents), "too_short": 3}
    write_sketches(path, tmp_path / "b.npz", SKETCH)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    dropped = np.array([documents[0]["id"], 77], np.uint64)
    assert write_sketches(path, tmp_path / "c.npz", SKETCH, dropped)["documents"] == 4
    whole, less = Sketches(tmp_path / "a.npz"), Sketches(tmp_path / "c.npz")
    assert less["rows"].tolist() == [1, 2, 3, 4] and less.sketch == SKETCH
    for name, dtype in COLUMNS.items():
        assert less[name].tolist() == whole[name][1:].tolist() and less[name].dtype == dtype
    for band in (0, 17):
        assert less.keys(band).tolist() == whole.keys(band)[1:].tolist()


def test_without_bands_only_exact_copies_are_found(tmp_path):
    documents = rows(["a b c d e f g h", "a b c d e, f g h", "a b  c d e f g h"])
    shards = sketched(tmp_path, documents, sketch=Sketch(bands=0))
    report = find_duplicates(shards, tmp_path, Search())
    assert (report["exact_dropped"], report["near_dropped"], report["candidate_pairs"]) == (1, 0, 0)


def test_dropped_documents_are_not_searched(tmp_path):
    documents = rows(["a b c d e f", "a b c d e f"])
    dropped = np.array([documents[0]["id"]], np.uint64)
    shards = sketched(tmp_path, documents, dropped=dropped)
    assert find_duplicates(shards, tmp_path, Search())["clusters"] == 0


def test_an_empty_corpus_has_no_copies(tmp_path):
    report, clusters, drops = find(tmp_path, [])
    assert report["documents"] == 0 and not clusters and not drops


def test_sketches_with_different_options_are_refused(tmp_path):
    documents = rows(["a b c d e f"])
    shards = sketched(tmp_path / "a", documents) + sketched(
        tmp_path / "b", documents, sketch=dataclasses.replace(SKETCH, ngram=4)
    )
    with pytest.raises(ConfigError, match=r"ngram=5.*ngram=4.*sketch one of the corpora again"):
        find_duplicates(shards, tmp_path, Search())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Search(threshold=0), r"duplicates.threshold = 0: must be in \(0, 1\]"),
        (lambda: Search(scope="all"), "duplicates.scope = 'all': expected one of global, source"),
        (lambda: Search(memory_megabytes=0), "duplicates.memory_megabytes = 0: must be at least 1"),
        (lambda: Sketch(unit="line"), "duplicates.unit = 'line': expected one of word, character"),
        (lambda: Sketch(rows=0), "duplicates.rows = 0: must be at least 1"),
    ],
)
def test_invalid_options_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
