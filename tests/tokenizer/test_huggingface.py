"""A tokenizer.json of Hugging Face gives its ids here, and keeps the laws of our tokenizers."""

import json

import numpy as np
import pytest
from hostile_texts import HOSTILE, hostile_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from their_tokenizers import MADE, unigram, write_folder

from gptjax.config import ConfigError
from gptjax.inference.text import TextStream
from gptjax.interop.tokenizer_json import tokenizer_json
from gptjax.tokenizer import ByteTokenizer, HuggingFaceTokenizer, load

LOSSLESS = {"gpt2", "llama3"}
anything = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    alphabet="ab ▁\n\t\r\0é😀\u0301<|>1", max_size=60
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """name → (folder, the library's tokenizer, ours)."""
    made = {}
    for name in MADE:
        folder = tmp_path_factory.mktemp(name)
        made[name] = (folder, write_folder(folder, MADE[name]), load(folder))
    return made


@pytest.mark.parametrize("name", MADE)
def test_the_ids_are_those_of_the_library_and_no_text_is_a_control_token(name, folders):
    _, theirs, ours = folders[name]
    names = [token.content for token in theirs.get_added_tokens_decoder().values() if token.special]
    texts = [*HOSTILE, *hostile_corpus(seed=1)[:300]]
    controls = set(ours.control_ids.values()) - {ours.unk_id}
    for text, ids in zip(texts, ours.encode_batch(texts)):
        if not any(special in text for special in names):
            assert ids.tolist() == theirs.encode(text, add_special_tokens=False).ids, text
        assert not controls & set(ids.tolist())
    for special in names:
        assert theirs.encode(special).ids == [theirs.token_to_id(special)], "the library itself finds it in a text"
        assert not controls & set(ours.encode(f"a{special}b"))


@pytest.mark.parametrize("name", MADE)
def test_texts_are_decoded_as_the_library_does(name, folders):
    _, theirs, ours = folders[name]
    changed = 0
    for text in [*HOSTILE, *hostile_corpus(seed=2)[:200]]:
        ids = ours.encode(text)
        if "\ufffd" not in ours.decode(ids):
            assert ours.decode(ids) == theirs.decode(ids), text
        changed += ours.decode(ids) != text
    assert (changed == 0) is (name in LOSSLESS) is ours.lossless


@pytest.mark.parametrize("name", sorted(LOSSLESS))
@settings(max_examples=150, deadline=None)
@given(text=anything)
def test_any_text_is_decoded_unchanged_and_its_bytes_are_counted(name, folders, text):
    ours = folders[name][2]
    ids = ours.encode(text)
    assert ours.decode_bytes(ids) == text.encode()
    assert ours.token_bytes()[ids].sum() == len(text.encode())


def test_parts_of_characters_are_held_back_until_they_are_whole(folders):
    ours = folders["gpt2"][2]
    ids = ours.encode("a 日😀!")
    assert len(ids) > len("a 日😀!"), "characters are spread over several tokens"
    stream = TextStream(ours)
    pieces = []
    for token in ids:
        stream.push(token)
        pieces.append(stream.take())
    assert "".join(pieces) == "a 日😀!" and "" in pieces


@pytest.mark.parametrize("name", MADE)
def test_a_saved_tokenizer_is_loaded_again_from_one_file(name, folders, tmp_path):
    ours = folders[name][2]
    path = ours.save(tmp_path)
    for where in (path, tmp_path):
        again = load(where)
        assert isinstance(again, HuggingFaceTokenizer)
        assert again.hash == ours.hash and again.control_ids == ours.control_ids
        assert again.encode("ab é\n 12") == ours.encode("ab é\n 12")


@pytest.mark.parametrize("name", MADE)
def test_further_control_tokens_change_no_id(name, folders):
    ours = folders[name][2]
    more = ours.extended(["<|a|>"]).extended(["<|b|>"])
    assert more.vocab_size == ours.vocab_size + 2
    assert more.control_ids["<|b|>"] == ours.vocab_size + 1 and more.decode([ours.vocab_size]) == ""
    assert more.hash == ours.extended(["<|a|>", "<|b|>"]).hash
    assert more.extends(ours) and not ours.extends(more)
    for text in ("a <|a|> b", "<|b|>", *HOSTILE):
        assert more.encode(text) == ours.encode(text)


