"""Tokenizers of Hugging Face: a tokenizer.json, read by the `tokenizers` library, as a kind of tokenizer here.

These are the byte-level BPE of GPT-2, Llama 3 and Qwen, and the models with byte tokens of Llama 2, Mistral and Gemma.
The ids are those of `transformers` for a text without special tokens, with one difference: the name of a control token
within a text stays text. A tokenizer whose tokens do not stand for fixed bytes, such as WordPiece, is refused.

tokenizer.json does not say which token ends a text. This is read from the files beside it: tokenizer_config.json,
special_tokens_map.json, or by its id in config.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from gptjax.config import ConfigError
from gptjax.files.json_files import parsed
from gptjax.tokenizer.byte_level import BYTES
from gptjax.tokenizer.interface import REPLACEMENT, Tokenizer

KIND = "huggingface"
FILE_NAME = "tokenizer.json"
SPECIAL = ("bos", "eos", "pad")
MOST_TOKENS = 1 << 24  # a larger id is a damaged file
_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")
_DAMAGED = "must be a tokenizer.json of the `tokenizers` library"


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer of the `tokenizers` library.

    Args:
      content: the content of a tokenizer.json.
      special: the names of the tokens 'bos', 'eos' and 'pad', those that there are; 'eos' is needed.

    Raises:
      ConfigError: the library cannot read it, or a part of it has no meaning here; the message names the part.
    """

    kind = KIND
    file_name = FILE_NAME
    libraries = ("tokenizers",)

    def __init__(self, content: Mapping[str, Any], special: Mapping[str, str]):
        # Texts are encoded whole; nothing is cut or filled up.
        self._content = {**content, "truncation": None, "padding": None}
        self._content.setdefault("added_tokens", [])
        self._special = {name: special[name] for name in SPECIAL if name in special}
        _check_model(self._content)
        self._tokenizer = _read(self._content)
        self._tokenizer.encode_special_tokens = True  # names of control tokens in a text are text
        added = self._tokenizer.get_added_tokens_decoder()
        names = {i: name for name, i in self._tokenizer.get_vocab(with_added_tokens=True).items()}
        size = max(names, default=-1) + 1
        if not 0 < size <= MOST_TOKENS:
            raise ConfigError(f"tokenizer: an id of {size - 1:,} tokens: {_DAMAGED}")
        value_of, self.first_bytes = _decoding(self._content)
        values = [b""] * size
        for i, name in names.items():
            values[i] = name.encode() if i in added else value_of(name)
        controls = {token.content: i for i, token in sorted(added.items()) if token.special}
        known = {token: i for i, token in names.items()}
        if missing := [name for name, token in self._special.items() if token not in known]:
            raise ConfigError(
                f"tokenizer: {missing[0]}_token = {self._special[missing[0]]!r}: the vocabulary has no such token"
            )
        ids = {name: known[token] for name, token in self._special.items()}
        for i in (*controls.values(), *ids.values()):
            values[i] = b""
        controls |= {token: ids[name] for name, token in self._special.items()}
        unknown = self._unknown_id()
        if unknown is not None and unknown not in ids.values():  # GPT-2's is the end of a text, and never needed
            values[unknown] = REPLACEMENT
            ids["unk"] = unknown
        saved = {"kind": KIND, "special": self._special, "tokenizer": self._content}
        super().__init__(json.dumps(saved, ensure_ascii=False).encode(), values, controls)
        # Their names are the file's own; a token named </s> need not be the end of a text.
        self.unk_id, self.bos_id, self.eos_id, self.pad_id = map(ids.get, ("unk", *SPECIAL))
        self._check_no_text_is_a_control_token()
        self.lossless = _is_lossless(self._content, values)

    @property
    def content(self) -> dict[str, Any]:
        """The tokenizer.json, without the names of special tokens."""
        return self._content

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        try:
            if self.threads == 1:  # without the library's threads
                encoded: Iterable[Any] = (self._tokenizer.encode(text, add_special_tokens=False) for text in texts)
            else:
                encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
            return [np.array(each.ids, np.int32) for each in encoded]
        except TypeError:
            for text in texts:
                text.encode()  # says what is wrong with a lone surrogate
            raise

    def with_controls(self, names: Sequence[str]) -> HuggingFaceTokenizer:
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        more = [{"id": self.vocab_size + i, "content": name, **plain} for i, name in enumerate(names)]
        added = [*self._content["added_tokens"], *more]
        return HuggingFaceTokenizer({**self._content, "added_tokens": added}, self._special)

    def _check_no_text_is_a_control_token(self) -> None:
        """Raises ConfigError if the model itself finds a control token in a text, as Unigram models can."""
        of_text = {self.unk_id}
        for name, i in self.control_ids.items():
            if i not in of_text and any(i in ids for ids in self.encode_batch([name, f" {name}", f"a{name}b"])):
                raise ConfigError(
                    f"tokenizer: model.type = {self._content['model'].get('type')!r}: the text {name!r} would become "
                    "the control token of that name"
                )

    def _unknown_id(self) -> int | None:
        """The token for text without tokens."""
        model = self._content["model"]
        if model.get("type") == "Unigram":
            return model.get("unk_id")
        return None if model.get("unk_token") is None else self._tokenizer.token_to_id(model["unk_token"])


def from_saved(fields: Mapping[str, Any]) -> HuggingFaceTokenizer:
    """The tokenizer from the content of a file that `save` wrote."""
    return HuggingFaceTokenizer(fields["tokenizer"], fields["special"])


