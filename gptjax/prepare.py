"""Text to training data: python -m gptjax.prepare --input=FOLDER --output=data/mine

Reads .txt, .md, .py, .jsonl, .jsonl.gz and .parquet files, holds out a validation split, learns a tokenizer, and writes
token shards with a manifest. What cannot be read is counted and passed over. The same command again finds the work
done; a run that was killed is started afresh.

  python -m gptjax.prepare --input=python-stdlib --output=data/stdlib --vocab_size=4096
  python -m gptjax.prepare --input=books,notes.jsonl --output=data/books --validation_fraction=0.01
  python -m gptjax.prepare --input=input.txt --output=data/shakespeare --tokenizer=char --split_by=tail
  python -m gptjax.prepare --input=more --output=data/more --tokenizer=data/books      # another corpus, same tokens
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table

from gptjax import cli
from gptjax.config import ConfigError
from gptjax.corpus import build, tokenizer, tokenizer_training
from gptjax.corpus.inputs import SUFFIXES
from gptjax.corpus.manifest import clear, finished, write_manifest
from gptjax.corpus.readers import ENCODING_ERRORS, Reader
from gptjax.corpus.shards import SPLIT_BY, Splitter

INPUT = flags.DEFINE_list("input", [], f"Files or folders ({' '.join(SUFFIXES)}), or python-stdlib; comma-separated.")
OUTPUT = flags.DEFINE_string("output", None, "The folder to make.")
TOKENIZER = flags.DEFINE_string("tokenizer", "bpe", "bpe | byte | char | a prepared folder or tokenizer file to reuse.")
VOCAB_SIZE = flags.DEFINE_integer("vocab_size", 0, "Tokens; 0: 8192 for bpe, every character for char.")
SPLIT_DIGITS = flags.DEFINE_bool("split_digits", True, "bpe: every digit is a token of its own.")
SAMPLE_MEGABYTES = flags.DEFINE_integer("sample_megabytes", 100, "bpe: learn from this much text, drawn at random.", 1)
VALIDATION_FRACTION = flags.DEFINE_float("validation_fraction", 0.05, "Share held out; 0: no validation split.")
SPLIT_BY_FLAG = flags.DEFINE_enum(
    "split_by", "document", SPLIT_BY, "Hold out whole documents, or the tail of every one (few, long documents)."
)
ENCODING = flags.DEFINE_enum("encoding_errors", "replace", ENCODING_ERRORS, "What to do with text that is not UTF-8.")
TEXT_FIELD = flags.DEFINE_string("text_field", "text", "Where .jsonl and .parquet records hold their text.")
SEPARATOR = flags.DEFINE_string("document_separator", "", "Stands between the documents of a text file; \\n: newline.")
SHARD_TOKENS = flags.DEFINE_integer("shard_tokens", 1 << 28, "Tokens a shard file.", 1)
SEED = flags.DEFINE_integer("seed", 0, "Of the split and of the tokenizer's sample.", 0)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a folder prepared with other options.")

MEGABYTE = 1_000_000


def main(argv: list[str]) -> None:
    del argv
    console = Console()
    if not INPUT.value or not OUTPUT.value:
        raise ConfigError("--input and --output are needed (see --help)")
    folder = Path(OUTPUT.value)
    reader = Reader(
        INPUT.value,
        encoding_errors=ENCODING.value,
        text_field=TEXT_FIELD.value,
        separator=SEPARATOR.value.replace("\\n", "\n"),
    )
    splitter = Splitter(VALIDATION_FRACTION.value, SPLIT_BY_FLAG.value, SEED.value)
    options = _options(reader)
    if manifest := finished(folder, options, OVERWRITE.value):
        console.print(f"{folder} is already prepared with these options; nothing to do.")
        _summary(console, folder, manifest)
        return

    # The survey: what is there, and what the tokenizer learns from.
    found = build.Survey()
    if TOKENIZER.value == "bpe":
        found.sample = tokenizer_training.TextSample(SAMPLE_MEGABYTES.value * MEGABYTE, SEED.value)
    elif TOKENIZER.value == "char":
        found.characters = Counter()
    with _progress(console, "reading ") as advance:
        build.survey(reader, splitter, found, advance)
    with console.status(f"making the {TOKENIZER.value} tokenizer"):
        tokens = _make_tokenizer(found)

    # The shards; the manifest comes last.
    if clear(folder):
        console.print(f"{folder} held an earlier or unfinished run: made anew")
    tokens.save(folder)
    with _progress(console, "encoding", found.bytes.total()) as advance:
        splits = build.encode(reader, splitter, tokens, folder, SHARD_TOKENS.value, advance)
    if any(splits[split]["bytes"] != found.bytes[split] for split in splits):
        raise ConfigError(f"input={','.join(INPUT.value)!r}: changed while it was being read: run the command again")
    manifest = write_manifest(folder, options=options, reader=reader, tokenizer=tokens, splits=splits)
    _summary(console, folder, manifest)


def _options(reader: Reader) -> dict:
    """What the output depends on; a finished folder with other values is not what was asked for."""
    flags_that_matter = (
        *(INPUT, TOKENIZER, VOCAB_SIZE, SPLIT_DIGITS, SAMPLE_MEGABYTES, VALIDATION_FRACTION, SPLIT_BY_FLAG, ENCODING),
        *(TEXT_FIELD, SEPARATOR, SHARD_TOKENS, SEED),
    )
    return {flag.name: flag.value for flag in flags_that_matter} | {
        "input_files": len(reader.files),
        "input_bytes": reader.total_bytes,
    }


def _make_tokenizer(found: build.Survey) -> tokenizer.Tokenizer:
    size = VOCAB_SIZE.value
    if TOKENIZER.value == "bpe":
        return tokenizer_training.train_bpe(found.sample, size or 8192, SPLIT_DIGITS.value)
    if TOKENIZER.value == "char":
        return tokenizer_training.train_characters(found.characters, size)
    tokens = tokenizer.ByteTokenizer() if TOKENIZER.value == "byte" else tokenizer.load(TOKENIZER.value)
    if size not in (0, tokens.vocab_size):
        raise ConfigError(f"vocab_size={size}: the tokenizer {TOKENIZER.value!r} has {tokens.vocab_size} tokens")
    return tokens


class _Speed(ProgressColumn):
    def render(self, task: Task) -> str:
        speed = task.completed / MEGABYTE / max(task.elapsed or 0, 1e-3)
        return f"{task.completed / MEGABYTE:,.1f} MB  {speed:,.1f} MB/s"


@contextmanager
def _progress(console: Console, what: str, total_bytes: int | None = None):
    """A live line: documents, MB, MB/s, and time left where the total is known; yields `advance(documents, bytes)`."""
    columns = (TextColumn(what), BarColumn(), TextColumn("{task.fields[documents]:,} documents"), _Speed())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(what, total=total_bytes, documents=0)
        done = 0

        def advance(documents: int, size: int) -> None:
            nonlocal done
            done += documents
            progress.update(task, advance=size, documents=done)

        yield advance
        progress.update(task, total=progress.tasks[task].completed)


def _summary(console: Console, folder: Path, manifest: dict) -> None:
    table = Table("split", "documents", "MB", "tokens", "bytes/token", "unknown")
    for column in table.columns[1:]:
        column.justify = "right"
    for split, section in manifest["splits"].items():
        table.add_row(
            split,
            f"{section['documents']:,}",
            f"{section['bytes'] / MEGABYTE:,.2f}",
            f"{section['tokens']:,}",
            f"{section['bytes'] / section['tokens']:.2f}",
            f"{section['unknown_tokens']:,}",
        )
    console.print(table)
    made = manifest["tokenizer"]
    console.print(f"tokenizer {made['kind']}, {made['vocab_size']:,} tokens; {manifest['dtype']} shards in {folder}")
    if manifest["replaced"]:
        console.print(f"{manifest['replaced']:,} documents had bytes that are not UTF-8: replaced by U+FFFD")
    for reason, count in sorted(manifest["skipped"].items()):
        console.print(f"skipped {count:,}: {reason}")
    console.print(
        f"next: python -m gptjax.train --config=configs/stdlib_tiny.py --config.data.path={folder} --workdir=runs/mine",
        soft_wrap=True,
    )


if __name__ == "__main__":
    cli.run(main)
