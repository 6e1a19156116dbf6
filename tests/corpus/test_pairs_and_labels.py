"""Pairs, preferences and labelled texts, from raw files to a prepared folder."""

import gzip
import itertools
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_running import Here, prepare, watch
from rich.console import Console
from source_reading import documents as read_all

from gptjax import tokenizer
from gptjax.config import ConfigError
from gptjax.corpus.config import default, source, validate
from gptjax.corpus.forms import SEPARATOR
from gptjax.corpus.pipeline import Pipeline
from gptjax.corpus.report.terminal import summary
from gptjax.corpus.sources.listing import list_sources
from gptjax.data.prepared import check_files, read_manifest, split_files
from gptjax.data.tokens import TokenSource

WANTED = [("un", "one"), ("deux", "two"), ("trois", "three")]


def config(path, kind="pairs", options=(), **fields):
    made = default()
    made.sources = (source(name="mine", kind=kind, path=str(path), **dict(options)),)
    made.cleaning.update(repair=False, language=False)
    made.duplicates.kind = "exact" if kind == "pairs" else "none"
    made.tokenizer.name = "byte"
    made.split.validation_fraction = 0.2
    for field, value in fields.items():
        section, _, name = field.partition("__")
        made[section][name] = value
    validate(made)
    return made


def documents(folder, split, source_tokenizer=None):
    """The texts of a split's stream, in order."""
    found = TokenSource(folder, split)
    stream = found.take_runs(np.array([0]), np.array([found.num_tokens]))
    target = tokenizer.load(folder)
    in_turns = itertools.cycle([source_tokenizer or target, target])
    parts = [stream[a:b] for a, b in itertools.pairwise(found.document_offsets())]
    texts = []
    for ids, tokens in zip(parts, in_turns):
        assert ids[-1] == tokens.eos_id
        texts.append(tokens.decode(ids[:-1]))
    return texts


def pairs_of(folder, split, **more):
    texts = documents(folder, split, **more)
    return list(zip(texts[::2], texts[1::2]))


# --- Readers ----------------------------------------------------------------------------------------------------------


def tsv(folder):
    (folder / "a.tsv").write_text("".join(f'{fr}\t{en}\t"\n' for fr, en in WANTED))
    return folder / "a.tsv", {}


def usual_names(folder):
    (folder / "a.tsv").write_text("Target\tid\tsource\n" + "".join(f"{en}\t7\t{fr}\n" for fr, en in WANTED))
    return folder / "a.tsv", {}


def named_tsv(folder):
    (folder / "a.tsv").write_text("id\ten\tfr\n" + "".join(f"7\t{en}\t{fr}\n" for fr, en in WANTED))
    return folder / "a.tsv", {"source": "fr", "target": "en"}


def swapped_columns(folder):
    (folder / "a.txt.gz").write_bytes(gzip.compress("".join(f"{en}\t{fr}\n" for fr, en in WANTED).encode()))
    return folder / "a.txt.gz", {"swap": True}


def quoted_csv(folder):
    (folder / "a.csv").write_text("".join(f'"{fr}","{en}"\n' for fr, en in WANTED))
    return folder / "a.csv", {"source": "1", "target": "2"}


def moses(folder):
    (folder / "corpus.fr").write_text("".join(f"{fr}\n" for fr, _ in WANTED))
    (folder / "corpus.en.gz").write_bytes(gzip.compress("".join(f"{en}\r\n" for _, en in WANTED).encode()))
    return f"{folder}/corpus.fr+{folder}/corpus.en.gz", {}


def jsonl(folder):
    lines = [json.dumps({"translation": {"fr": fr, "en": en}}) + "\n" for fr, en in WANTED]
    (folder / "a.jsonl").write_text("".join(lines))
    return folder / "a.jsonl", {"source": "translation.fr", "target": "translation.en"}


