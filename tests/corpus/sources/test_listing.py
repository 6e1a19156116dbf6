import pytest

from gptjax.config import ConfigError, RunError
from gptjax.corpus.config import _validate_sources, source
from gptjax.corpus.sources.listing import FEW, FailureLimit, list_sources


@pytest.fixture
def sources(tmp_path):
    for name, sizes in {"a": [30, 30, 50, 10, 200, 5], "b": [10]}.items():
        (tmp_path / name).mkdir()
        for i, size in enumerate(sizes):
            (tmp_path / name / f"{i}.txt").write_text("x" * size)
    return (
        source(name="first", kind="text", path=f"{tmp_path}/a", license="CC0"),
        source(name="second", kind="text", path=f"{tmp_path}/b", separator="|"),
    )


def test_tasks_join_pieces_of_one_source_up_to_a_shards_size(sources):
    listing = list_sources(sources, 100)
    names = [[piece["uri"][-5:] for piece in task["pieces"]] for task in listing.tasks]
    assert names == [["0.txt", "1.txt"], ["2.txt", "3.txt"], ["4.txt"], ["5.txt"], ["0.txt"]]
    assert listing.sizes == [60, 60, 200, 5, 10]
    assert [one.name for one in listing.sources] == ["first"] * 4 + ["second"]
    assert listing.pieces == {"first": 6, "second": 1} and listing.bytes == {"first": 325, "second": 10}
    first, last = listing.tasks[0]["source"], listing.tasks[-1]["source"]
    assert first["license"] == "CC0" and first["options"]["separator"] == "" and last["options"]["separator"] == "|"


def test_a_missing_or_empty_source_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in (("empty", " = .*: no file that a 'text' source"), ("none", ": '.*none': no such file")):
        with pytest.raises(ConfigError, match=rf"^web\.path{message}"):
            list_sources([source(name="web", kind="text", path=str(tmp_path / path))], 100)


def report(documents, **skipped):
    return {"documents": documents, "skipped": {reason.replace("_", ": "): count for reason, count in skipped.items()}}


def test_a_source_that_is_mostly_unreadable_stops_the_run(sources):
    limit = FailureLimit(list_sources(sources, 100), 0.5)
    limit.count(0, report(10, unreadable_gzip=9, empty=1000))
    limit.count(4, report(0, unreadable_gzip=FEW - 1))  # too few to judge
    limit.count(1, report(10, unreadable_gzip=9))
    with pytest.raises(RunError, match=r"second: 99 of 99 documents failed, more than max_failure_share = 0.5: unread"):
        limit.check()
    with pytest.raises(RunError, match=rf"second: {FEW} of {FEW} documents"):
        limit.count(4, report(0, unreadable_json=1))


def test_a_few_failures_of_a_small_source_do_not_end_a_run_and_a_source_has_its_own_limit(sources):
    limit = FailureLimit(list_sources(sources, 100), 0.5, least=20)
    limit.count(4, report(0, unreadable_gzip=19))
    limit.check()
    limit.count(4, report(0, unreadable_gzip=1))
    with pytest.raises(RunError, match="second: 20 of 20"):
        limit.check()
    with pytest.raises(ConfigError, match=r"max_failure_share = 2\.0: must be in"):
        _validate_sources([source(name="a", kind="text", path="x", max_failure_share=2.0)])
    strict = [source(name="a", kind="text", path=sources[0].path, max_failure_share=0.01)]
    limit = FailureLimit(list_sources(strict, 100), 0.5)
    limit.count(0, report(90, unreadable_gzip=2))
    with pytest.raises(RunError, match=r"a: 2 of 92 .* max_failure_share = 0.01"):
        limit.check()


def test_documents_left_out_on_purpose_do_not_count_as_failures(sources):
    limit = FailureLimit(list_sources(sources, 100), 0.0)
    limit.count(0, report(1, generated=10**6, kept_replaced=7))
    limit.check()
