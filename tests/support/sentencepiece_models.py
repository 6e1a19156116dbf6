"""SentencePiece models of others' settings, trained here."""

import io
import sysconfig
from pathlib import Path

import sentencepiece

from gptjax.tokenizer import SentencePieceTokenizer

TEXT = (Path(sysconfig.get_path("stdlib")) / "argparse.py").read_text() + "Ünï ▁ 1234 café 日本語\r\n\tdone"


def sentencepiece_model(kind, **options):
    """A SentencePiece model that was trained by others."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=model,
        model_type=kind,
        vocab_size=600,
        hard_vocab_limit=False,
        minloglevel=3,
        **options,
    )
    return SentencePieceTokenizer(model.getvalue())


IDENTITY = dict(normalization_rule_name="identity", remove_extra_whitespaces=False)
LLAMA = dict(**IDENTITY, byte_fallback=True)
GEMMA = dict(**LLAMA, add_dummy_prefix=False, user_defined_symbols=["\n", "\n\n", "▁▁", "▁▁▁", "\t", "<x y>"])
FOREIGN = {  # name → (kind, options, whether it is lossless)
    "llama": ("bpe", LLAMA, True),
    "gemma": ("bpe", GEMMA, True),
    "unigram": ("unigram", LLAMA, True),
    "newlines within tokens": ("bpe", {**GEMMA, "user_defined_symbols": ["\n", "\nx", "\n\n"]}, True),
    "defaults": ("bpe", {}, False),
    "NMT's NFKC with bytes": ("unigram", dict(byte_fallback=True), False),
    "NFKC": ("bpe", {**LLAMA, "normalization_rule_name": "nfkc"}, False),
    "extra spaces removed": ("bpe", {**LLAMA, "remove_extra_whitespaces": True}, False),
    "no prefix, spaces removed": ("bpe", {**LLAMA, "remove_extra_whitespaces": True, "add_dummy_prefix": False}, False),
    "no bytes": ("bpe", IDENTITY, False),
    "no bytes, unigram": ("unigram", {**IDENTITY, "user_defined_symbols": ["\n"]}, False),
    "spaces as suffixes": ("bpe", {**LLAMA, "treat_whitespace_as_suffix": True}, False),
    "words": ("word", IDENTITY, False),
    "characters": ("char", LLAMA, True),
}
