"""Learns a vocabulary from a sample of the corpus: SentencePiece's BPE or unigram, or the characters that occur.

SentencePiece is made for one sentence per line. Used that way, it never sees a newline and needs a byte token for each.
Here it gets chunks of running text, newline and tab are symbols, and scripts are not split apart; texts then need about
a fifth fewer tokens.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable

import sentencepiece

from gptjax.config import ConfigError
from gptjax.tokenizer.bytes_and_characters import CharacterTokenizer
from gptjax.tokenizer.interface import CONTROL_TOKENS
from gptjax.tokenizer.sentencepiece_model import SPACE_MARK, SentencePieceTokenizer

CHUNK = 2000  # characters
# The size of the vocabulary, if the user does not set one:
DEFAULT_SIZE = 8192
LEAST_SIZE = 512
BYTES_PER_TOKEN = 32  # bytes of text per token of the vocabulary


def train_sentencepiece(
    chunks: Iterable[str], kind: str, vocab_size: int, split_digits: bool = True
) -> SentencePieceTokenizer:
    """Learns a vocabulary of exactly `vocab_size` tokens, with byte fallback.

    kind: bpe (Sennrich et al., arXiv:1508.07909) or unigram (Kudo, arXiv:1804.10959).

    Raises:
      ConfigError: `vocab_size` is too large for the text, or too small for its characters; the message says the limit.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            # '▁' would be learned as a space; the tokenizer encodes it as bytes.
            sentence_iterator=(chunk.replace(SPACE_MARK, " ") for chunk in chunks),
            model_writer=model,
            model_type=kind,
            vocab_size=vocab_size,
            # These settings make the tokenizer lossless.
            normalization_rule_name="identity",
            byte_fallback=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            # These settings decide what may become a token.
            user_defined_symbols=["\n", "\t"],
            split_by_unicode_script=False,
            split_digits=split_digits,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            control_symbols=list(CONTROL_TOKENS[4:]),
            max_sentence_length=4 * CHUNK + 1,  # bytes; longer chunks would be dropped
            num_threads=2,  # a constant: the model file records it, and unigram's vocabulary depends on it
            minloglevel=3,
        )
    except RuntimeError as error:
        raise _explained(str(error), vocab_size) from error
    return SentencePieceTokenizer(model.getvalue())


class ImpossibleSize(ConfigError):
    """A vocabulary size that is impossible for the text; `nearest` is the nearest possible size."""

    nearest: int


def _explained(message: str, vocab_size: int) -> ConfigError:
    if most := re.search(r"Vocabulary size too high.*<= (\d+)", message):
        why = f"larger than this corpus can give, at most {most[1]} tokens are possible"
        return _impossible(vocab_size, why, int(most[1]))
    if fewest := re.search(r"required_chars\. \d+ vs (\d+)", message):
        why = f"too small for the characters of this corpus, at least {fewest[1]} tokens are needed"
        return _impossible(vocab_size, why, int(fewest[1]))
    if "sentences_.empty()" in message:
        return ConfigError(f"tokenizer.vocab_size = {vocab_size}: there is no text to learn a vocabulary from")
    return ConfigError(f"tokenizer.vocab_size = {vocab_size}: SentencePiece cannot train ({message})")


def _impossible(vocab_size: int, why: str, nearest: int) -> ImpossibleSize:
    error = ImpossibleSize(f"tokenizer.vocab_size = {vocab_size}: {why}")
    error.nearest = nearest
    return error


def train_fitting(chunks: Callable[[], Iterable[str]], kind: str, split_digits: bool = True) -> SentencePieceTokenizer:
    """Learns a vocabulary whose size fits the text: DEFAULT_SIZE tokens if there is enough text to see each token a few
    times, fewer for a small text, and at least the number that its characters need.

    chunks: returns the text, each time from its beginning.

    Raises:
      ConfigError: there is no text.
    """
    size = sum(len(chunk.encode()) for chunk in chunks()) // BYTES_PER_TOKEN
    size = min(max(size, LEAST_SIZE), DEFAULT_SIZE)
    for _ in range(2):  # the size may first be too large for the text, and then too small for its characters
        try:
            return train_sentencepiece(chunks(), kind, size, split_digits)
        except ImpossibleSize as error:
            size = error.nearest
    return train_sentencepiece(chunks(), kind, size, split_digits)


def train_characters(counts: Counter[str], vocab_size: int = 0) -> CharacterTokenizer:
    """Makes the alphabet of a corpus, in code-point order; with `vocab_size` only its most frequent characters.

    Raises:
      ConfigError: `vocab_size` does not exceed the control tokens, or exceeds them and the characters together.
    """
    possible = len(CONTROL_TOKENS) + len(counts)
    vocab_size = vocab_size or possible
    if not len(CONTROL_TOKENS) < vocab_size <= possible:
        raise ConfigError(
            f"tokenizer.vocab_size = {vocab_size}: this corpus has {len(counts)} characters, so "
            f"{len(CONTROL_TOKENS) + 1} to {possible} tokens are possible ({len(CONTROL_TOKENS)} of them control "
            "tokens); 0 takes all"
        )
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    return CharacterTokenizer("".join(sorted(ranked[: vocab_size - len(CONTROL_TOKENS)])))