def parquet(folder):
    table = pa.table({"source": [[fr] for fr, _ in WANTED], "target": [[en] for _, en in WANTED]})
    pq.write_table(table, folder / "a.parquet")
    return folder / "a.parquet", {}


def in_zip(folder):
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("about.md", "not\tread")
        archive.writestr("deep/a.txt", "".join(f"{fr}\t{en}\n" for fr, en in WANTED[:2]))
        archive.writestr("b.jsonl", json.dumps({"1": WANTED[2][0], "2": WANTED[2][1]}))
    return folder / "a.zip", {}


@pytest.mark.parametrize(
    "made",
    [tsv, usual_names, named_tsv, swapped_columns, quoted_csv, moses, jsonl, parquet, in_zip],
    ids=lambda made: made.__name__,
)
def test_every_file_layout_gives_the_same_pairs(tmp_path, made):
    path, options = made(tmp_path)
    found, skipped = read_all("pairs", path, **options)
    assert [tuple(one.text.split(SEPARATOR)) for one in found] == WANTED
    assert not skipped


LABELLED = [("One, or two?", "ham"), ('A "prize"\nto win', "spam"), ("Three", "ham")]
AS_JSON = [{"id": number, "label": label, "text": text} for number, (text, label) in enumerate(LABELLED)]
CSV = ['"One, or two?",ham,1\n', '"A ""prize""\nto win",spam,2\n', "Three,ham,3\n"]
LINES = [text.replace("\n", " ") + f"\t{label}\n" for text, label in LABELLED]
TABLES = {  # name of the file, content, options
    "the book's CSV": ("a.csv", "\N{ZERO WIDTH NO-BREAK SPACE}Text,Label,\n" + "".join(CSV), {}),
    "TSV, named": ("a.tsv", "text\tlabel\n" + "".join(LINES), {}),
    "TSV, other names": ("a.tsv", "v2\tv1\n" + "".join(LINES), {"text": "v2", "label": "v1"}),
    "TSV, no names": ("a.tsv", "".join(LINES), {"text": "1", "label": "2"}),
    "JSON lines": ("a.jsonl", "".join(json.dumps(row) + "\n" for row in AS_JSON), {}),
    "JSON": ("a.json", json.dumps(AS_JSON), {}),
    "Parquet": ("a.parquet", pa.Table.from_pylist(AS_JSON), {}),
}


@pytest.mark.parametrize("name, content, options", TABLES.values(), ids=TABLES)
def test_every_file_layout_gives_the_same_labelled_texts(tmp_path, name, content, options):
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    else:
        pq.write_table(content, tmp_path / name)
    found, skipped = read_all("labelled", tmp_path / name, **options)
    expected = [[text.replace("\n", " ") if name == "a.tsv" else text, label] for text, label in LABELLED]
    assert [one.text.split(SEPARATOR) for one in found] == expected and not skipped


