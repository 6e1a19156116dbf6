"""Learning a vocabulary from a sample of the corpus: SentencePiece's BPE or unigram, or the characters that occur.

SentencePiece is made for one sentence a line. Fed so it never sees a newline and spends a byte token on each; here it
is given chunks of running text, with newline and tab as symbols of their own and scripts not split apart, which takes
about a fifth fewer tokens.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import sentencepiece

from gptjax.config import ConfigError
from gptjax.corpus.tokenizer import CONTROL_TOKENS, SPACE_MARK, CharacterTokenizer, SentencePieceTokenizer

CHUNK = 2000  # characters
SAMPLE_SCHEMA = pa.schema({"text": pa.large_string()})  # of files of chunks


def train_sentencepiece(
    chunks: Iterable[str], kind: str, vocab_size: int, split_digits: bool = True
) -> SentencePieceTokenizer:
    """A vocabulary of exactly `vocab_size` tokens, with byte fallback.

    kind: bpe (Sennrich et al., arXiv:1508.07909) or unigram (Kudo, arXiv:1804.10959).

    Raises:
      ConfigError: the text cannot give so many tokens, or so few do not hold its characters; says how many can.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            # '▁' would be learned as a space; the tokenizer encodes it as bytes.
            sentence_iterator=(chunk.replace(SPACE_MARK, " ") for chunk in chunks),
            model_writer=model,
            model_type=kind,
            vocab_size=vocab_size,
            # Lossless: text goes in and comes out as it is.
            normalization_rule_name="identity",
            byte_fallback=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            # What may become a token.
            user_defined_symbols=["\n", "\t"],
            split_by_unicode_script=False,
            split_digits=split_digits,
            **dict(zip(("unk_id", "bos_id", "eos_id", "pad_id"), range(4))),
            control_symbols=list(CONTROL_TOKENS[4:]),
            max_sentence_length=4 * CHUNK + 1,  # bytes; longer chunks would be dropped
            num_threads=2,  # a constant: the model file records it, and unigram's vocabulary depends on it
            minloglevel=3,
        )
    except RuntimeError as error:
        raise ConfigError(f"vocab_size = {vocab_size}: {_explain(str(error))}") from error
    return SentencePieceTokenizer(model.getvalue())


def _explain(message: str) -> str:
    if most := re.search(r"Vocabulary size too high.*<= (\d+)", message):
        return f"larger than this corpus can give, at most {most[1]} tokens are possible"
    if fewest := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return f"too small for the characters of this corpus, at least {fewest[1]} tokens are needed"
    if "sentences_.empty()" in message:
        return "there is no text to learn a vocabulary from"
    return f"SentencePiece cannot train ({message})"


def train_characters(counts: Counter[str], vocab_size: int = 0) -> CharacterTokenizer:
    """The alphabet of a corpus, in code-point order; with `vocab_size` its most frequent characters only.

    Raises:
      ConfigError: `vocab_size` is larger than the control tokens and the corpus's characters together.
    """
    possible = len(CONTROL_TOKENS) + len(counts)
    vocab_size = vocab_size or possible
    if not len(CONTROL_TOKENS) < vocab_size <= possible:
        raise ConfigError(
            f"vocab_size = {vocab_size}: this corpus has {len(counts)} characters, so {len(CONTROL_TOKENS) + 1} to "
            f"{possible} tokens are possible ({len(CONTROL_TOKENS)} of them control tokens); 0 takes all"
        )
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    return CharacterTokenizer("".join(sorted(ranked[: vocab_size - len(CONTROL_TOKENS)])))
