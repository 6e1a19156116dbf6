import random
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hostile_texts import HOSTILE, hostile_corpus
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece_models import FOREIGN, LLAMA, TEXT, sentencepiece_model

from gptjax.config import ConfigError
from gptjax.tokenizer import CONTROL_TOKENS, ByteTokenizer, CharacterTokenizer, SentencePieceTokenizer, load, words
from gptjax.tokenizer.merges import MergeEncoder, can_encode
from gptjax.tokenizer.sentencepiece_file import CONTROL, NORMAL, UNUSED, USER_DEFINED, Piece
from gptjax.tokenizer.training import train_sentencepiece
from gptjax.tokenizer.words import word_pattern

BPE = train_sentencepiece([TEXT[i : i + 2000] for i in range(0, len(TEXT), 2000)], "bpe", 600)
BYTE = ByteTokenizer()


def without_merges(tokenizer):
    """The tokenizer as it would be if its ids could not be had from merges alone."""
    with mock.patch("gptjax.tokenizer.sentencepiece_model.can_encode", return_value=False):
        return SentencePieceTokenizer(tokenizer.file_bytes)


BY_WORDS = without_merges(BPE)
LOSSLESS = pytest.mark.parametrize("tokenizer", [BPE, BYTE], ids=["bpe", "byte"])

anything = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    alphabet="ab ▁\n\t\r\0é😀\u0301<s>/0x1", max_size=60
)


