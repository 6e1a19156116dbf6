"""The whole pipeline in this process, on a corpus of more than a hundred documents with copies of every kind."""

import itertools
import json
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece
import xxhash
from pipeline_running import Here, config, prepare, text, watch, write
from rich.console import Console

from gptjax import tokenizer
from gptjax.config import ConfigError
from gptjax.corpus.cleaning import config as cleaning
from gptjax.corpus.config import default, source
from gptjax.corpus.documents import document_id
from gptjax.corpus.pipeline import Pipeline
from gptjax.corpus.report.terminal import summary
from gptjax.corpus.stages.splits import CUT, draws
from gptjax.data.prepared import check_files, split_files
from gptjax.data.tokens import TokenSource

LONG = "\n\n".join(text(i) for i in range(200, 220))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """books: 60 documents, five of them twice; web: 60 others, ten copies, ten near duplicates, one long, one bad."""
    folder = tmp_path_factory.mktemp("sources")
    books = [text(i) for i in range(60)]
    write(folder / "books", [*books, *books[:5]])
    near = [one.replace("number", "no") for one in books[30:40]]
    web = [text(i) for i in range(100, 160)]
    write(folder / "web", [*web[:30], *books[20:30], *near, *web[30:], LONG])
    (folder / "web" / "z.jsonl").write_text("{broken\n")
    return folder


def documents(output, manifest, split):
    """(text without EOS, origin, ids) of each document of a split's stream."""
    found = TokenSource(output, split)
    stream = found.take_runs(np.array([0]), np.array([found.num_tokens]))
    offsets = found.document_offsets()
    tokens = tokenizer.load(output)
    origins = np.load(output / manifest["splits"][split]["origins"]["name"])
    ids = [stream[a:b] for a, b in itertools.pairwise(offsets)]
    assert len(origins) == len(ids) and all(each[-1] == tokens.eos_id for each in ids)
    return [(tokens.decode(each), origin, each) for each, origin in zip(ids, origins)]


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared")
    return output, prepare(config(folder), output)


def test_copies_are_dropped_and_everything_else_is_kept(folder, prepared):
    output, manifest = prepared
    found = Counter(text for split in ("train", "validation") for text, *_ in documents(output, manifest, split))
    assert found.most_common(1)[0][1] == 1, "no document occurs twice"
    singles = {text(i) for i in [*range(60), *range(100, 160)]}
    assert singles < found.keys()
    assert "".join(sorted(found.keys() - singles, key=LONG.find)) == LONG
    check_files(output, [file for split in manifest["splits"] for file in split_files(manifest, split)], verify=True)


def test_the_funnel_adds_up(prepared):
    _, manifest = prepared
    books, web = manifest["sources"]
    assert web["skipped"] == manifest["skipped"] == {"unreadable: broken JSON line": 1}
    assert books["extracted"]["documents"] == 65 and books["dropped"]["exact duplicate"]["documents"] == 5
    assert web["dropped"]["exact duplicate"]["documents"] == 10
    assert web["dropped"]["near duplicate"]["documents"] == 10
    for found in (books, web):
        for count in ("documents", "bytes"):
            left = sum(split[count] for split in found["splits"].values())
            assert left + sum(drop[count] for drop in found["dropped"].values()) == found["extracted"][count]
    for split, section in manifest["splits"].items():
        assert section["tokens"] == section["bytes"] + section["documents"]  # a token per byte, and EOS
        assert section["tokens"] == sum(of["tokens"] for of in section["sources"].values())
        assert section["documents"] == sum(found["splits"][split]["documents"] for found in (books, web))
    assert books["splits"]["train"]["bytes_per_token"] == pytest.approx(1, abs=0.01) and books["license"] == "CC0"


def test_every_document_of_the_stream_can_be_traced(prepared):
    output, manifest = prepared
    for split in ("train", "validation"):
        for read, origin, _ in documents(output, manifest, split):
            part = manifest["parts"][origin["part"]]
            row = pq.read_table(output / "work" / part["name"]).slice(int(origin["row"]), 1).to_pylist()[0]
            assert row["text"] == read and row["id"] == origin["id"] and row["source"] == part["source"]
            assert row["id"] == document_id(row["source"], row["uri"], read)


