"""Tokenizers made by the `tokenizers` library with the settings of well-known models, and learned from little text."""

import json

import tokenizers
from sentencepiece_models import TEXT
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

# Words, at most three digits, punctuation with line ends: Llama 3's expression; Qwen's has one digit.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(regex, special, size=700):
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=regex == WORDS))
    if regex is None:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        split = pre_tokenizers.Split(Regex(regex), "isolated", invert=False)
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([TEXT], trainer)
    made.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    return made


def gpt2():
    return _byte_level(None, ["<|endoftext|>"]), {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}


def llama3():
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    return _byte_level(WORDS, special), {
        "bos_token": "<|begin_of_text|>",
        "eos_token": {"__type": "AddedToken", "content": "<|end_of_text|>", "lstrip": False},
    }


def qwen():
    made = _byte_level(WORDS.replace("{1,3}", ""), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    made.normalizer = normalizers.NFC()
    made.add_tokens([AddedToken("<think>", normalized=False, special=False)])
    return made, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None}


def _with_byte_tokens(model_of, prefix):
    """Byte tokens, and '▁' for a space, as models have that were converted from SentencePiece."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learned = tokenizers.Tokenizer(models.BPE())
    learned.normalizer = normalizers.Replace(" ", "▁")
    learned.train_from_iterator([TEXT[:4000]], trainers.BpeTrainer(vocab_size=300, show_progress=False))
    model = json.loads(learned.to_str())["model"]
    made = tokenizers.Tokenizer(model_of([*names, *(name for name in model["vocab"] if name not in names)], model))
    steps = [normalizers.Prepend("▁")] if prefix else []
    made.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    made.add_special_tokens([AddedToken(name, normalized=False) for name in names[:3]])
    return made, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def _bpe(names, model):
    merges = [tuple(merge) for merge in model["merges"]]
    ids = {name: i for i, name in enumerate(names)}
    return models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)


def llama2():
    return _with_byte_tokens(_bpe, prefix=True)


def gemma():
    return _with_byte_tokens(_bpe, prefix=False)


def unigram():
    return _with_byte_tokens(
        lambda names, model: models.Unigram([(name, -float(i)) for i, name in enumerate(names)], 0, byte_fallback=True),
        prefix=False,
    )


MADE = {made.__name__: made for made in (gpt2, llama3, qwen, llama2, gemma)}


def write_folder(folder, make):
    """Writes tokenizer.json and tokenizer_config.json, and returns the tokenizer of the library."""
    made, settings = make()
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return made
