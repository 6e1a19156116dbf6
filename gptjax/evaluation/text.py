"""Scores of whole texts: perplexity, bits per byte, and the fraction of tokens that are the model's most likely ones.

A document is scored as in training: after the begin token, with the EOS token at its end. A document longer than the
context is read in windows that overlap by half a context. Every token is scored once: in the first window from its
beginning on, in later windows after at least half a context. Documents belong to domains: the domain of a file is its
folder, and the domain of a document in a prepared folder is its source.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from rich.table import Table

from gptjax.config import ConfigError
from gptjax.data.prepared import MANIFEST, origins_name, read_manifest
from gptjax.data.tokens import TokenSource
from gptjax.evaluation.loglikelihood import Continued, LogLikelihoods
from gptjax.evaluation.perplexity import bits_per_byte, perplexity
from gptjax.evaluation.tasks.records import Records
from gptjax.tokenizer import Tokenizer

SPLIT = "validation"
AT_ONCE = 1 << 20  # tokens scored between two records
SUMS = ("nats", "hits", "tokens", "bytes")
OPTION = "--text"


@dataclass(frozen=True)
class TextDocument:
    """domain: folder or source; ids: the text's tokens, without the begin token and EOS."""

    domain: str
    ids: np.ndarray


def documents_of(path: Path, tokenizer: Tokenizer) -> Iterator[TextDocument]:
    """The documents of a prepared folder's validation split, of a folder of text files, or of one file: all of its
    text, or the `text` of each line of a .jsonl file.

    Raises:
      ConfigError: there are no texts, they cannot be read, or they were prepared with another tokenizer.
    """
    if (path / MANIFEST).exists():
        yield from _of_prepared(path, tokenizer)
        return
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{OPTION}={path}: must hold text files; it is empty")
    for file in files:
        for text in _texts(file):
            yield TextDocument(file.parent.name, np.asarray(tokenizer.encode(text), np.int32))


def _texts(file: Path) -> list[str]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{OPTION}={file}: must be a file or folder that can be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{OPTION}={file}: must be UTF-8 text ({error})") from None
    if file.suffix != ".jsonl":
        return [text] if text else []
    texts = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{OPTION}={file}: line {number} must be a JSON object ({error})") from None
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise ConfigError(f"{OPTION}={file}: line {number} must be a JSON object with a string 'text'")
            texts += [row["text"]] if row["text"] else []
    return texts


def _of_prepared(folder: Path, tokenizer: Tokenizer) -> Iterator[TextDocument]:
    source, manifest = TokenSource(folder, SPLIT), read_manifest(folder)
    if source.tokenizer_hash != tokenizer.hash:
        raise ConfigError(
            f"{OPTION}={folder}: must be prepared with the run's tokenizer, {tokenizer.hash}; it was with "
            f"{source.tokenizer_hash}"
        )
    offsets = source.document_offsets().astype(np.int64)
    path = folder / origins_name(SPLIT)
    parts = np.load(path, mmap_mode="r")["part"] if path.is_file() else None
    for number, (begin, end) in enumerate(itertools.pairwise(offsets)):
        domain = folder.name if parts is None else manifest["parts"][parts[number]]["source"]
        begin += source.own_begin
        yield TextDocument(domain, source.take_runs(np.array([begin]), np.array([end - begin - 1])))


def windows(tokens: Sequence[int], context: int) -> list[Continued]:
    """Cuts a document into parts that fit; each token except the first is scored in exactly one part.

    context: the maximum number of tokens that the model reads; one more is predicted.
    """
    stride = max(1, context // 2)
    made: list[Continued] = []
    done = 1
    while done < len(tokens):
        end = min(len(tokens), context + 1 if not made else done + stride)
        start = max(0, end - context - 1)
        made.append(Continued(list(tokens[start:end]), done - start))
        done = end
    return made


def score_texts(
    path: Path,
    scorer: LogLikelihoods,
    tokenizer: Tokenizer,
    begin_id: int | None,
    context: int,
    records: Records,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, Any]]:
    """Domain → its scores; 'all' has the scores of all documents if there are several domains.

    Args:
      records: the records of documents by their hash; a recorded document is not scored again.
      progress: called with the number of tokens scored so far and the total number.

    Raises:
      ConfigError: as for `documents_of`, or there are no tokens.
    """
    token_bytes_V = tokenizer.token_bytes()
    sums: dict[str, dict[str, float]] = {}
    found: list[tuple[str, str]] = []  # domain and record of each document
    waiting: dict[str, list[Continued]] = {}
    waiting_tokens = 0
    documents = list(documents_of(path, tokenizer))
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    done, everything = 0, sum(len(document.ids) + len(end) for document in documents)
    progress(done, everything)

    def settle() -> None:
        nonlocal done
        parts = [(item, part) for item, some in waiting.items() for part in some]
        totals: dict[str, dict[str, float]] = {item: dict.fromkeys(SUMS, 0) for item in waiting}
        left = {item: len(some) for item, some in waiting.items()}
        for index, score in scorer.score([part for _, part in parts]):
            item, part = parts[index]
            scored, total = np.asarray(part.tokens[part.first :]), totals[item]
            total["nats"] += score.nats
            total["hits"] += score.hits
            total["tokens"] += len(scored)
            total["bytes"] += int(token_bytes_V[scored].sum())
            left[item] -= 1
            done += len(scored)
            progress(done, everything)
            if not left[item]:
                records.add({"item": item, **total})
        waiting.clear()

    for document in documents:
        tokens = [begin_id, *document.ids.tolist(), *end]
        item = xxhash.xxh3_128_hexdigest(np.asarray(tokens, np.int32).tobytes())
        found.append((document.domain, item))
        if item not in records.found and item not in waiting:
            waiting[item] = windows(tokens, context)
            waiting_tokens += sum(len(part.tokens) for part in waiting[item])
        else:
            done += len(tokens) - 1
        if waiting_tokens >= AT_ONCE:
            settle()
            waiting_tokens = 0
    settle()
    progress(everything, everything)
    for domain, item in found:
        for name in dict.fromkeys((domain, "all")):
            total = sums.setdefault(name, {**dict.fromkeys(SUMS, 0), "documents": 0})
            total["documents"] += 1
            for each in SUMS:
                value = records.found[item][each]
                total[each] += float(value) if each == "nats" else value
    if not sums:
        raise ConfigError(f"{OPTION}={path}: must hold text; it has none")
    results = {name: _scores(total) for name, total in sorted(sums.items(), key=lambda each: each[0] == "all")}
    return results if len(results) > 2 else {"all": results["all"]}


def _scores(total: Mapping[str, float]) -> dict[str, Any]:
    loss = total["nats"] / total["tokens"]
    return {
        "loss": -loss,
        "perplexity": perplexity(-loss),
        "bits_per_byte": bits_per_byte(-total["nats"], total["bytes"]),
        "token_accuracy": total["hits"] / total["tokens"],
        **{name: total[name] for name in ("documents", "tokens", "bytes")},
    }


def text_table(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """A table of text → domain → scores."""
    table = Table("text", "domain", *(("documents", "tokens", "perplexity", "bits per byte", "token accuracy")))
    for name, domains in results.items():
        for domain, scores in domains.items():
            table.add_row(
                *(name, domain, f"{scores['documents']:,}", f"{scores['tokens']:,}", f"{scores['perplexity']:.2f}"),
                *(f"{scores['bits_per_byte']:.4f}", f"{100 * scores['token_accuracy']:.2f} %"),
            )
    return table