def test_labels_may_be_numbers_and_booleans(tmp_path):
    rows = [{"text": "a", "label": 3}, {"text": "b", "label": True}, {"text": "c", "label": -1.5}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, _ = read_all("labelled", tmp_path / "a.jsonl")
    assert [one.text.split(SEPARATOR) for one in found] == [["a", "3"], ["b", "true"], ["c", "-1.5"]]


def test_skipped_rows_are_counted_with_the_places_of_the_first(tmp_path, capsys):
    rows = ["text,label", "good,a", ",b", "other,eggs", " ,a", "alone", "fine,b", ",", '"",a']
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    made = config(tmp_path / "a.csv", "labelled", split__validation_fraction=0, options={"labels": "a, b"})
    manifest = prepare(made, tmp_path / "out")
    assert manifest["skipped"] == {
        "a label that is not one of the given ones": 1,
        "an empty text or label": 4,
        "no column 'label'": 1,
    }
    places = {reason: [Path(place).name for place in some] for reason, some in manifest["skipped_at"].items()}
    assert places == {
        "a label that is not one of the given ones": ["a.csv:4"],
        "an empty text or label": ["a.csv:3", "a.csv:5", "a.csv:8"],
        "no column 'label'": ["a.csv:6"],
    }
    card = (tmp_path / "out" / "card.md").read_text()
    assert re.search(r"an empty text or label \| 4 \| .*a\.csv:3, .*a\.csv:5, .*a\.csv:8, … \|", card)
    assert sorted(documents(tmp_path / "out", "train")) == ["fine", "good"]
    assert manifest["texts_of_labels"] == {"train": {"a": 1, "b": 1}}
    summary(Console(width=200), tmp_path / "out", manifest)
    told = capsys.readouterr().out
    assert f"skipped 1: no column 'label' ({tmp_path}/a.csv:6)" in told
    assert "one text only has the label a, b; if that is the name of a column" in told


def test_labels_that_cannot_be_learned_are_refused(tmp_path):
    for rows, message in [
        ([("a", "one"), ("a", "two")], "all 2 texts have the label 'a': a classifier needs at least 2 labels"),
        ([(f"text {i}", "ham") for i in range(60)], "60 different labels of 60 texts: at most half as many; is it the"),
    ]:
        (tmp_path / "a.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
        with pytest.raises(ConfigError, match=message):
            prepare(config(tmp_path / "a.tsv", "labelled", split__validation_fraction=0), tmp_path / "out")
    (tmp_path / "train.tsv").write_text("a\tone\nb\ttwo\n")
    (tmp_path / "test.tsv").write_text("a\tthree\nc\tfour\n")
    given = (("train.tsv", ""), ("test.tsv", "test"))
    made = config(tmp_path / "train.tsv", "labelled", split__validation_fraction=0)
    made.sources = tuple(
        source(name=f"x_{split}", kind="labelled", path=str(tmp_path / file), given_split=split)
        for file, split in given
    )
    with pytest.raises(
        ConfigError, match=r"the test split has labels that no text of the training split has: 'c' \(1\)"
    ):
        prepare(made, tmp_path / "out")


def test_a_list_of_targets_is_several_references(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"source": ["One.", "Two."], "target": ["1 2", "12", "1 2"]}))
    (found,), _ = read_all("pairs", tmp_path / "a.jsonl", prefix="sum: ")
    assert found.text.split(SEPARATOR) == ["sum: One. Two.", "1 2", "12"]


def test_squads_questions_are_pairs(tmp_path):
    answers = [{"text": "blue", "answer_start": 3}, {"text": "light blue", "answer_start": 1}]
    paragraph = {"context": "It is blue.", "qas": [{"id": "1", "question": "Which?", "answers": answers}]}
    (tmp_path / "dev.json").write_text(json.dumps({"version": 1, "data": [{"title": "T", "paragraphs": [paragraph]}]}))
    (found,), _ = read_all("pairs", tmp_path / "dev.json")
    assert found.text.split(SEPARATOR) == ["It is blue.\nWhich?", "blue", "light blue"]
    (found,), _ = read_all("pairs", tmp_path / "dev.json", source="{title}: {question}", target="answers")
    assert found.text.split(SEPARATOR)[0] == "T: Which?"


def test_bad_rows_are_counted(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"a\tb\nalone\n \tempty\nempty\t\nnul\0\tx\nu\x1fs\ty\n")
    found, skipped = read_all("pairs", tmp_path / "a.tsv")
    assert [one.text.split(SEPARATOR) for one in found] == [["a", "b"], ["u s", "y"]]
    assert skipped == {
        "no column '2'": 1,
        "an empty side": 2,
        "unreadable: NUL bytes: not a text": 1,
        "kept: U+001F became a space": 1,
    }


