"""Conversations, from raw files to a prepared folder: nothing is lost, and faults are counted with the row's number."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conversation_folder import corpus_config, random_conversations, write_conversations
from pipeline_running import prepare
from source_reading import documents as read_all

from gptjax.config import ConfigError
from gptjax.conversation import Message
from gptjax.corpus.forms import SEPARATOR, messages_in, shown, source_keys
from gptjax.corpus.sources.conversations import NAMED_ROLES
from gptjax.data.prepared import check_files, read_manifest, split_files
from gptjax.data.tokens import TokenSource

ROWS = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]},
    {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]},
]
READ = [[Message("user", "Hi"), Message("assistant", "Hello!")], [Message("user", "2+2?"), Message("assistant", "4")]]


def jsonl(folder):
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder / "a.jsonl"


def alpaca(folder):
    rows = [{"instruction": one.content, "input": "", "output": other.content} for one, other in READ]
    (folder / "a.json").write_text(json.dumps(rows))
    return folder / "a.json"


def parquet_of_messages(folder):
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet")
    return folder / "a.parquet"


def parquet_of_texts(folder):
    rows = [{"prompt": one.content, "completion": other.content} for one, other in READ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    return folder / "a.parquet"


def csv(folder):
    (folder / "a.csv").write_text("prompt,completion\nHi,Hello!\n2+2?,4\n")
    return folder / "a.csv"


@pytest.mark.parametrize(
    "made", [jsonl, alpaca, parquet_of_messages, parquet_of_texts, csv], ids=lambda made: made.__name__
)
def test_every_file_layout_gives_the_same_conversations(tmp_path, made):
    found, skipped = read_all("conversations", made(tmp_path))
    assert [messages_in(one.text) for one in found] == READ and not skipped


def test_faults_are_counted_with_the_numbers_of_the_rows(tmp_path):
    rows = [*ROWS, {"prompt": "Hi", "completion": " "}, {"text": "Hi"}, {"prompt": "a", "completion": ""}, ROWS[1]]
    rows += [{"messages": [ROWS[0]["messages"][0]] * 2}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, skipped = read_all("conversations", tmp_path / "a.jsonl")
    assert len(found) == 3
    faults = {
        "an empty completion": [3, 5],
        "none of messages; prompt and completion; instruction and output": [4],
        "roles out of order: user after user": [7],
    }
    assert skipped == {reason: len(places) for reason, places in faults.items()}
    assert skipped.places == {
        reason: [f"{tmp_path}/a.jsonl:{place}" for place in places] for reason, places in faults.items()
    }


@pytest.mark.parametrize("fields", [{}, {"template": "turns", "tokens.bos": True}, {"tokenizer.name": "char"}])
def test_a_prepared_folder_has_every_token_and_whether_the_assistant_wrote_it(tmp_path, fields):
    conversations = random_conversations(60)
    folder, renderer = write_conversations(tmp_path / "data", conversations, **fields)
    manifest = read_manifest(folder)
    assert manifest["template"] == renderer.template.to_json() and manifest["form"] == "conversations"
    wanted = {tuple(each.ids): each.supervised.tolist() for each in renderer.render_batch(conversations)}
    for split, section in manifest["splits"].items():
        check_files(folder, split_files(manifest, split), verify=True)
        assert f"{split}.supervised.bin" in {entry["name"] for entry in split_files(manifest, split)}
        source = TokenSource(folder, split)
        whole = np.array([0]), np.array([source.num_tokens])
        stream, bits = source.take_runs(*whole), source.take_supervised(*whole)
        assert section["supervised"]["tokens"] == bits.sum()
        for start, stop in itertools.pairwise(source.document_offsets().astype(int)):
            inner = slice(start + source.own_begin, stop - 1)
            assert wanted.pop(tuple(stream[inner])) == bits[inner].tolist()
            assert bits[start:stop].sum() == bits[inner].sum() and stream[stop - 1] == source.eos_id
            part = np.array([start + 3, start]), np.array([5, 2])
            assert source.take_supervised(*part).tolist() == [*bits[start + 3 : start + 8], *bits[start : start + 2]]
    assert not wanted
    assert "tokens that the assistant wrote" in (folder / "card.md").read_text()


def test_conversations_with_equal_prompts_are_in_one_split_and_weights_repeat_both_files(tmp_path):
    asked = [[Message("user", f"{n % 20}?"), Message("assistant", f"{n}")] for n in range(60)]
    texts = [SEPARATOR.join(side for message in messages for side in message) for messages in asked]
    keys = source_keys(texts, "prompt")
    assert len(set(keys)) == 20 and (keys[:20] == keys[20:40]).all()
    assert shown(texts[3], "conversations") == "user: 3?\nassistant: 3"
    folder, renderer = write_conversations(tmp_path / "data", asked)
    prompts = []
    for split in ("train", "validation"):
        source = TokenSource(folder, split)
        parts = itertools.pairwise(source.document_offsets().astype(int))
        streams = [source.take_runs(np.array([a]), np.array([b - a])) for a, b in parts]
        prompts.append({renderer.tokenizer.decode(ids).partition("?")[0] for ids in streams})
    assert prompts[1] and not prompts[0] & prompts[1]

    config = corpus_config(tmp_path / "data.jsonl")
    (one,) = config.sources
    with one.unlocked():
        one.weight = 2.0
    config.sources = (one,)
    (tmp_path / "twice").mkdir()
    once, twice = read_manifest(folder)["splits"], prepare(config, tmp_path / "twice")["splits"]
    assert twice["train"]["supervised"]["tokens"] == 2 * once["train"]["supervised"]["tokens"]
    assert twice["validation"]["supervised"]["tokens"] == once["validation"]["supervised"]["tokens"]
    source = TokenSource(tmp_path / "twice", "train")
    bits = source.take_supervised(np.array([0]), np.array([source.num_tokens])).reshape(2, -1)
    assert (bits[0] == bits[1]).all()


def test_a_learned_vocabulary_has_the_asked_size_and_the_control_tokens(tmp_path):
    fields = {"tokenizer.name": "bpe", "tokenizer.vocab_size": 300}
    _, renderer = write_conversations(tmp_path / "data", random_conversations(80), **fields)
    assert renderer.tokenizer.vocab_size == 300 and renderer.end_id == 299


def test_unknown_roles_are_named_up_to_a_number(tmp_path):
    roles = ["human", "human", *(f"role {number}" for number in range(NAMED_ROLES)), "x" * 1000]
    rows = [{"messages": [{"role": role, "content": "Hi"}, ROWS[0]["messages"][1]]} for role in roles]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, skipped = read_all("conversations", tmp_path / "a.jsonl")
    unknown = "a role that is none of system, user, assistant, tool"
    named = {f"{unknown}: 'role {number}'": 1 for number in range(NAMED_ROLES - 1)}
    assert skipped == {f"{unknown}: 'human'": 2, **named, unknown: 2}
    assert skipped.places[f"{unknown}: 'human'"] == [f"{tmp_path}/a.jsonl:{number}" for number in (1, 2)]


def test_what_is_no_conversation_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "Hi"}\n')
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match=r"no document in 1 file \(none of messages"):
        prepare(corpus_config(tmp_path / "a.jsonl"), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"stages: .* no conversation any more"):
        messages_in(f"user{SEPARATOR}Hi")
    with pytest.raises(ConfigError, match="template = 'chatm'"):
        corpus_config(tmp_path / "a.jsonl", template="chatm")
