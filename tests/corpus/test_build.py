from collections import Counter

import numpy as np
import pytest

from gptjax.config import ConfigError
from gptjax.corpus import build
from gptjax.corpus.readers import Reader
from gptjax.corpus.shards import Splitter
from gptjax.corpus.tokenizer import ByteTokenizer, CharacterTokenizer
from gptjax.corpus.tokenizer_training import TextSample

TEXTS = [f"document {i}\n" * (i % 7 + 1) for i in range(200)]


def ignore(documents, size):
    pass


@pytest.fixture
def reader(tmp_path):
    (tmp_path / "input").mkdir()
    for i, text in enumerate(TEXTS):
        (tmp_path / "input" / f"{i:03d}.txt").write_text(text)
    return Reader([str(tmp_path / "input")])


def test_the_survey_counts_everything_and_learns_from_training_text_alone(reader):
    splitter = Splitter(0.25, "document", seed=0)
    told = []
    found = build.Survey(sample=TextSample(10**6, 0), characters=Counter())
    build.survey(reader, splitter, found, lambda documents, size: told.append((documents, size)))
    assert found.documents.total() == 200 and found.documents["validation"] > 20
    assert found.bytes.total() == len("".join(TEXTS)) == sum(size for _, size in told)
    training = "".join(text for text in TEXTS if [split for split, _ in splitter(text)] == ["train"])
    assert "".join(found.sample) == training
    assert found.characters == Counter(training)


@pytest.mark.parametrize("split_by", ["document", "tail"])
def test_what_is_written_decodes_to_what_was_read(reader, tmp_path, split_by, monkeypatch):
    monkeypatch.setattr(build, "BATCH_DOCUMENTS", 7)
    tokenizer, splitter = ByteTokenizer(), Splitter(0.2, split_by, seed=0)
    folder = tmp_path / "output"
    folder.mkdir()
    told = []
    splits = build.encode(reader, splitter, tokenizer, folder, 1000, lambda *done: told.append(done))
    written = {}
    for split, section in splits.items():
        stream = np.concatenate([np.fromfile(folder / shard["name"], "<u2") for shard in section["shards"]])
        ends = np.load(folder / section["offsets"]["name"])
        documents = [stream[a:b] for a, b in zip(ends[:-1].astype(int), ends[1:].astype(int))]
        assert all(ids[-1] == tokenizer.eos_id for ids in documents)
        written[split] = [tokenizer.decode(ids) for ids in documents]
        assert section["bytes"] == sum(map(len, written[split])) and section["unknown_tokens"] == 0
    expected = [part for text in TEXTS for part in splitter(text)]
    for split in ("train", "validation"):
        assert written[split] == [text for where, text in expected if where == split]
    assert sum(documents for documents, _ in told) == len(expected)
    assert sum(size for _, size in told) == len("".join(TEXTS))


def test_unknown_characters_are_counted(reader, tmp_path):
    splits = build.encode(reader, Splitter(0, "document", 0), CharacterTokenizer("documen \n"), tmp_path, 10**6, ignore)
    unknown = sum(character not in "documen \n" for character in "".join(TEXTS))
    assert splits["train"]["unknown_tokens"] == unknown > 0


def test_an_empty_split_is_refused_with_a_way_out(reader):
    with pytest.raises(
        ConfigError, match=r"the validation split would be empty: 200 documents in all; --split_by=tail"
    ):
        build.survey(reader, Splitter(1e-9, "document", 0), build.Survey(), ignore)
    with pytest.raises(ConfigError, match="the train split would be empty: 200 documents"):
        build.survey(reader, Splitter(1 - 1e-9, "document", 0), build.Survey(), ignore)


def test_a_corpus_without_a_document_says_why(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ConfigError, match=r"no document in 1 files \(empty: 1\)"):
        build.survey(Reader([str(tmp_path)]), Splitter(0.1, "document", 0), build.Survey(), ignore)
