"""Rows of training batches are traced to their documents: tokens, text and origin."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from pipeline_running import Here, watch
from prepared_folders import write_prepared

from gptjax import config as configs
from gptjax import tokenizer
from gptjax.config import ConfigError
from gptjax.corpus.config import default, source, validate
from gptjax.corpus.pipeline import Pipeline
from gptjax.corpus.sources.listing import list_sources
from gptjax.corpus.tokens.trace import Tracer, show_row, whole_characters
from gptjax.data import open_dataset
from gptjax.data.traced import traced_row
from gptjax.settings import freeze
from gptjax.training.objectives import make_objective

WORDS = ["alpha", "beta", "naïve", "return", "字典", "𝄞", "of\n", "1984"]
LENGTH, BATCH = 32, 4


def prepare(folder, name, texts, tokens, **options):
    """A prepared folder of one source, in shards of a few documents."""
    lines = [json.dumps({"text": text, "url": f"https://{name}/{i}"}) + "\n" for i, text in enumerate(texts)]
    (folder / f"{name}.jsonl").write_text("".join(lines))
    made = default()
    made.sources = (
        source(name=name, kind="text", path=f"{folder}/{name}.jsonl", license=f"licence of {name}", language="en"),
    )
    made.tokenizer.update(name=tokens, vocab_size=0 if tokens not in ("bpe",) else 300)
    made.split.validation_fraction = options.get("validation_fraction", 0.1)
    made.split.by = options.get("by", "document")
    made.tokens.bos = options.get("bos", False)
    validate(made)
    Pipeline(made, list_sources(made.sources, 2000), folder / name, Here(), watch).prepare({})
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """books: BPE with byte fallback; web: the same tokens, with tails held out; marked: with BOS."""
    folder = tmp_path_factory.mktemp("traced")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(2, 80))) for _ in range(80)]
    books = prepare(folder, "books", [*texts[:40], "é" * 300], "bpe")
    prepare(folder, "web", texts[40:], str(books), by="tail")
    prepare(folder, "marked", texts[40:], str(books), by="tail", bos=True)
    return folder


def dataset(folder, windows, path=None):
    data = configs.default().data
    data.update(path=path or f"{folder}/books=0.7,{folder}/web=0.3", sequence_length=LENGTH, windows=windows)
    return open_dataset(data, "train", seed=3, batch_size=BATCH)


@pytest.mark.parametrize("alone", ["", "marked"])
@pytest.mark.parametrize("windows", ["contiguous", "packed"])
def test_encoding_the_documents_of_a_row_gives_its_tokens(folder, windows, alone):
    found = dataset(folder, windows, alone and str(folder / alone))
    tracers = {name: Tracer(folder / name) for name in ("books", "web", "marked")}
    tokens = tokenizer.load(folder / "books")
    rng, seen = np.random.default_rng(1), set()
    for step, row in zip(rng.integers(0, 10**6, 60).tolist(), rng.integers(0, BATCH, 60).tolist()):
        batch = {name: values[0] for name, values in found.batch(step, np.array([row])).items()}
        origin, spans = found.spans(step, row)
        covered = np.zeros(LENGTH, bool)
        for position, start, targets in spans.tolist():
            parts = list(tracers[origin.folder.name].parts(start, start + targets))
            ids = np.concatenate([part.ids for part in parts])
            here = slice(position, position + targets)
            np.testing.assert_array_equal(ids[:-1], batch["tokens"][here][1:])
            np.testing.assert_array_equal(ids, batch["targets"][here])
            is_bos = (ids == tokens.bos_id) & (alone == "marked")
            assert not covered[here].any() and (batch["weights"][here] == ~is_bos).all()
            covered[here] = True
            for part in parts:
                seen.add(part.source)
                path, _, number = part.where.rpartition(", row ")
                document = pq.read_table(path).slice(int(number), 1).to_pylist()[0]
                text = part.before + part.text + part.after
                whole = document["text"] == text
                assert whole if part.source == "books" else document["text"].startswith(text)
                before = [tokens.bos_id] if part.source == "marked" else []
                again = [*before, *tokens.encode(text), tokens.eos_id]
                assert again == part.document.tolist()
                assert again[part.first : part.first + len(part.ids)] == part.ids.tolist()
                assert part.id == document["id"] and part.license == f"licence of {part.source}"
                assert part.uri == document["uri"] and part.language == "en"
                assert tokens.decode(part.ids).strip("\N{REPLACEMENT CHARACTER}") in part.text
        assert covered[batch["weights"] == 1].all(), "every position with a target belongs to a document"
    assert seen == ({alone} if alone else {"books", "web"})


@pytest.mark.parametrize("start, stop, middle", [(0, 1, "é"), (1, 3, "é字"), (2, 9, "字𝄞"), (3, 4, "字"), (9, 9, "")])
def test_shown_text_cuts_no_character(start, stop, middle):
    found = whole_characters("é字𝄞".encode(), start, stop)
    assert found[1] == middle and "".join(found) == "é字𝄞"


def test_without_the_stages_folders_the_trace_names_what_is_unknown(folder, tmp_path):
    copy = tmp_path / "books"
    shutil.copytree(folder / "books", copy)
    shutil.rmtree(copy / "work")
    (kept,), (part,) = (list(Tracer(path).parts(7, 8)) for path in (folder / "books", copy))
    assert (part.text, part.id, part.source, part.license) == (kept.text, kept.id, "books", "licence of books")
    assert part.uri is None and "is gone, so its address and own licence are not known" in part.where
    other = next(path for path in (folder / "web" / "work").glob("extract-*/*.parquet"))
    name = json.loads((copy / "manifest.json").read_text())["parts"][0]["name"]
    (copy / "work" / name).parent.mkdir(parents=True)
    shutil.copy(other, copy / "work" / name)
    assert "has changed since" in next(Tracer(copy).parts(7, 8)).where


def test_a_folder_without_origins_is_refused(tmp_path):
    write_prepared(tmp_path / "data", train=[[80, 2], [2], [81, 82, 2]])
    parts = list(Tracer(tmp_path / "data").parts(1, 5))
    assert [part.ids.tolist() for part in parts] == [[2], [2], [81, 82]]
    assert parts[2].id is None and "does not say" in parts[2].where


@pytest.fixture
def run(folder):
    """The config of a run."""
    made = configs.default()
    made.data.update(path=f"{folder}/books=0.7,{folder}/web=0.3", sequence_length=LENGTH)
    made.training.update(duration="10 steps", batch_size=BATCH)
    made.seed = 3
    return freeze(made)


def opened(run):
    return make_objective(run).open_data("train", run.training.batch_size)


def test_steps_are_counted_as_in_metrics(folder, run, capsys):
    from gptjax.display.terminal import Console

    show_row(Console(width=1000), traced_row(run, opened(run), None, 7, 2), whole=True)
    said = capsys.readouterr().out
    found = dataset(folder, "contiguous")
    origin, ((_, start, targets),) = found.spans(6, 2)
    for part in Tracer(origin.folder).parts(start, start + targets):
        for known in (f"id        {part.id}", part.uri, part.license, part.where, f"⟦{part.text}⟧{part.after}"):
            assert known in said
    assert said.startswith("step 7 of 10, row 2 of 4: 32 positions, from ") and "positions 0 to " in said


@pytest.mark.parametrize(
    "step, row, message",
    [
        (0, 0, "--step=0: the run has steps 1 to 10"),
        (11, 0, "--step=11: the run has steps 1 to 10"),
        (1, 4, "--row=4: a batch has rows 0 to 3"),
        (1, -1, "--row=-1: a batch has rows 0 to 3"),
    ],
)
def test_missing_steps_and_rows_are_refused(run, step, row, message):
    with pytest.raises(ConfigError, match=message):
        traced_row(run, opened(run), None, step, row)


def test_data_other_than_the_training_data_are_refused(run):
    saved = json.loads(json.dumps(dataset(None, "contiguous", run.data.path).fingerprint()))
    traced_row(run, opened(run), saved, 1, 0)
    saved["sources"][0]["tokens"] += 1
    with pytest.raises(ConfigError, match=r"is not what the run was trained on\. What differs:\n  sources"):
        traced_row(run, opened(run), saved, 1, 0)