def test_a_line_that_is_left_out_of_one_file_leaves_out_its_pair_alone(tmp_path):
    long = 100 * "x"
    (tmp_path / "a.fr").write_text(f"un\n{long}\ntrois\nquatre\ncinq\n")
    (tmp_path / "a.en").write_text(f"one\ntwo\nthree\n{long}\nfive\n")
    found, skipped = read_all("pairs", f"{tmp_path}/a.fr+{tmp_path}/a.en", max_line_bytes=50)
    assert [one.text.split(SEPARATOR) for one in found] == [["un", "one"], ["trois", "three"], ["cinq", "five"]]
    assert skipped == {"unreadable: record of more than 50 bytes": 2}


def test_invalid_pairs_are_refused_with_the_reason(tmp_path):
    (tmp_path / "a.fr").write_text("un\ndeux\n")
    (tmp_path / "a.en").write_text("one\n")
    path = f"{tmp_path}/a.fr+{tmp_path}/a.en"
    with pytest.raises(ConfigError, match=r"a\.fr has 2 lines and .*a\.en has 1: pairs need equally many"):
        prepare(config(path), tmp_path / "out")
    for options, fields, message in [
        ({"source": "{a"}, {}, "source = '{a'"),
        ({"source": "a"}, {}, "name the columns of both"),
        ({"references": "all"}, {}, "references = 'all'"),
        ({}, {"split__by": "tail"}, "split.by = 'tail'"),
        ({}, {"split__test_documents": 1}, "give numbers of documents for both"),
        ({}, {"tokenizer__source_vocab_size": 300}, "needs tokenizer.source_name"),
        ({}, {"cleaning__repair": True}, "are not cleaned"),
    ]:
        with pytest.raises(ConfigError, match=message):
            prepare(config(path, options=options, **fields), tmp_path / "out")


# --- Folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """300 pairs of 200 sources: every second source has two targets; ten rows occur twice."""
    rows = [(f"source {i}", f"target {i} a") for i in range(200)] + [
        (f"source {i}", f"target {i} b") for i in range(0, 200, 2)
    ]
    path = tmp_path_factory.mktemp("table") / "pairs.tsv"
    path.write_text("".join(f"{a}\t{b}\n" for a, b in [*rows, *rows[:10]]))
    return path, rows


@pytest.mark.parametrize("shard_bytes", [1 << 10, 1 << 20])
def test_a_folder_of_pairs_holds_every_pair_once(table, tmp_path, shard_bytes):
    path, rows = table
    made = config(path, split__validation_documents=20, split__test_documents=30)
    made.shard_megabytes = 1
    manifest = prepare(made, tmp_path / "out", shard_bytes=shard_bytes)
    assert manifest["form"] == "pairs" and set(manifest["splits"]) == {"train", "validation", "test"}
    found = {split: pairs_of(tmp_path / "out", split) for split in manifest["splits"]}
    assert sorted(pair for pairs in found.values() for pair in pairs) == sorted(rows)
    sources = [{source for source, _ in pairs} for pairs in found.values()]
    assert not any(one & other for one, other in itertools.combinations(sources, 2)), "a source is in one split only"
    assert len(found["validation"]) in (20, 21) and len(found["test"]) in (30, 31)
    for split in ("validation", "test"):
        lines = [json.loads(line) for line in (tmp_path / "out" / f"{split}.pairs.jsonl").read_text().splitlines()]
        kept = [(line["source"], target) for line in lines for target in line["targets"]]
        assert sorted(kept) == sorted(found[split]) and len({line["source"] for line in lines}) == len(lines)
    check_files(tmp_path / "out", [file for split in found for file in split_files(manifest, split)], verify=True)
    assert read_manifest(tmp_path / "out") == json.loads(json.dumps(manifest))


GIVEN = {
    "train": [("a", "A"), ("b", "B"), ("a", "A"), ("c", "C")],
    "validation": [("d", "D"), ("a", "other")],
    "test": [("e", "E"), ("b", "B"), ("e", "E"), ("c", "C")],
}


