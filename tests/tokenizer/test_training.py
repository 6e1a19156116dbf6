import os
from collections import Counter

import pytest

from gptjax.config import ConfigError
from gptjax.tokenizer.training import (
    BYTES_PER_TOKEN,
    CHUNK,
    LEAST_SIZE,
    train_characters,
    train_fitting,
    train_sentencepiece,
)

DOCUMENTS = [f"{i:04d} " + "word " * (100 + 37 * (i % 50)) for i in range(300)]
VARIED = [f"{DOCUMENTS[i][:50]} {i * 7919 % 1000:b}ab{i % 7}cd" for i in range(300)]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_training_is_deterministic_and_gives_the_requested_kind_and_size(kind, monkeypatch):
    def trained_with(cores):
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
        return train_sentencepiece(VARIED, kind, 290, split_digits=False)

    one, two = trained_with(cores=1), trained_with(cores=5)
    assert one.hash == two.hash and one.vocab_size == 290 and one.kind == kind


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_text_not_in_the_training_data_is_decoded_unchanged(kind):
    tokenizer = train_sentencepiece(VARIED, kind, 285)
    for text in ("\t tabs\r\n\n  spaces  ", "é中😀", "\u2581", "\0", "<s><|user|>", " 1984 "):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("size, message", [(5000, r"at most \d+ tokens are possible"), (270, r"at least \d+ tokens")])
def test_an_impossible_vocabulary_size_is_refused(size, message):
    with pytest.raises(ConfigError, match=rf"vocab_size = {size}: .*{message}"):
        train_sentencepiece(["the quick brown fox jumps over the lazy dog"], "bpe", size)


def test_the_vocabulary_sizes_named_in_errors_are_possible():
    text = ["the quick brown fox jumps over the lazy dog"]
    for size, word in ((5000, "at most "), (270, "at least ")):
        with pytest.raises(ConfigError) as error:
            train_sentencepiece(text, "bpe", size)
        possible = int(str(error.value).partition(word)[2].split()[0])
        assert train_sentencepiece(text, "bpe", possible).vocab_size == possible


WORDS = " ".join("".join(chr(97 + i * 57 // 26**k % 26) for k in range(4)) for i in range(8000))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize(
    "text, sizes",
    [
        ("a", range(260, 300)),  # fewer than LEAST_SIZE are possible
        ("".join(map(chr, range(0x4E00, 0x4E00 + 700))), range(900, 1100)),  # the characters alone take more
        ("the quick brown fox jumps over the lazy dog " * 300, range(270, LEAST_SIZE + 1)),
        (WORDS, [len(WORDS) // BYTES_PER_TOKEN]),
    ],
)
def test_the_default_vocabulary_size_fits_the_text(kind, text, sizes):
    tokenizer = train_fitting(lambda: [text[i : i + CHUNK] for i in range(0, len(text), CHUNK)], kind)
    assert tokenizer.vocab_size in sizes
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_an_empty_text_is_refused():
    with pytest.raises(ConfigError, match="no text to learn a vocabulary from"):
        train_sentencepiece([], "bpe", 300)


def test_a_character_vocabulary_has_all_or_the_most_frequent_characters():
    counts = Counter("aaabbc\n")
    everything = train_characters(counts)
    assert everything.vocab_size == 9 + 4 and everything.decode(everything.encode("abc\n")) == "abc\n"
    two = train_characters(counts, 11)
    assert two.vocab_size == 11 and two.decode(two.encode("abc")) == "ab\ufffd"
    with pytest.raises(
        ConfigError, match="vocab_size = 14: this corpus has 4 characters, so 10 to 13 tokens are possible"
    ):
        train_characters(counts, 14)