@LOSSLESS
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_decoded_unchanged(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(tokenizer.control_ids.values()), "text never encodes to a control token"


@LOSSLESS
@settings(max_examples=300, deadline=None)
@given(anything)
@example("▁ ▁")
def test_any_text_is_decoded_unchanged(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode())
    assert not set(ids) & set(tokenizer.control_ids.values())


@settings(max_examples=200, deadline=None)
@given(st.lists(anything, max_size=4), st.integers(1, 30), st.integers(0, 20))
def test_both_fast_encoders_give_the_ids_of_sentencepiece(texts, block, most):
    with mock.patch.multiple(words, BLOCK=block, MOST_CHARACTERS=most):
        by_merges, by_words = (tokenizer.encode_batch(texts) for tokenizer in (BPE, BY_WORDS))
        for text, one, other in zip(texts, by_merges, by_words):
            assert one.tolist() == other.tolist()
            assert "".join(word for some in BY_WORDS._fast.words(text) for word in some) == text
            if "▁" not in text:
                assert one.tolist() == BPE._model.encode(text)


def test_a_word_is_encoded_once():
    own = without_merges(BPE)
    with mock.patch.object(own._fast, "_encode", wraps=own._fast._encode) as encode:
        own.encode_batch(["def one(two):\n    return 12\n", "    return two"])
        again = own.encode_batch(["    return one(two): def\n"])
    asked = [word for call in encode.call_args_list for word in call.args[0]]
    assert sorted(asked) == sorted({"def", " one(two):", "\n", "    return", " ", "1", "2", " two", " def"})
    assert own.decode(again[0]) == "    return one(two): def\n"


def test_real_text_has_the_ids_of_sentencepiece_with_any_number_of_threads():
    texts = [Path(module.__file__).read_text() for module in (random, subprocess)] + ["日本語 の ▂", "é" * 300]
    expected = BPE._model.encode(texts)
    for tokenizer in (BPE, BY_WORDS):
        for tokenizer.threads in (1, 2):
            assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == expected


def test_characters_of_four_bytes_have_the_ids_of_sentencepiece():
    own = train_sentencepiece(["a😀b 😁😀 b😀😁😁 日😀本 " * 20], "bpe", 290)
    assert isinstance(own._fast, MergeEncoder)
    texts = ["😀", "a😀b", "😁😀😁 😂a🙃😀", "日😀日 本😂"]  # two of these are not in the vocabulary
    assert [ids.tolist() for ids in own.encode_batch(texts)] == own._model.encode(texts)
    assert {own._model.piece_to_id(each) for each in "😀😁"} <= set(own.encode(texts[2]))


def test_the_pieces_decide_whether_merges_alone_give_the_ids():
    made = [Piece("a", -3, NORMAL), Piece("ab", -1, NORMAL), Piece("b ", -2, NORMAL), Piece("\n", 0, USER_DEFINED)]
    assert can_encode(made) and can_encode([*made, Piece("<s>", 0, CONTROL)])
    for more, why in {
        Piece("bb", -2, NORMAL): "a score that two pieces share",
        Piece("bb", -9, UNUSED): "a piece that is taken apart again",
        Piece("<x>", 0, USER_DEFINED): "a symbol of several characters, found before any merge",
        Piece("\nb", -9, NORMAL): "a piece that goes on after a symbol of the user",
        Piece("ab", -9, NORMAL): "a piece that is there twice",
    }.items():
        assert not can_encode([*made, more]), why


@LOSSLESS
def test_a_lone_surrogate_is_refused(tokenizer):
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode("\ud800")


def test_newlines_tabs_and_digits_are_tokens_of_one_character():
    assert [BPE.decode([i]) for i in BPE.encode("\n\n\t1234")] == ["\n", "\n", "\t", "1", "2", "3", "4"]
    assert not any(BPE._model.is_byte(i) for i in BPE.encode("\n\t")), "they are symbols, not byte fallback"
    assert any(len(BPE.decode([i])) >= 8 for i in BPE.encode("            return"))  # indentation is one token


def test_joining_digits_is_an_option():
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


def test_the_character_tokenizer_has_one_token_per_character_and_counts_unknown_ones():
    tokenizer = CharacterTokenizer("\n abé😀")
    ids = tokenizer.encode("ab é😀\n")
    assert len(ids) == 6 and tokenizer.decode(ids) == "ab é😀\n"
    assert tokenizer.token_bytes()[ids].tolist() == [1, 1, 1, 2, 4, 1]
    ids = tokenizer.encode("aZ\U0010ffffb")
    assert ids.count(tokenizer.unk_id) == 2
    assert tokenizer.decode(ids) == "a\ufffd\ufffdb"
    ascii_only = CharacterTokenizer("".join(map(chr, range(128))))
    assert set(ascii_only.encode("".join(map(chr, range(128, 1000))))) == {ascii_only.unk_id}


def test_an_incomplete_character_is_replaced():
    assert BYTE.decode(BYTE.encode("é")[:1]) == "\ufffd"


@pytest.mark.parametrize("tokenizer", [BPE, BYTE, CharacterTokenizer("\nab é")], ids=["bpe", "byte", "char"])
def test_a_loaded_tokenizer_equals_the_saved_one(tokenizer, tmp_path):
    path = tokenizer.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    for where in (tmp_path, path):
        again = load(where)
        assert again.hash == tokenizer.hash and again.kind == tokenizer.kind
        assert again.encode("ab é\n") == tokenizer.encode("ab é\n")
    assert len({BPE.hash, BYTE.hash, CharacterTokenizer("ab").hash, CharacterTokenizer("ba").hash}) == 4


@pytest.mark.parametrize("kind, options, lossless", FOREIGN.values(), ids=FOREIGN)
def test_a_given_model_encodes_as_sentencepiece_does_and_text_is_decoded_unchanged(
    kind, options, lossless, monkeypatch
):
    tokenizer = sentencepiece_model(kind, **options)
    assert (tokenizer.kind, tokenizer.lossless) == (kind, lossless)
    monkeypatch.setattr(words, "BLOCK", 50)
    texts = hostile_corpus(seed=len(kind))
    assert len(texts) > 2000 and max(map(len, texts)) > 10_000
    changed = 0
    for text, ids, own in zip(texts, tokenizer.encode_batch(texts), tokenizer._model.encode(texts)):
        if "▁" not in text or not lossless:
            assert ids.tolist() == own, text
        changed += tokenizer.decode(ids) != text
    assert (changed == 0) is lossless
    assert lossless or any(tokenizer.decode(tokenizer.encode(text)) == text for text in ("a b", "def"))


def test_a_space_before_every_text_is_added_once():
    llama = sentencepiece_model("bpe", **LLAMA)
    assert llama.decode(llama.encode("a▁b")) == "a▁b" and llama.decode(llama.encode("▁ b")) == "▁ b"
    text = "a line of text\n\n" * 10_000
    assert llama.decode_bytes(llama.encode(text)) == b" " + text.encode(), "one space for the whole document"


def test_texts_for_unigram_models_are_not_cut():
    """Its sums are rounded: if a document of 300,000 characters were cut, some of its tokens would differ."""
    kind, options, _ = FOREIGN["unigram"]
    unigram = sentencepiece_model(kind, **{**options, "add_dummy_prefix": False})
    lines = random.Random(0).choices(TEXT.replace("▁", "").splitlines(keepends=True), k=8000)
    assert unigram.encode("".join(lines)) == unigram._model.encode("".join(lines))


def words_of(pieces, text):
    return word_pattern(pieces).findall(text)


def test_the_pieces_of_a_model_decide_where_its_words_end():
    assert words_of(["ab", " a", "   "], "ab ab  ba c1  ") == ["ab", " ab", "  ba", " ", "c", "1", "  "]
    assert words_of(["ab", "a b"], "ab ab\nb a") == ["ab ab", "\n", "b a"], "a token may contain a space"
    assert words_of(["a ", "b"], "a ab b") == ["a a", "b", " ", "b"], "or end with one"
    assert words_of(["ab", "\n\n"], "a\n\n\nb") == ["a", "\n\n\n", "b"]
    assert words_of(["ab", "\na"], "a\nb\n") == ["a\nb\n"], "or contain a newline"
    assert words_of([], "a  b") == ["a", "  ", "b"]
    assert words_of(["^a", "]-", "\\["], "^]-\\[a1") == ["^]-\\[a", "1"]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("tokenizer.model", b"junk", "not a readable tokenizer"),
        ("tokenizer.json", b"{", "not a readable tokenizer"),
        ("tokenizer.json", b'{"kind": "wordpiece"}', "not a readable tokenizer"),
        ("other.txt", b"", "holds neither tokenizer.model nor tokenizer.json"),
    ],
)
def test_an_unreadable_tokenizer_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load(tmp_path)


def test_a_missing_tokenizer_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder"):
        load(tmp_path / "nowhere")


def test_prepare_does_not_import_jax():
    code = "import sys, gptjax.prepare; sys.exit('jax' in sys.modules or 'grain' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