def given_splits(folder, kind, reverse=False, **fields):
    """A config of three files, one for each split."""
    made = config(folder / "train.tsv", kind, **fields)
    sources = []
    for split, rows in GIVEN.items():
        (folder / f"{split}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
        sources.append(source(name=f"my_{split}", kind=kind, path=str(folder / f"{split}.tsv"), given_split=split))
    made.sources = tuple(reversed(sources) if reverse else sources)
    validate(made)
    return made


@pytest.mark.parametrize("reverse", [False, True])
def test_splits_that_others_have_made_stay_and_what_they_share_is_counted(reverse, tmp_path):
    """Copies are dropped from the training split alone, whichever source comes first."""
    manifest = prepare(given_splits(tmp_path, "pairs", reverse), tmp_path / "out")
    found = {split: sorted(pairs_of(tmp_path / "out", split)) for split in GIVEN}
    assert found == {split: sorted(set(rows) if split == "train" else rows) for split, rows in GIVEN.items()}
    assert manifest["shared_with_training"] == {"validation": 1, "test": 2}
    card = (tmp_path / "out" / "card.md").read_text()
    assert "Test: 2 of 4 pairs, with a source that is also in the training split" in card


def test_given_splits_of_labelled_texts(tmp_path):
    made = given_splits(tmp_path, "labelled")
    for one in made.sources:
        one.options.update(label="2", text="1")
    (tmp_path / "validation.tsv").write_text("d\tA\nf\tB\n")
    (tmp_path / "test.tsv").write_text("e\tC\nb\tB\ne\tC\nc\tC\n")
    manifest = prepare(made, tmp_path / "out")
    found = {split: sorted(documents(tmp_path / "out", split)) for split in GIVEN}
    assert found == {"train": list("aabc"), "validation": list("df"), "test": list("bcee")}
    assert manifest["shared_with_training"] == {"validation": 0, "test": 2}
    assert manifest["texts_of_labels"]["test"] == {"B": 1, "C": 3}


def test_a_given_split_is_not_drawn_and_the_others_are(tmp_path):
    made = given_splits(tmp_path, "pairs", split__validation_documents=1)
    made.sources = (source(name="rest", kind="pairs", path=str(tmp_path / "train.tsv")), made.sources[2])
    prepare(made, tmp_path / "out")
    found = {split: set(pairs_of(tmp_path / "out", split)) for split in GIVEN}
    assert found["test"] == set(GIVEN["test"]) and len(found["validation"]) == 1
    assert found["train"] | found["validation"] == set(GIVEN["train"])


def test_the_default_fraction_is_not_drawn_beside_a_given_validation_split(tmp_path):
    made = given_splits(tmp_path, "pairs")
    (tmp_path / "many.tsv").write_text("".join(f"word {number}\tWORD {number}\n" for number in range(60)))
    made.sources = (source(name="many", kind="pairs", path=str(tmp_path / "many.tsv")), made.sources[1])
    assert made.split.validation_fraction == 0.2
    prepare(made, tmp_path / "out")
    assert len(pairs_of(tmp_path / "out", "train")) == 60
    assert sorted(pairs_of(tmp_path / "out", "validation")) == sorted(GIVEN["validation"])


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"split__validation_documents": 1}, "split.validation_documents = 1: must be 0 where a source gives"),
        ({"split__test_fraction": 0.1}, "split.test_fraction = 0.1: must be 0 where a source gives"),
    ],
)
def test_a_split_is_given_or_drawn(fields, told, tmp_path):
    with pytest.raises(ConfigError, match=told):
        prepare(given_splits(tmp_path, "pairs", **fields), tmp_path / "out")
    made = config(tmp_path / "train.tsv")
    made.sources = (source(name="a", kind="pairs", path="a", given_split="valid"),)
    with pytest.raises(ConfigError, match="given_split = 'valid': expected one of train, validation, test"):
        validate(made)


