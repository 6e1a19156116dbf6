"""manifest.json: what a prepared folder holds and how it was made. Written last: a folder with it is finished."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptjax.config import ConfigError
from gptjax.corpus.forms import PAIRS, TEXT
from gptjax.corpus.libraries import changes, installed
from gptjax.data.manifest_check import hash_of_manifest
from gptjax.data.prepared import (
    FORMAT,
    MANIFEST,
    SOURCE_PREFIX,
    check_files,
    read_manifest,
    split_files,
    token_dtype,
)
from gptjax.display.differences import differences, with_lines
from gptjax.display.formatting import counted
from gptjax.files import file_entry, write_aside
from gptjax.tokenizer import Tokenizer

WORK = "work"  # where the stages' folders are
PACKAGES = (  # their versions affect what is made
    *("gptjax", "numpy", "scipy", "pyarrow", "sentencepiece", "tokenizers", "ftfy", "py3langid"),
    *("trafilatura", "lxml", "resiliparse", "fastwarc", "pypdf"),
)
OURS = re.compile(
    r"(manifest\.json|card\.md|public_summary\.md|domains\.csv|card_\w+\.png|(source_)?tokenizer\.(model|json)|\w+-\d{5,}\.bin|documents-\d{5,}\.parquet|\w+\.(documents|origins|labels)\.npy|\w+\.pairs\.jsonl|\w+\.supervised\.bin)(\.tmp)?|"
    + WORK
)


def make_manifest(
    folder: Path,
    *,
    options: dict,
    tokenizer: Tokenizer,
    splits: dict,
    form: str = TEXT,
    source_tokenizer: Tokenizer | None = None,
    bos: bool = False,
    change: Sequence[str] | None = None,
    **more: Any,
) -> dict:
    """The manifest of a folder whose shards and tokenizer are already in place.

    Args:
      change: the first text that decoding its tokens does not restore, and what it becomes; None: all are restored.
      options: what the output depends on; `finished` compares them.
      form: the form of the documents (forms.py). source_tokenizer: that of the sources of pairs, if they have one.
      bos: whether every document begins with BOS; otherwise it follows the EOS of the document before.
      more: further sections.
    """
    own = None
    if source_tokenizer is not None:
        own = _section(source_tokenizer, bos, None, folder / f"{SOURCE_PREFIX}{source_tokenizer.file_name}")
    return {
        "format": FORMAT,
        **({} if form == TEXT else {"form": form}),
        "splits": splits,
        "dtype": token_dtype(max(each.vocab_size for each in (tokenizer, source_tokenizer or tokenizer))).name,
        "tokenizer": _section(tokenizer, bos, change, folder / tokenizer.file_name),
        **({} if own is None else {"source_tokenizer": own}),
        **more,
        "options": options,
        "versions": {"python": platform.python_version(), **versions()},
    }


def _section(tokenizer: Tokenizer, bos: bool, change: Sequence[str] | None, file: Path) -> dict:
    return {
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "hash": tokenizer.hash,
        "eos_id": tokenizer.eos_id,
        "begin_id": tokenizer.bos_id if bos else tokenizer.eos_id,
        "lossless": tokenizer.lossless,
        "change": change,
        "file": file_entry(file),
    }


def change_text(manifest: dict) -> str:
    """A sentence on documents that the tokenizer changes; '' if decoding restores every document."""
    count = sum(section.get("changed_documents", 0) for section in manifest["splits"].values())
    if not count:
        return ""
    was, becomes = manifest["tokenizer"]["change"]
    return f"the tokenizer changes the text of {counted(count, 'document')}, for example {was!r} to {becomes!r}"


def supervised_text(manifest: dict) -> str:
    """A sentence on the share of tokens that the assistant wrote; '' if the corpus has no conversations."""
    if "template" not in manifest:
        return ""
    shares = (
        f"{split} {section['supervised']['tokens']:,} of {section['tokens']:,}"
        for split, section in manifest["splits"].items()
    )
    return f"template {manifest['template']['name']}; tokens that the assistant wrote: {', '.join(shares)}"


def shared_texts(manifest: dict) -> list[str]:
    """A sentence on each held-out split that shares sources or documents with training, as the given files do."""
    sides, what, shared = 1, "document", "with a text that is also"
    if manifest.get("form") == PAIRS:
        sides, what, shared = 2, "pair", "with a source that is also"
    return [
        f"{split}: {count:,} of {counted(manifest['splits'][split]['documents'] // sides, what)}, {shared} in the "
        "training split; they stay where the given files have them"
        for split, count in manifest.get("shared_with_training", {}).items()
        if count
    ]


def places_text(manifest: dict, reason: str) -> str:
    """'reviews.csv:17, reviews.csv:90, …': the first rows that were skipped for a reason; '' if they are unknown."""
    places = manifest.get("skipped_at", {}).get(reason, [])
    return ", ".join([*places, *(["…"] if 0 < len(places) < manifest["skipped"][reason] else [])])


def versions() -> dict[str, str]:
    """The versions of those PACKAGES that are installed."""
    return {package: number for package in PACKAGES if (number := installed(package)) is not None}


def other_versions(manifest: dict) -> str:
    """Libraries that decided what is in a finished folder and have another version here, with both; '' for none."""
    stages = manifest.get("stages", {}).values()
    return changes({name: number for stage in stages for name, number in stage.get("libraries", {}).items()})


def write_manifest(folder: Path, manifest: dict) -> None:
    """Writes the manifest, with a hash of itself, into its folder; all files that it names must be there."""
    manifest["hash"] = hash_of_manifest(json.loads(json.dumps(manifest)))
    with write_aside(folder / MANIFEST) as file:
        file.write((json.dumps(manifest, indent=1) + "\n").encode())


def finished(folder: Path, options: dict, overwrite: bool) -> dict | None:
    """The manifest, if `folder` is already finished with these options; None if there is work to do.

    Raises:
      ConfigError: the folder is finished with other options and may not be overwritten, or holds files that do not
        belong to a prepared folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output={folder}: is a file, not a folder")
    present = [path.name for path in sorted(folder.iterdir())] if folder.exists() else []
    if foreign := [name for name in present if not OURS.fullmatch(name)]:
        raise ConfigError(f"--output={folder}: holds {foreign[0]!r}; choose a new folder for prepared data")
    if MANIFEST not in present or overwrite:
        return None
    manifest = read_manifest(folder)
    wanted = json.loads(json.dumps(options))
    if found := {
        field: values
        for name in {**wanted, **manifest["options"]}
        for field, values in differences(manifest["options"].get(name), wanted.get(name), f"{name}.").items()
    }:
        sentence = f"--output={folder}: was prepared with other options; choose another folder, or give --overwrite"
        raise ConfigError(with_lines(sentence, found))
    for split in manifest["splits"]:
        check_files(folder, split_files(manifest, split), verify=False)
    return manifest


def clear(folder: Path, keep: Sequence[str] = ()) -> None:
    """Deletes the output of an earlier or unfinished run, except files named in `keep` and the stages' folders."""
    present = [path for path in folder.iterdir() if OURS.fullmatch(path.name) and path.name not in (WORK, *keep)]
    # The manifest is deleted first: without it the rest counts as unfinished.
    for path in sorted(present, key=lambda path: path.name != MANIFEST):
        path.unlink()
