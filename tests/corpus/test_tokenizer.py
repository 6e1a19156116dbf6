import io
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptjax.config import ConfigError
from gptjax.corpus import tokenizer as tokenizers
from gptjax.corpus.tokenizer import CONTROL_TOKENS, ByteTokenizer, CharacterTokenizer, load
from gptjax.corpus.tokenizer_training import train_sentencepiece

TEXT = (Path(sysconfig.get_path("stdlib")) / "argparse.py").read_text() + "Ünï ▁ 1234 café 日本語\r\n\tdone"
BPE = train_sentencepiece([TEXT[i : i + 2000] for i in range(0, len(TEXT), 2000)], "bpe", 600)
BYTE = ByteTokenizer()
LOSSLESS = pytest.mark.parametrize("tokenizer", [BPE, BYTE], ids=["bpe", "byte"])

HOSTILE = [
    *("", " ", "  two ", "\n\n\n", "\t\tx", "a\r\nb\r", "\0", "a\0b", "▁", "a▁b ▁ ▁▁", " ▁", "▂▅⁇"),
    *("e\u0301", "\u0301", " \u0301\n\u0301", "😀👩‍👩‍👧‍👦🏳️‍🌈", "\ufeffx", "\u200b\u202e", "\uffff\U0010ffff"),
    *(*CONTROL_TOKENS, "<s>hi</s>", "<0x0A>", "<unk><pad>", " 3.14159  12345", "ﬁ ½ Å Å", "x" * 5000),
]
anything = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    alphabet="ab ▁\n\t\r\0é😀\u0301<s>/0x1", max_size=60
)


@LOSSLESS
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_comes_back_as_it_was(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(tokenizer.control_ids.values()), "text never encodes to a control token"


@LOSSLESS
@settings(max_examples=300, deadline=None)
@given(anything)
@example("▁ ▁")
def test_any_text_comes_back_as_it_was(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode())
    assert not set(ids) & set(tokenizer.control_ids.values())


@settings(max_examples=200, deadline=None)
@given(st.lists(anything, max_size=4), st.integers(1, 30))
def test_cutting_long_texts_changes_no_token(texts, size):
    before, tokenizers.SEGMENT = tokenizers.SEGMENT, size
    try:
        cut = BPE.encode_batch(texts)
    finally:
        tokenizers.SEGMENT = before
    whole = [BPE.encode(text) for text in texts]
    assert [ids.tolist() for ids in cut] == whole
    for text, ids in zip(texts, whole):  # and SentencePiece itself agrees, where it is lossless
        if "▁" not in text:
            assert ids == BPE._model.encode(text)


def test_long_texts_are_cut():
    text = "a line of text\n" * 10_000
    assert max(map(len, BPE._segments(text))) < tokenizers.SEGMENT + 100
    assert "".join(BPE._segments(text)) == text


@LOSSLESS
def test_a_lone_surrogate_is_no_text(tokenizer):
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode("\ud800")


def test_newlines_and_tabs_are_tokens_and_digits_stand_alone():
    assert [BPE.decode([i]) for i in BPE.encode("\n\n\t1234")] == ["\n", "\n", "\t", "1", "2", "3", "4"]
    assert not any(BPE._model.is_byte(i) for i in BPE.encode("\n\t")), "symbols of their own, not byte fallback"
    assert any(len(BPE.decode([i])) >= 8 for i in BPE.encode("            return"))  # indentation is one token


def test_digits_join_by_option():
    text = [TEXT[:2000], "in 1984 " * 200]
    assert len(train_sentencepiece(text, "bpe", 380, split_digits=True).encode("1984")) == 4
    assert len(train_sentencepiece(text, "bpe", 380, split_digits=False).encode("1984")) < 4


@pytest.mark.parametrize("tokenizer", [BPE, BYTE, CharacterTokenizer("abc")], ids=["bpe", "byte", "char"])
def test_control_tokens_are_the_same_in_every_kind(tokenizer):
    assert [tokenizer.control_ids[name] for name in CONTROL_TOKENS] == list(range(len(CONTROL_TOKENS)))
    assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2, 3)
    assert tokenizer.decode([1, 2, 3, 4, 5, 6, 7, 8]) == ""
    sizes = tokenizer.token_bytes()
    assert sizes.dtype == np.int32 and sizes.shape == (tokenizer.vocab_size,)
    assert sizes[:9].tolist() == [1] + [0] * 8


def test_character_tokenizer_has_one_token_a_character_and_counts_the_unknown():
    tokenizer = CharacterTokenizer("\n abé😀")
    ids = tokenizer.encode("ab é😀\n")
    assert len(ids) == 6 and tokenizer.decode(ids) == "ab é😀\n"
    assert tokenizer.token_bytes()[ids].tolist() == [1, 1, 1, 2, 4, 1]
    ids = tokenizer.encode("aZ\U0010ffffb")
    assert ids.count(tokenizer.unk_id) == 2
    assert tokenizer.decode(ids) == "a\ufffd\ufffdb"
    ascii_only = CharacterTokenizer("".join(map(chr, range(128))))
    assert set(ascii_only.encode("".join(map(chr, range(128, 1000))))) == {ascii_only.unk_id}


def test_a_character_cut_in_two_is_replaced():
    assert BYTE.decode(BYTE.encode("é")[:1]) == "\ufffd"


@pytest.mark.parametrize("tokenizer", [BPE, BYTE, CharacterTokenizer("\nab é")], ids=["bpe", "byte", "char"])
def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    path = tokenizer.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    for where in (tmp_path, path):
        again = load(where)
        assert again.hash == tokenizer.hash and again.kind == tokenizer.kind
        assert again.encode("ab é\n") == tokenizer.encode("ab é\n")
    assert len({BPE.hash, BYTE.hash, CharacterTokenizer("ab").hash, CharacterTokenizer("ba").hash}) == 4


def test_a_foreign_sentencepiece_model_loads(tmp_path):
    """As Llama's: a dummy prefix, no padding token, newlines that are no token."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_prefix=str(tmp_path / "foreign"),
        vocab_size=600,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=3,
    )
    tokenizer = load(tmp_path / "foreign.model")
    assert tokenizer.pad_id is None and tokenizer.eos_id == 2
    assert tokenizer.encode("hello there") == tokenizer._model.encode("hello there")
    assert tokenizer.decode(tokenizer.encode("hello there")) == "hello there"


def test_a_model_whose_tokens_cross_newlines_is_not_cut_there(monkeypatch):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=model,
        vocab_size=600,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=["\n", "\n\n"],
        minloglevel=3,
    )
    monkeypatch.setattr(tokenizers, "SEGMENT", 1)
    tokenizer = tokenizers.SentencePieceTokenizer(model.getvalue())
    assert tokenizer.encode("a\n\nb") == tokenizer._model.encode("a\n\nb")
    assert len(tokenizer.encode("\n\n")) == 1


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("tokenizer.model", b"junk", "no tokenizer that can be read"),
        ("tokenizer.json", b"{", "no tokenizer that can be read"),
        ("tokenizer.json", b'{"kind": "wordpiece"}', "no tokenizer that can be read"),
        ("other.txt", b"", "holds neither tokenizer.model nor tokenizer.json"),
    ],
)
def test_a_tokenizer_that_cannot_be_loaded(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load(tmp_path)


def test_a_tokenizer_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder"):
        load(tmp_path / "nowhere")


def test_preparing_needs_no_jax():
    code = "import sys, gptjax.prepare; sys.exit('jax' in sys.modules or 'grain' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