class Backwards(Here):
    """Runs tasks in reverse order and each one twice; stops after `stages` stages."""

    def __init__(self, stages):
        self.stages = stages

    def run(self, function, items):
        self.stages -= 1
        if self.stages < 0:
            raise KeyboardInterrupt
        found = [(index, function(item)) for _ in range(2) for index, item in reversed(list(enumerate(items)))]
        return (each for each in found[: len(items)])


def test_the_bytes_do_not_depend_on_the_executor_or_on_a_kill(table, tmp_path):
    path, _ = table
    for number in range(4):
        (tmp_path / f"{number}.tsv").write_text("".join(path.read_text().splitlines(True)[number::4]))
    made = config(f"{tmp_path}/*.tsv", split__validation_documents=20, tokenizer__name="char")
    listing = list_sources(made.sources, 1)
    assert len(listing.tasks) == 4
    Pipeline(made, listing, tmp_path / "one", Here(), watch).prepare({})
    with pytest.raises(KeyboardInterrupt):
        Pipeline(made, listing, tmp_path / "two", Backwards(stages=5), watch).prepare({})
    Pipeline(made, listing, tmp_path / "two", Backwards(stages=99), watch).prepare({})
    files = {file.name: file.read_bytes() for file in (tmp_path / "one").iterdir() if file.is_file()}
    assert files.keys() > {"train-00000.bin", "validation.pairs.jsonl", "manifest.json"}
    assert all((tmp_path / "two" / name).read_bytes() == content for name, content in files.items())