def test_the_stream_does_not_depend_on_the_size_of_shards(folder, prepared, tmp_path):
    output, _ = prepared
    prepare(config(folder), tmp_path, shard_bytes=3000)
    assert len(list(tmp_path.glob("work/encode-*/*.json"))) > 10
    for name in ("train-00000.bin", "train.documents.npy", "validation-00000.bin", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (output / name).read_bytes()


def test_copies_that_are_not_dropped_are_in_the_same_split(folder, tmp_path):
    manifest = prepare(config(folder, duplicates__scope="source", split__validation_fraction=0.5), tmp_path)
    assert manifest["sources"][1]["dropped"] == {}
    sides = {
        s: {one.replace(" no ", " number ") for one, *_ in documents(tmp_path, manifest, s)} for s in manifest["splits"]
    }
    assert not sides["train"] & sides["validation"]
    assert {text(i) for i in range(20, 40)} <= sides["train"] | sides["validation"]


def test_without_a_search_exact_copies_are_in_the_same_split(folder, tmp_path):
    manifest = prepare(config(folder, duplicates__kind="none", split__validation_fraction=0.5), tmp_path)
    sides = [[text for text, *_ in documents(tmp_path, manifest, split)] for split in ("train", "validation")]
    assert not set(sides[0]) & set(sides[1])
    assert Counter(sides[0] + sides[1])[text(20)] == 2 and not list(tmp_path.glob("work/sketch-*"))


def test_with_kind_exact_only_exact_copies_are_dropped(folder, tmp_path):
    manifest = prepare(config(folder, duplicates__kind="exact"), tmp_path)
    assert set(manifest["sources"][1]["dropped"]) == {"exact duplicate"}


@pytest.mark.parametrize("weight, least, most", [(2.5, 2, 3), (0.5, 0, 1), (0.0, 0, 0)])
def test_a_weight_repeats_or_thins_a_source_only_in_training(folder, prepared, tmp_path, weight, least, most):
    manifest = prepare(config(folder, weight=weight), tmp_path)
    once = Counter(text for text, *_ in documents(*prepared, "train"))
    times = Counter(text for text, *_ in documents(tmp_path, manifest, "train"))
    books = [text(i) for i in range(60) if once[text(i)]]
    counts = [times[one] for one in books]
    assert min(counts) == least and max(counts) == most
    assert abs(sum(counts) / len(books) - weight) < 0.2
    assert all(times[one] == 1 for one in once if one not in books), "other sources do not change"
    held_out = Counter(text for text, *_ in documents(tmp_path, manifest, "validation"))
    assert max(held_out.values()) == 1
    assert manifest["splits"]["train"]["sources"]["books"]["documents"] == sum(counts)


def test_another_config_repeats_only_the_stages_that_it_changes(folder, tmp_path):
    def state():
        return {str(path.relative_to(tmp_path)): path.stat().st_ino for path in tmp_path.glob("work/*/*")}

    prepare(config(folder), tmp_path)
    before = state()
    prepare(config(folder), tmp_path)
    assert state() == before
    prepare(config(folder, tokens__bos=True), tmp_path)
    after = state()
    assert {name.split("/")[1].split("-")[0] for name in after.keys() - before.keys()} == {"encode"}
    assert all(after[name] == inode for name, inode in before.items())


def test_documents_may_begin_with_a_begin_token(folder, tmp_path):
    manifest = prepare(config(folder, tokens__bos=True), tmp_path)
    bos = tokenizer.load(tmp_path).bos_id
    assert all(ids[0] == bos and bos not in ids[1:] for *_, ids in documents(tmp_path, manifest, "train"))


@pytest.mark.parametrize("name", ["bpe", "unigram", "char"])
def test_a_vocabulary_is_learned_only_from_the_training_split(folder, tmp_path, name):
    fields = {"tokenizer__name": name, "tokenizer__vocab_size": 0 if name == "char" else 296}
    manifest = prepare(config(folder, **fields), tmp_path)
    assert manifest["tokenizer"]["kind"] == name
    training = "".join(text for text, *_ in documents(tmp_path, manifest, "train"))
    if name == "char":
        assert manifest["tokenizer"]["vocab_size"] == 9 + len(set(training))
        return
    samples = sorted(tmp_path.glob("work/sample-*/*.parquet"))
    assert "".join(one for path in samples for one in pq.read_table(path)["text"].to_pylist()) == training
    fields["tokenizer__sample_megabytes"] = len(training) / 4e6
    (tmp_path / "part").mkdir()
    prepare(config(folder, **fields), tmp_path / "part")
    drawn = [
        one
        for path in (tmp_path / "part").glob("work/sample-*/*")
        if path.suffix == ".parquet"
        for one in pq.read_table(path)["text"].to_pylist()
    ]
    assert all(one in training for one in drawn) and 0.1 < sum(map(len, drawn)) / len(training) < 0.45


def test_a_tokenizer_is_reused(folder, tmp_path):
    for name, fields in {"bpe": {"tokenizer__name": "bpe", "tokenizer__vocab_size": 300}, "byte": {}}.items():
        (tmp_path / name).mkdir()
        prepare(config(folder, **fields), tmp_path / name)
    reused = {"tokenizer__name": str(tmp_path / "bpe"), "tokenizer__compare": (str(tmp_path / "byte"),)}
    (tmp_path / "again").mkdir()
    manifest = prepare(config(folder, **reused), tmp_path / "again")
    assert (tmp_path / "again" / "train-00000.bin").read_bytes() == (tmp_path / "bpe" / "train-00000.bin").read_bytes()
    for found in manifest["sources"]:
        assert found["compared"] == {str(tmp_path / "byte"): pytest.approx(1, abs=0.01)}
        assert found["splits"]["validation"]["bytes_per_token"] > 1.05
    with pytest.raises(ConfigError, match=r"vocab_size = 7: the tokenizer .* has 300 tokens"):
        Pipeline(config(folder, **reused, tokenizer__vocab_size=7), None, tmp_path, Here(), watch)


@pytest.mark.parametrize(
    "fraction, message",
    [
        (1e-9, "the validation split would be empty: 12[0-9] documents in all; split.by = 'tail'"),
        (1 - 1e-9, "the train"),
    ],
)
def test_an_empty_split_is_refused_early(folder, tmp_path, fraction, message):
    with pytest.raises(ConfigError, match=message):
        prepare(config(folder, split__validation_fraction=fraction, split__by="document"), tmp_path)
    assert not list(tmp_path.glob("work/tokenizer-*"))


@pytest.mark.parametrize("count, by", [(1, "tail"), (3, "tail"), (400, "document")])
def test_a_corpus_of_few_documents_is_split_by_tails_by_default(tmp_path, count, by):
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": f"{i} " * 300}) + "\n" for i in range(count)))

    def prepared(**fields):
        made = config(tmp_path, **fields)
        made.sources = (source(name="texts", kind="text", path=str(tmp_path / "texts.jsonl")),)
        (tmp_path / "out").mkdir(exist_ok=True)
        return prepare(made, tmp_path / "out")

    manifest = prepared()
    assert manifest["stages"]["survey"]["options"]["split"]["by"] == by
    documents = {split: section["documents"] for split, section in manifest["splits"].items()}
    if by == "tail":
        assert documents == {"train": count, "validation": count}
        if count == 1:
            with pytest.raises(ConfigError, match="the validation split would be empty: 1 document in all"):
                prepared(split__by="document")
    else:
        assert sum(documents.values()) == count and documents["validation"]


@pytest.mark.parametrize("name, reason", [("a.txt", "empty or blank: 1"), ("a.jsonl", ""), ("a.parquet", "")])
def test_a_corpus_without_documents_is_refused_with_the_reason(tmp_path, name, reason):
    if name == "a.parquet":
        pq.write_table(pa.table({"body": ["x", "y"], "title": ["a", "b"]}), tmp_path / name)
    else:
        (tmp_path / name).write_text('{"body": "x", "title": "a"}\n' * 2 if name == "a.jsonl" else "")
    reason = reason or f"no text in field 'text': 2, such as {tmp_path}/{name}:1, which has body, title"
    made = default()
    made.sources = (source(name="one", kind="text", path=f"{tmp_path}/{name}"),)
    with pytest.raises(ConfigError, match=re.escape(f"no document in 1 file ({reason})")):
        prepare(made, tmp_path / "out")


def test_unknown_characters_are_counted(folder, prepared, tmp_path):
    manifest = prepare(config(folder, tokenizer__name="char", tokenizer__vocab_size=20), tmp_path)
    known = set(json.loads((tmp_path / "tokenizer.json").read_text())["characters"])
    for split, section in manifest["splits"].items():
        texts = [text for text, *_ in documents(*prepared, split)]
        assert section["changed_documents"] == len(texts), (
            "each contains its number, whose digits are unknown characters"
        )
        assert section["unknown_tokens"] == sum(letter not in known for text in texts for letter in text) > 0


def test_text_that_a_given_tokenizer_changes_is_counted_and_reported_once(tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    kept = ["plain words", "and more", "  and again and more of it"]
    (tmp_path / "folder" / "a.jsonl").write_text(
        "".join(json.dumps({"text": one}) + "\n" for one in [*kept, "a ﬁne ½"])
    )
    made = default()
    made.sources = (source(name="one", kind="text", path=f"{tmp_path}/folder"),)
    made.cleaning.update(cleaning.off())
    made.split.validation_fraction = 0.0
    with open(tmp_path / "nfkc.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*kept, "fine 1/2"]),
            model_writer=file,
            model_type="bpe",
            vocab_size=290,
            normalization_rule_name="nfkc",
            remove_extra_whitespaces=False,
            byte_fallback=True,
            minloglevel=3,
        )
    made.tokenizer.name = str(tmp_path / "nfkc.model")
    manifest = prepare(made, tmp_path / "out")
    assert manifest["splits"]["train"]["changed_documents"] == 1 and not manifest["tokenizer"]["lossless"]
    assert manifest["tokenizer"]["change"] == ["a ﬁne ½", "a fine 1⁄2"]
    summary(Console(width=200), tmp_path / "out", manifest)
    told = "the tokenizer changes the text of 1 document, for example 'a ﬁne ½' to 'a fine 1⁄2'"
    assert capsys.readouterr().out.count(told) == 1
    assert told in (tmp_path / "out" / "card.md").read_text()


def test_held_out_text_is_from_every_source_in_proportion_and_from_no_document_much(tmp_path):
    giant = "".join(f"line {i} of the longest\n" for i in range(20_000))
    write(tmp_path / "books", [giant, *(text(i, words=400) for i in range(100))])
    write(tmp_path / "web", [text(1000 + i, words=60) for i in range(700)])
    key = np.array([xxhash.xxh3_64_intdigest(giant.encode())], np.uint64)
    seed = next(seed for seed in range(1000) if draws(key, seed) < 0.2)
    fields = dict(seed=seed, max_document_megabytes=1.0, duplicates__kind="none")
    (tmp_path / "out").mkdir()
    manifest = prepare(config(tmp_path, **fields), tmp_path / "out")
    sources = {source["name"]: source for source in manifest["sources"]}
    cut = sources["books"]["dropped"][CUT]
    assert cut["documents"] == 0 and len(giant) - 9000 < cut["bytes"] < len(giant)
    assert CUT not in sources["web"]["dropped"]
    for one in sources.values():
        of = {split: counts["bytes"] for split, counts in one["splits"].items()}
        assert 0.12 < of["validation"] / sum(of.values()) < 0.28
    held_out = [len(text) for text, *_ in documents(tmp_path / "out", manifest, "validation")]
    assert max(held_out) < 0.1 * sum(held_out)
    assert not any("of the longest" in text for text, *_ in documents(tmp_path / "out", manifest, "train"))
