"""A document that ends its process is left out and named; all others stay, however often and wherever the work runs."""

import json
import multiprocessing

import pyarrow.parquet as pq
import pytest
from crashing import Poisoned, behave
from pipeline_running import text, watch

from gptjax.config import RunError
from gptjax.corpus.config import default, score, source, stage, validate
from gptjax.corpus.engine import Stage, local, run_stage
from gptjax.corpus.engine.journal import FILE, TIME_LIMIT, Journal, read_place
from gptjax.corpus.engine.local import LocalProcesses
from gptjax.corpus.engine.run import NO_MEMORY
from gptjax.corpus.pipeline import Pipeline
from gptjax.corpus.sources.listing import list_sources
from gptjax.data.prepared import read_manifest

REASONS = {"exit": "exit status 3", "segfault": "SIGSEGV", "memory": "memory ran out", "loop": "no end in sight"}


def walk(task, folder):
    """Writes the documents in the inputs, and behaves as they say."""
    lines = []
    for number, line in enumerate(task.inputs):
        if task.journal.begin(f"document {number}"):
            behave(line, "here")
            lines.append(line)
    task.journal.end()
    (folder / "lines").write_text(" ".join(lines))
    return {"out": task.journal.set_aside}


@pytest.fixture(scope="module", autouse=True)
def quick_starts():
    """Workers start from a process that has imported what they need; the rest is as always."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gptjax.corpus.pipeline", "crashing"])
    before, local.SPAWN = local.SPAWN, context
    yield
    local.SPAWN = before


def written(folder, poison):
    """Two files of 40 documents; poison: number of a document → what it says."""
    folder.mkdir()
    texts = [text(seed) + poison.get(seed, "") for seed in range(80)]
    for name, some in (("a", texts[:40]), ("b", texts[40:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in some))
    return folder


def config_of(folder, **fields):
    made = default()
    made.sources = (source(name="all", kind="text", path=str(folder), recipe="text"),)
    made.cleaning.recipes.text = ("crashing:judge",)
    made.stages = (stage(name="own", function="crashing:own"),)
    made.scores = (score(name="length", function="crashing:lengths", weight=False),)
    made.tokenizer.name = "byte"
    made.split.validation_fraction = 0.2
    made.documents = True
    for name, value in fields.items():
        made[name] = value
    validate(made)
    return made


def prepare(config, output, workers=2):
    with Poisoned(workers) as executor:
        return Pipeline(config, list_sources(config.sources, 10_000), output, executor, watch).prepare({})


def uris_left(folder):
    tables = [pq.read_table(path).to_pylist() for path in sorted(folder.glob("documents-*.parquet"))]
    return {row["uri"].rpartition("/")[2] for table in tables for row in table if not row["reason"]}


EVERYWHERE = {  # number of a document → (stage, way)
    3: ("extract", "exit"),
    8: ("clean", "segfault"),
    13: ("rule", "exit"),
    21: ("own", "memory"),
    45: ("score", "segfault"),
    51: ("sketch", "exit"),
    63: ("survey", "segfault"),
    70: ("encode", "memory"),
}


def place(number):
    return f"{'ab'[number // 40]}.jsonl:{number % 40 + 1}"


@pytest.mark.exhaustive
def test_documents_that_end_the_process_in_any_stage_are_left_out_and_named(tmp_path):
    poison = {number: f"POISON {where} {way}" for number, (where, way) in EVERYWHERE.items()}
    folder = written(tmp_path / "texts", poison)
    manifest = prepare(config_of(folder), tmp_path / "data")
    named = {one["document"].rpartition("/")[2]: (one["stage"], one["reason"]) for one in manifest["set_aside"]}
    stages = {number: {"rule": "select"}.get(where, where) for number, (where, _) in EVERYWHERE.items()}
    assert {at: stage for at, (stage, _) in named.items()} == {place(n): stage for n, stage in stages.items()}
    for number, (_, way) in EVERYWHERE.items():
        assert REASONS[way] in named[place(number)][1]
    left = {place(number) for number in range(80) if number not in EVERYWHERE}
    assert uris_left(tmp_path / "data") == left | {place(63), place(70)}  # columns are joined before these two stages
    (of,) = manifest["sources"]
    assert of["extracted"]["documents"] == 79
    ended = sum(counts["documents"] for reason, counts in of["dropped"].items() if "process ended" in reason)
    assert ended == 7 and sum(split["documents"] for split in of["splits"].values()) == 72
    assert sum(documents for documents, _ in of["lengths"].values()) == 72
    assert sum(split["documents"] for split in manifest["splits"].values()) == 72
    assert manifest["skipped"] == {"unreadable: its process ended: exit status 3": 1}
    card = (tmp_path / "data/card.md").read_text()
    assert all(f"{place(number)} |" in card for number in EVERYWHERE)


def test_a_task_goes_on_without_the_documents_at_which_its_process_ends(tmp_path):
    inputs = [["a", "POISON here exit", "b", "POISON here segfault"], ["c"]]
    stage = Stage("walk", walk)
    with LocalProcesses(2) as processes:
        results = run_stage(stage, inputs, tmp_path, processes)
    outs = [result["report"]["out"] for result in results]
    assert outs == [{"document 1": "exit status 3", "document 3": "SIGSEGV"}, {}]
    assert [(tmp_path / result["files"]["lines"]["name"]).read_text() for result in results] == ["a b", "c"]
    assert {path.name for path in tmp_path.glob("*/*")} == {
        f"part-0000{number}.{what}" for number in range(2) for what in ("json", "lines")
    }


def test_a_document_that_takes_too_long_ends_the_process_and_memory_that_runs_out_does_not(tmp_path):
    inputs = [["a", "POISON here loop", "POISON here memory", "b"]]
    with LocalProcesses(1) as processes:
        (result,) = run_stage(Stage("walk", walk), inputs, tmp_path, processes, seconds=0.5)
    assert result["report"]["out"] == {"document 1": TIME_LIMIT, "document 2": NO_MEMORY}


def test_a_journal_names_the_last_place_that_was_begun_also_after_a_longer_one(tmp_path):
    journal = Journal(tmp_path / FILE, {"b ": ["x"], "c": ["x", "x", "y"]})
    for place in ("a longer place", "b ", "é\ud800\n"):
        assert journal.begin(place) and read_place(tmp_path / FILE) == place
    assert not journal.begin("c") and journal.set_aside == {"c": "y"} and journal.has_ended("b ")
    journal.end()
    assert read_place(tmp_path / FILE) == "" == read_place(tmp_path / "none")


class Interrupted(Poisoned):
    """Workers of a driver that is stopped at the first failure whose number is `at`."""

    def __init__(self, workers, at):
        super().__init__(workers)
        self.left = at

    def run(self, function, items):
        for index, outcome in super().run(function, items):
            yield index, outcome
            self.left -= not isinstance(outcome, dict)
            if not self.left:
                raise KeyboardInterrupt


def outcome(folder):
    """What readers of a prepared folder see."""
    manifest = read_manifest(folder)
    return {name: manifest[name] for name in ("splits", "set_aside", "sources", "skipped", "copies")}


@pytest.mark.exhaustive
def test_the_result_is_the_same_with_one_or_four_workers_and_after_interruptions(tmp_path):
    poison = {number: f"POISON {where} exit" for number, where in ((3, "extract"), (21, "own"), (51, "sketch"))}
    config = config_of(written(tmp_path / "texts", {**poison, 70: "POISON encode segfault"}))
    prepare(config, tmp_path / "four", workers=4)
    prepare(config, tmp_path / "one", workers=1)
    listing = list_sources(config.sources, 10_000)
    for at in (2, 2, 3):  # in three stages, before and after a document is set aside
        with pytest.raises(KeyboardInterrupt), Interrupted(2, at) as executor:
            Pipeline(config, listing, tmp_path / "resumed", executor, watch).prepare({})
    prepare(config, tmp_path / "resumed")
    first = outcome(tmp_path / "four")
    assert len(first["set_aside"]) == 4
    assert first == outcome(tmp_path / "one") == outcome(tmp_path / "resumed")


@pytest.mark.exhaustive
def test_a_source_of_which_too_much_ends_the_process_ends_the_run(tmp_path):
    poison = dict.fromkeys((3, 4, 5), "POISON own exit")
    config = config_of(written(tmp_path / "texts", poison), max_failure_share=0.03, least_failures=3)
    problem = r"all: 3 of 80 documents failed, .* 0.03: its process ended: exit status 3 \(3\)"
    with pytest.raises(RunError, match=problem):
        prepare(config, tmp_path / "data")