def test_the_first_reference_is_trained_on_and_all_are_kept(tmp_path):
    lines = [json.dumps({"source": f"s{i}", "target": [f"t{i}", f"u{i}"]}) + "\n" for i in range(50)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    each = prepare(config(tmp_path / "a.jsonl"), tmp_path / "each")
    first = prepare(config(tmp_path / "a.jsonl", options={"references": "first"}), tmp_path / "first")
    assert pairs_of(tmp_path / "first", "train") == [
        pair for pair in pairs_of(tmp_path / "each", "train") if pair[1][0] == "t"
    ]
    assert each["splits"]["train"]["documents"] == 2 * first["splits"]["train"]["documents"]
    kept = [(tmp_path / name / "validation.pairs.jsonl").read_text() for name in ("each", "first")]
    assert kept[0] == kept[1] and all(len(json.loads(line)["targets"]) == 2 for line in kept[0].splitlines())


def test_sources_may_have_their_own_tokenizer(tmp_path):
    (tmp_path / "a.tsv").write_text("".join(f"{chr(97 + i % 20)}\t{'AB'[i % 2]}\n" for i in range(100)))
    fields = {"tokenizer__name": "char", "tokenizer__source_name": "byte", "split__validation_fraction": 0}
    manifest = prepare(config(tmp_path / "a.tsv", **fields), tmp_path / "out")
    assert manifest["source_tokenizer"]["vocab_size"] == 265 != manifest["tokenizer"]["vocab_size"]
    own = tokenizer.load_of_sources(tmp_path / "out")
    assert own.hash == tokenizer.ByteTokenizer().hash and tokenizer.load_of_sources(tmp_path) is None
    found = pairs_of(tmp_path / "out", "train", source_tokenizer=own)
    assert sorted(found) == sorted({(chr(97 + i % 20), "AB"[i % 2]) for i in range(100)})
    (tmp_path / "out" / "source_tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="truncated or altered"):
        TokenSource(tmp_path / "out", "train")


def test_each_side_trains_its_own_vocabulary(tmp_path):
    words = np.random.default_rng(0).choice(["bonjour", "merci", "oui", "cheval"], (200, 6))
    english = np.random.default_rng(1).choice(["HELLO", "THANKS", "YES", "HORSE"], (200, 6))
    lines = [f"{' '.join(a)}\t{' '.join(b)}\n" for a, b in zip(words, english)]
    (tmp_path / "a.tsv").write_text("".join(lines))
    fields = dict(tokenizer__name="bpe", tokenizer__vocab_size=300, tokenizer__source_vocab_size=305)
    prepare(config(tmp_path / "a.tsv", tokenizer__source_name="bpe", **fields), tmp_path / "two")
    target, own = (tokenizer.load(tmp_path / "two" / f"{name}tokenizer.model") for name in ("", "source_"))
    assert (target.vocab_size, own.vocab_size) == (300, 305)
    assert len(target.encode("HELLO")) < len(own.encode("HELLO"))
    assert len(own.encode("bonjour")) < len(target.encode("bonjour"))
    fields |= {"tokenizer__vocab_size": 330, "tokenizer__source_vocab_size": 0}
    prepare(config(tmp_path / "a.tsv", **fields), tmp_path / "one")
    shared = tokenizer.load(tmp_path / "one")
    assert len(shared.encode("HELLO")) < 5 and len(shared.encode("bonjour")) < 7


def test_a_folder_of_preferences_has_both_answers_after_the_prompt(tmp_path):
    rows = [{"task": f"t{i}", "input": f"i{i}", "chosen": f"good{i}", "rejected": f"bad{i}"} for i in range(60)]
    bad = [rows[0] | {"rejected": "good0"}, rows[1] | {"chosen": " "}, {"task": "no answers", "input": ""}]
    (tmp_path / "a.json").write_text(json.dumps([*rows, *bad]))
    options = {"prompt": "{task}: {input}"}
    manifest = prepare(config(tmp_path / "a.json", "preferences", options), tmp_path / "out", 1000)
    assert manifest["form"] == "preferences" and "source_tokenizer" not in manifest
    assert manifest["skipped"]["two equal answers"] == manifest["skipped"]["an empty prompt or answer"] == 1
    found = set()
    for split in ("train", "validation"):
        texts = documents(tmp_path / "out", split)
        for prompt, chosen, again, rejected in zip(*(texts[i::4] for i in range(4)), strict=True):
            assert prompt == again
            found.add((prompt, chosen, rejected))
    assert found == {(f"t{i}: i{i}", f"good{i}", f"bad{i}") for i in range(60)}


def test_a_labelled_folder_has_a_label_for_each_text(tmp_path):
    texts = {f"text {i}": ["ham", "spam", "eggs"][i % 3] for i in range(120)}
    (tmp_path / "Collection").write_text("".join(f"{label}\t{text}\n" for text, label in texts.items()))
    manifest = prepare(config(tmp_path / "Collection", "labelled", tokenizer__name="char"), tmp_path / "out", 1000)
    assert manifest["form"] == "labelled" and manifest["labels"] == ["eggs", "ham", "spam"]
    found = {}
    for split in ("train", "validation"):
        labels = np.load(tmp_path / "out" / f"{split}.labels.npy")
        assert labels.dtype == np.int32
        found |= dict(zip(documents(tmp_path / "out", split), (manifest["labels"][i] for i in labels), strict=True))
    assert found == texts
    assert SEPARATOR not in (tmp_path / "out" / "tokenizer.json").read_text(), "labels are not in the training text"
    np.save(tmp_path / "out" / "train.labels.npy", np.zeros(1, np.int32))
    with pytest.raises(ConfigError, match=r"train\.labels\.npy.*truncated or altered"):
        TokenSource(tmp_path / "out", "train")


def test_a_corpus_has_only_one_form(tmp_path):
    (tmp_path / "a.tsv").write_text("a\tb\n")
    made = default()
    made.sources = tuple(source(name=kind, kind=kind, path=str(tmp_path / "a.tsv")) for kind in ("pairs", "labelled"))
    with pytest.raises(ConfigError, match="pairs gives pairs and labelled gives labelled: a corpus has one form"):
        validate(made)
