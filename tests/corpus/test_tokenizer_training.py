from collections import Counter

import pytest

from gptjax.config import ConfigError
from gptjax.corpus.tokenizer_training import CHUNK, TextSample, train_bpe, train_characters

DOCUMENTS = [f"{i:04d} " + "word " * (100 + 37 * (i % 50)) for i in range(300)]


def sample(documents, size, seed=0):
    kept = TextSample(size, seed)
    for text in documents:
        kept.add(text)
    return list(kept)


def test_a_small_corpus_is_taken_whole():
    assert "".join(sample(DOCUMENTS[:20], 10**9)) == "".join(DOCUMENTS[:20])


def test_a_sample_is_bounded_seeded_and_from_everywhere():
    size = 40_000
    kept = sample(DOCUMENTS, size)
    assert size - CHUNK <= sum(map(len, kept)) <= size
    assert kept == sample(DOCUMENTS, size)
    assert kept != sample(DOCUMENTS, size, seed=1)
    whole = "".join(DOCUMENTS)
    places = [whole.find(text[:5]) / len(whole) for text in kept if text[:4].isdigit()]
    assert min(places) < 0.2 and max(places) > 0.8


def test_a_sample_does_not_depend_on_when_it_was_trimmed():
    """Bottom-k: what is kept is the lowest draws of the whole stream, whatever was thrown away on the way."""
    every = TextSample(10**9, 0)
    for text in DOCUMENTS:
        every.add(text)
    ranked = sorted(every._kept)
    kept = sample(DOCUMENTS, 20_000)
    lowest = {item[3] for item in ranked[: len(kept)]}
    assert set(kept) == lowest


def test_bpe_is_deterministic_and_of_the_size_asked_for():
    text = [f"{DOCUMENTS[i][:50]} {i * 7919 % 1000:b}ab{i % 7}cd" for i in range(300)]
    one, two = (train_bpe(text, 290, split_digits=False) for _ in range(2))
    assert one.hash == two.hash and one.vocab_size == 290


@pytest.mark.parametrize("size, message", [(5000, r"at most \d+ tokens are possible"), (270, r"at least \d+ tokens")])
def test_a_vocabulary_that_the_corpus_cannot_give(size, message):
    with pytest.raises(ConfigError, match=rf"vocab_size = {size}: .*{message}"):
        train_bpe(["the quick brown fox jumps over the lazy dog"], size)


def test_the_vocabulary_sizes_named_are_possible():
    text = ["the quick brown fox jumps over the lazy dog"]
    for size, word in ((5000, "at most "), (270, "at least ")):
        with pytest.raises(ConfigError) as error:
            train_bpe(text, size)
        possible = int(str(error.value).partition(word)[2].split()[0])
        assert train_bpe(text, possible).vocab_size == possible


def test_no_text_at_all():
    with pytest.raises(ConfigError, match="no text to learn a vocabulary from"):
        train_bpe([], 300)


def test_characters_all_or_the_most_frequent():
    counts = Counter("aaabbc\n")
    everything = train_characters(counts)
    assert everything.vocab_size == 9 + 4 and everything.decode(everything.encode("abc\n")) == "abc\n"
    two = train_characters(counts, 11)
    assert two.vocab_size == 11 and two.decode(two.encode("abc")) == "ab\ufffd"
    with pytest.raises(
        ConfigError, match="vocab_size = 14: this corpus has 4 characters, so 10 to 13 tokens are possible"
    ):
        train_characters(counts, 14)
