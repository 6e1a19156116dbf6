"""Lines that occur in many documents, in a whole pipeline: removed from all but the first, or only counted."""

import json

import numpy as np
import pytest
from pipeline_running import Here, watch

from gptjax import tokenizer
from gptjax.config import ConfigError
from gptjax.corpus.config import default, source, validate
from gptjax.corpus.pipeline import Pipeline
from gptjax.corpus.sources.listing import list_sources
from gptjax.data.tokens import TokenSource

NOTICE = "all of this is under the licence of those who wrote it"


def text(seed, words=60):
    return " ".join(np.random.default_rng(seed).choice([f"w{i}" for i in range(200)], words))


TEXTS = [*(f"{NOTICE.upper() if i == 3 else NOTICE}\n{text(i)}\n" for i in range(12)), f"{NOTICE}  \n", text(99)]


def prepare(folder, **passages):
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in TEXTS))
    made = default()
    made.sources = (source(name="a", kind="text", path=f"{folder}/a.jsonl"),)
    made.cleaning.update(repair=False, language=False)
    made.tokenizer.name = "byte"
    made.split.validation_fraction = 0.0
    made.passages.update({"kind": "line", "words": 5, **passages})
    validate(made)
    return Pipeline(made, list_sources(made.sources, 1500), folder / "out", Here(), watch).prepare({})


def stream(folder):
    found = TokenSource(folder / "out", "train")
    return tokenizer.load(folder / "out").decode(found.take_runs(np.array([0]), np.array([found.num_tokens])))


def test_later_copies_are_removed_from_the_stream(tmp_path):
    manifest = prepare(tmp_path, action="remove")
    said = stream(tmp_path)
    assert said.count(NOTICE) == 1 and said.count(NOTICE.upper()) == 1, "lines are equal apart from whitespace"
    assert all(text(i) in said for i in [*range(12), 99])
    (source_,) = manifest["sources"]
    assert source_["dropped"]["nothing but repeated passages"]["documents"] == 1
    assert source_["dropped"]["repeated passages"] == {"documents": 0, "bytes": 10 * len(NOTICE)}
    for count in ("documents", "bytes"):
        left = sum(split[count] for split in source_["splits"].values())
        assert left + sum(drop[count] for drop in source_["dropped"].values()) == source_["extracted"][count]
    found = manifest["passages"]
    assert (found["later_copies"], found["documents_with_copies"]) == (11, 11)
    assert found["characters"] == 11 * len(NOTICE) + len("  ")
    assert "every line of at least 5 words" in (tmp_path / "out" / "card.md").read_text()


def test_the_action_report_does_not_change_the_text(tmp_path):
    manifest = prepare(tmp_path)
    assert manifest["passages"]["later_copies"] == 11 and manifest["sources"][0]["dropped"] == {}
    assert stream(tmp_path) == "".join(TEXTS)


def test_invalid_fields_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"passages.kind = 'lines': expected one of none, window, paragraph, line"):
        prepare(tmp_path, kind="lines")
    with pytest.raises(ConfigError, match=r"passages.words = 0: must be at least 1"):
        prepare(tmp_path, words=0)