def test_special_tokens_are_those_that_the_folder_names(folders, tmp_path):
    ours = folders["llama3"][2]
    assert (ours.bos_id, ours.eos_id) == (
        ours.control_ids["<|begin_of_text|>"],
        ours.control_ids["<|end_of_text|>"],
    )
    assert ours.unk_id is None and ours.pad_id is None
    qwen = folders["qwen"][2]
    assert (qwen.eos_id, qwen.pad_id) == (qwen.control_ids["<|im_end|>"], qwen.control_ids["<|endoftext|>"])
    assert qwen.decode(qwen.encode("<think>")) == "<think>", "a token of text"
    assert folders["gpt2"][2].unk_id is None, "bytes leave nothing unknown"
    file = folders["llama3"][0] / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="has 5 special tokens, and no file beside it says"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [ours.eos_id, 3], "bos_token_id": ours.bos_id}))
    assert load(tmp_path).control_ids == ours.control_ids


def test_names_that_are_special_elsewhere_are_those_of_the_file(tmp_path):
    """A model of conversations ends at its own token, although its vocabulary also has </s>."""
    write_folder(tmp_path, MADE["llama2"])
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<s>", "bos_token": "</s>"}')
    ours = load(tmp_path)
    assert ours.control_ids == {"<unk>": 0, "<s>": 1, "</s>": 2}
    assert (ours.unk_id, ours.bos_id, ours.eos_id, ours.pad_id) == (0, 2, 1, None)


def test_one_thread_and_many_give_the_same_ids(folders):
    ours = load(folders["llama3"][0])
    texts = hostile_corpus(seed=4)[:300]
    many = ours.encode_batch(texts)
    ours.threads = 1
    assert all(map(np.array_equal, ours.encode_batch(texts), many))


def test_a_lone_surrogate_is_refused(folders):
    for threads in (1, 2):
        ours = load(folders["gpt2"][0])
        ours.threads = threads
        with pytest.raises(UnicodeEncodeError):
            ours.encode("\ud800")


def test_it_is_written_again_as_it_was(folders):
    folder, _, ours = folders["qwen"]
    assert json.loads(tokenizer_json(ours)) == json.loads((folder / "tokenizer.json").read_text())


def test_a_sentencepiece_model_beside_it_is_taken_only_if_no_tokens_were_added(folders, tmp_path):
    content = (folders["gpt2"][0] / "tokenizer.json").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(content)
    (tmp_path / "tokenizer.model").write_bytes(b"a file of another kind")
    assert isinstance(load(tmp_path), HuggingFaceTokenizer)


WRONG = {
    "truncated": (lambda content: content[:100], "not a readable tokenizer"),
    "a list": (lambda content: b"[]", "not a readable tokenizer"),
    "a model of words": (lambda content: content.replace(b'"type": "BPE"', b'"type": "WordPiece"'), "WordPiece"),
    "dropout": (lambda content: content.replace(b'"dropout": null', b'"dropout": 0.1'), "model.dropout = 0.1"),
    "a wrong decoder": (
        lambda content: content.replace(b'"decoder": {', b'"decoder": {"type": "CTC"}, "x": {'),
        "it says",
    ),
    "no token of merges": (lambda content: content.replace(b'"vocab": {', b'"vocab": {}, "x": {'), "it says"),
    "deep": (lambda content: b'{"model":' + b"[" * 100_000, "not a readable tokenizer"),
}


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_a_damaged_or_foreign_file_is_refused_in_one_sentence(folders, tmp_path, change, message):
    content = json.dumps(json.loads((folders["gpt2"][0] / "tokenizer.json").read_bytes())).encode()
    (tmp_path / "tokenizer.json").write_bytes(change(content))
    with pytest.raises(ConfigError, match=message):
        load(tmp_path)


def test_a_model_that_finds_control_tokens_in_a_text_is_refused(tmp_path):
    assert write_folder(tmp_path, unigram).encode("<s>").ids == [1]
    with pytest.raises(ConfigError, match="the text '<s>' would become the control token"):
        load(tmp_path)


def test_a_decoder_whose_tokens_are_no_fixed_bytes_is_refused(tmp_path):
    write_folder(tmp_path, MADE["gpt2"])
    content = json.loads((tmp_path / "tokenizer.json").read_bytes())
    for decoder, message in (({"type": "WordPiece", "prefix": "##", "cleanup": True}, "'WordPiece'"), (None, "null")):
        (tmp_path / "tokenizer.json").write_text(json.dumps(content | {"decoder": decoder}))
        with pytest.raises(ConfigError, match=f"decoder.*{message}"):
            load(tmp_path)


def test_a_missing_end_of_text_token_is_named(folders, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((folders["gpt2"][0] / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    with pytest.raises(ConfigError, match="eos_token = '<eos>': the vocabulary has no such token"):
        load(tmp_path)


def test_ours_and_theirs_are_told_apart_by_content(folders, tmp_path):
    path = ByteTokenizer().save(tmp_path)
    assert load(path).kind == "byte" and load(folders["gpt2"][0]).kind == "huggingface"
