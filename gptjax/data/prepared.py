"""The format of a prepared folder, which corpus/ writes and data/ reads: file names, token type, hashes, manifest,
checks.

manifest.json             written last: a folder without it is unfinished
tokenizer.model | .json
train-00000.bin …         little-endian uint16 (vocabulary up to 65,536) or uint32 tokens; shards may cut a document
train.documents.npy       uint64 offsets [num_documents + 1] into the split's tokens; each document ends with EOS, and
                          with tokens.bos begins with BOS
train.labels.npy          int32 [num_documents] (form "labelled"): the number of each document's label in the manifest
validation.pairs.jsonl    (form "pairs") the held-out pairs as text: source, and targets, which are all its references
train.supervised.bin      (forms SUPERVISED) a bit per token, eight to a byte, the first in the lowest place: 1
                          if the assistant wrote the token
train.origins.npy         [num_documents] which document of which part of the corpus each one is, if known
validation-00000.bin …    the same for validation; and test-00000.bin …, if there is a test split

In a folder of pairs (form "pairs") the documents are source, target, source, target …, and there is a
source_tokenizer.model if the sources have their own tokenizer. In a folder of preferences they are prompt, chosen
answer, prompt, rejected answer, prompt … In one of preferences in conversations (form "chat_preferences") they are the
conversation with the chosen answer, that with the rejected one …
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from gptjax.config import ConfigError
from gptjax.data.manifest_check import check_manifest
from gptjax.data.verified import hash_once
from gptjax.files import file_hash
from gptjax.files.json_files import parsed

FORMAT = 2
MANIFEST = "manifest.json"
SPLITS = ("train", "validation", "test")
# The form in a manifest; text if the field is missing.
FORMS = ("text", "pairs", "labelled", "preferences", "conversations", "chat_preferences")
SUPERVISED = ("conversations", "chat_preferences")  # forms with a bit for each token
SOURCE_PREFIX = "source_"  # prefix of the file of a second tokenizer, for the sources of pairs


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest little-endian integer type that holds every token id."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def shard_name(split: str, index: int) -> str:
    return f"{split}-{index:05d}.bin"


def offsets_name(split: str) -> str:
    return f"{split}.documents.npy"


def origins_name(split: str) -> str:
    return f"{split}.origins.npy"


def labels_name(split: str) -> str:
    return f"{split}.labels.npy"


def supervised_name(split: str) -> str:
    return f"{split}.supervised.bin"


def pairs_name(split: str) -> str:
    return f"{split}.pairs.jsonl"


def read_manifest(folder: str | Path) -> dict:
    """The manifest of a finished prepared folder.

    Raises:
      ConfigError: the folder is missing, empty, unfinished, or of a format that this version does not read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"data.path = {str(folder)!r}: no such folder (python -m gptjax.prepare makes one)")
    path = folder / MANIFEST
    if not path.exists():
        state = "an unfinished prepared folder" if any(folder.glob("*.bin*")) else "not a prepared folder"
        raise ConfigError(f"data.path = {str(folder)!r}: {state}, no {MANIFEST} (python -m gptjax.prepare makes one)")
    again = "prepare the folder again with --overwrite"
    manifest = parsed(path.read_bytes(), str(path), again)
    if "format" not in manifest:
        raise ConfigError(f"{path} is not the manifest of a prepared folder: it has no 'format'; {again}")
    version = manifest["format"]
    if type(version) is not int or version != FORMAT:
        raise ConfigError(f"{path}: has format {version}, this version reads format {FORMAT}: {again}")
    try:
        check_manifest(manifest, str(path))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return manifest


def split_files(manifest: dict, split: str) -> list[dict]:
    """The entries (name, size, hash) of a split's shards and document offsets, and of the tokenizer's file."""
    section = manifest["splits"][split]
    more = [section[name] for name in ("pairs", "labels", "supervised") if name in section]
    tokenizers = [manifest[name]["file"] for name in ("tokenizer", "source_tokenizer") if name in manifest]
    return [*section["shards"], section["offsets"], *more, *tokenizers]


def check_files(folder: str | Path, files: list[dict], verify: bool) -> None:
    """Compares files with their manifest entries: always their sizes, and with `verify` also their hashes, once.

    Raises:
      ConfigError: a file is missing, truncated or altered; the message names the file and both values.
    """
    for entry in files:
        path = Path(folder) / entry["name"]
        if not path.is_file():
            raise ConfigError(f"{path}: missing, but {MANIFEST} lists it: prepare the folder again")
        if (size := path.stat().st_size) != entry["size"]:
            raise ConfigError(f"{path}: {size} bytes, but {MANIFEST} says {entry['size']}: truncated or altered")
    if verify:
        hash_once(Path(folder), files, functools.partial(_check_hash, Path(folder)))


def _check_hash(folder: Path, entry: dict) -> None:
    if (digest := file_hash(folder / entry["name"])) != entry["hash"]:
        raise ConfigError(f"{folder / entry['name']}: hash {digest}, but {MANIFEST} says {entry['hash']}: altered")
