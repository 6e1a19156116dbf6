"""What is written for `transformers` gives the ids of the tokenizer itself, or is refused."""

import json
import string

import jinja2
import pytest
import tokenizers
from hostile_texts import HOSTILE, hostile_corpus
from sentencepiece_models import FOREIGN, GEMMA, LLAMA, TEXT, sentencepiece_model

from gptjax.config import ConfigError
from gptjax.conversation import load_template
from gptjax.interop import tokenizer_json as writing
from gptjax.interop.tokenizer_folder import special_ids, write_tokenizer
from gptjax.interop.tokenizer_json import tokenizer_json
from gptjax.tokenizer import ByteTokenizer, CharacterTokenizer, load
from gptjax.tokenizer.training import train_sentencepiece

CHAT = load_template("chatml")
CHUNKS = [TEXT[i : i + 2000] for i in range(0, len(TEXT), 2000)]
BPE = train_sentencepiece(CHUNKS, "bpe", 600)
TOKENIZERS = {
    "bpe": BPE,
    "bpe of conversations": BPE.extended(CHAT.controls),
    "byte": ByteTokenizer().extended(CHAT.controls),
    "char": CharacterTokenizer(string.printable + "é日😀").extended(CHAT.controls),
    "llama": sentencepiece_model("bpe", **LLAMA),
    "gemma": sentencepiece_model("bpe", **GEMMA),
}
WRITTEN = {"newlines within tokens", "no bytes", "characters", "extra spaces removed", "no prefix, spaces removed"}
REFUSED = {
    "unigram": "kind = 'unigram'",
    "defaults": "normalization_rule_name",
    "spaces as suffixes": "treat_whitespace_as_suffix",
    "words": "kind = 'word'",
}


def check_equal(tokenizer, texts):
    """The written file gives the same ids for all texts, and decodes to the same text where none is unknown."""
    theirs = tokenizers.Tokenizer.from_str(tokenizer_json(tokenizer).decode())
    theirs.encode_special_tokens = True
    for text, ids in zip(texts, tokenizer.encode_batch(texts)):
        found = theirs.encode(text, add_special_tokens=False).ids
        assert found == ids.tolist(), text
        if tokenizer.unk_id not in found:
            assert theirs.decode(found, skip_special_tokens=False) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_written_tokenizer_gives_the_same_ids(name):
    check_equal(TOKENIZERS[name], [*HOSTILE, *hostile_corpus(seed=1)[:300]])


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [*TOKENIZERS, *sorted(WRITTEN)])
def test_the_written_tokenizer_gives_the_same_ids_for_thousands_of_texts(name):
    tokenizer = TOKENIZERS.get(name) or sentencepiece_model(FOREIGN[name][0], **FOREIGN[name][1])
    check_equal(tokenizer, [text for seed in (2, 3) for text in hostile_corpus(seed)])


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_that_the_library_does_not_have_is_refused_by_its_name(name):
    kind, options, _ = FOREIGN[name]
    with pytest.raises(ConfigError, match=REFUSED[name]):
        tokenizer_json(sentencepiece_model(kind, **options))


def test_symbols_and_a_space_before_every_text_are_refused():
    with pytest.raises(ConfigError, match="add_dummy_prefix = True with user-defined symbols"):
        tokenizer_json(sentencepiece_model("bpe", **LLAMA, user_defined_symbols=["\n"]))


def test_a_file_with_other_ids_is_never_written(monkeypatch):
    monkeypatch.setattr(writing, "_merges", lambda scores, order: [])
    with pytest.raises(ConfigError, match="instead of"):
        tokenizer_json(BPE)


def test_names_of_control_tokens_in_a_text_become_ids_unless_they_are_encoded_as_text():
    tokenizer = TOKENIZERS["bpe of conversations"]
    theirs = tokenizers.Tokenizer.from_str(tokenizer_json(tokenizer).decode())
    text = "a<|im_end|>b"
    assert tokenizer.control_ids["<|im_end|>"] in theirs.encode(text).ids, "why `transformers` is not enough"
    theirs.encode_special_tokens = True
    assert theirs.encode(text).ids == tokenizer.encode(text)


def test_a_folder_says_what_begins_and_ends_a_text_and_an_answer(tmp_path):
    tokenizer = TOKENIZERS["bpe of conversations"]
    begin = tokenizer.eos_id
    names, notes = write_tokenizer(tmp_path, tokenizer, CHAT, begin_id=begin, context=128)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert "split_special_tokens" in notes[0] and len(notes) == 1
    assert load(tmp_path / "tokenizer.model").hash == tokenizer.hash
    settings, generation = (
        json.loads((tmp_path / name).read_text()) for name in ("tokenizer_config.json", "generation_config.json")
    )
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast" and settings["model_max_length"] == 128
    assert (settings["bos_token"], settings["eos_token"]) == ("</s>", "<|im_end|>")
    assert generation["eos_token_id"] == [tokenizer.control_ids["<|im_end|>"], tokenizer.eos_id]
    assert generation == special_ids(tokenizer, CHAT, begin)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.encode("Hi").ids == [begin, *tokenizer.encode("Hi")]


def test_sizes_that_the_converter_of_llama_cpp_takes_for_other_models_are_noted(tmp_path):
    size = 32016
    tokenizer = ByteTokenizer()
    many = tokenizer.with_controls([f"<{i}>" for i in range(size - tokenizer.vocab_size)])
    _, notes = write_tokenizer(tmp_path, many, None, begin_id=None, context=8)
    assert any("32,016" in note and "llama.cpp" in note for note in notes)


def test_a_template_is_plain_jinja_without_the_block_of_generation():
    text = CHAT.jinja(generation=False)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    written = jinja2.Environment().from_string(text).render(messages=messages)
    assert written == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