def from_theirs(content: Mapping[str, Any], folder: Path) -> HuggingFaceTokenizer:
    """The tokenizer of a tokenizer.json. folder: that of the files beside it, which name the special tokens.

    Raises:
      ConfigError: no file says which token ends a text, or one of them is damaged.
    """
    return HuggingFaceTokenizer(content, _special_names(content, folder))


def _special_names(content: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """'bos' → the name of that token, and so on, from the first file that says so."""
    found: dict[str, str] = {}
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        for name, token in _beside(folder / file).items():
            short = name.removesuffix("_token")
            text = token.get("content") if isinstance(token, Mapping) else token
            if name.endswith("_token") and short in SPECIAL and isinstance(text, str) and text:
                found.setdefault(short, text)
    added = [token for token in content.get("added_tokens") or () if isinstance(token, Mapping)]
    names = {token.get("id"): token.get("content") for token in added}
    settings = _beside(folder / "config.json")
    for short in SPECIAL:
        stated = settings.get(f"{short}_token_id")
        token = stated[0] if isinstance(stated, list) and stated else stated
        if short not in found and isinstance(token, int) and isinstance(called := names.get(token), str):
            found[short] = called
    if "eos" not in found:
        special = [
            token["content"] for token in added if token.get("special") and isinstance(token.get("content"), str)
        ]
        if len(special) != 1:
            raise ConfigError(
                f"tokenizer: {folder / FILE_NAME} has {len(special)} special tokens, and no file beside it says which "
                "of them ends a text: put tokenizer_config.json there, with eos_token"
            )
        found["eos"] = special[0]
    return found


def _beside(path: Path) -> dict[str, Any]:
    return parsed(path.read_bytes(), str(path), "download it again") if path.is_file() else {}


def _read(content: Mapping[str, Any]) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(content, ensure_ascii=False))
    except BaseException as error:  # errors of the library's Rust code are no `Exception`
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise ConfigError(f"tokenizer: {_DAMAGED}; it says: {str(error)[:200]}") from None


def _check_model(content: Mapping[str, Any]) -> None:
    """Raises ConfigError for a model that is none of those whose tokens stand for fixed bytes."""
    model = content.get("model")
    if not isinstance(model, Mapping) or not isinstance(content.get("added_tokens", []), list):
        raise ConfigError(f"tokenizer: {_DAMAGED}")
    # Old files leave out the type.
    if (kind := model.get("type", "BPE")) not in ("BPE", "Unigram"):
        raise ConfigError(f"tokenizer: model.type = {kind!r}: must be BPE or Unigram")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise ConfigError(f"tokenizer: model.{name} = {model[name]!r}: must be null")


def _parts(content: Mapping[str, Any], name: str, of: str) -> list[Mapping[str, Any]]:
    """The steps of a part of the file, such as its normalizer; `of`: the key of the steps of a sequence."""
    part = content.get(name)
    if part is None:
        return []
    if part.get("type") == "Sequence":
        return [step for each in part[of] for step in _parts({name: each}, name, of)]
    return [part]


def _decoding(content: Mapping[str, Any]) -> tuple[Any, bytes]:
    """(a token's name → the bytes that it stands for, the bytes that decoding removes from the beginning of a text)."""
    steps = _parts(content, "decoder", "decoders")
    replaced: list[tuple[str, str]] = []
    by_bytes, by_level, first = False, False, b""
    for step in steps:
        kind, pattern = step.get("type"), step.get("pattern", {})
        if kind == "ByteLevel":
            by_level = True
        elif kind == "ByteFallback":
            by_bytes = True
        elif kind == "Replace" and isinstance(pattern.get("String"), str):
            replaced.append((pattern["String"], step["content"]))
        elif kind == "Metaspace":
            replaced.append((step["replacement"], " "))
            first = b" " if step.get("prepend_scheme", "always") != "never" else first
        elif kind == "Strip" and step.get("stop") == 0 and len(step.get("content", "")) == 1:
            first = step["content"].encode() * step["start"]
        elif kind != "Fuse":
            raise ConfigError(f"tokenizer: decoder {kind!r}: its tokens do not stand for fixed bytes")
    if not steps:
        raise ConfigError("tokenizer: decoder = null: its tokens do not stand for fixed bytes")

    def value(name: str) -> bytes:
        if by_level:
            return bytes(BYTES[c] for c in name) if all(c in BYTES for c in name) else name.encode()
        if by_bytes and (byte := _BYTE_TOKEN.fullmatch(name)):
            return bytes([int(byte[1], 16)])
        for old, new in replaced:
            name = name.replace(old, new)
        return name.encode()

    return value, first


def _is_lossless(content: Mapping[str, Any], values: Sequence[bytes]) -> bool:
    """Whether every text is decoded exactly, as far as the parts of the file show: it may be, if this is False."""
    model = content["model"]
    if len({value for value in values if len(value) == 1}) < 256:
        return False  # a text may have bytes without a token
    if any(step.get("type") != "Prepend" for step in _parts(content, "normalizer", "normalizers")):
        return False
    for step in _parts(content, "pre_tokenizer", "pretokenizers"):
        removes = step.get("behavior", "Isolated") == "Removed"
        if step.get("type") not in ("ByteLevel", "Split", "Digits", "Punctuation") or removes:
            return False
        if step.get("add_prefix_space"):
            return False
    if any(token.get("lstrip") or token.get("rstrip") for token in content["added_tokens"] if not token.get("special")):
        return False
    by_level = any(step["type"] == "ByteLevel" for step in _parts(content, "pre_tokenizer", "pretokenizers"))
    return by_level or bool(model.get("byte_fallback"))
