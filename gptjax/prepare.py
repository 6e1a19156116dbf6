"""Text to training data: python -m gptjax.prepare --input=FOLDER --output=data/mine

For several sources, use a config that says what to do with each (--help_config lists all fields):

  python -m gptjax.prepare --config=configs/corpus/books_and_code.py --output=data/books_and_code

The command reads the documents, removes copies, splits them into training and validation text, trains a tokenizer, and
writes files of tokens with a manifest. Files that cannot be read are counted and skipped; a document that crashes the
process that works on it is tried three times, then left out and named. The work runs in processes on this machine
(--workers), on Ray or on SLURM (--executor). If it is killed, give the same command again: it continues, and the result
is the same, byte for byte.

--input is the short form for one source of text: .txt, .md, .py, .jsonl, .json and .parquet files, compressed or not.

  python -m gptjax.prepare --input=python-stdlib --output=data/stdlib --vocab_size=4096
  python -m gptjax.prepare --input=books,notes.jsonl --output=data/books --validation_fraction=0.01
  python -m gptjax.prepare --input=input.txt --output=data/shakespeare --tokenizer=char --split_by=tail
  python -m gptjax.prepare --input=more --output=data/more --tokenizer=data/books      # another corpus, same tokens

--pairs is that of sources and targets, for translation, summarization or question answering, --labelled that of texts
with a label each, --preferences that of prompts with a chosen and a rejected answer, and --conversations that of
instructions and chats: tables with columns by number or name, records, Parquet, SQuAD's layout, zip archives. With
--template, prompts and answers of --preferences are messages of a conversation, too.

  python -m gptjax.prepare --pairs=fra-eng.zip --swap --output=data/fra_eng --validation_documents=1000
  python -m gptjax.prepare --pairs=corpus.fr+corpus.en --output=data/corpus --test_fraction=0.01   # two files of lines
  python -m gptjax.prepare --labelled=reviews.csv --output=data/reviews         # columns text and label, in any order
  python -m gptjax.prepare --labelled=SMSSpamCollection --output=data/spam      # no names: label, then text
  python -m gptjax.prepare --preferences=pairs.jsonl --prompt_field='{instruction} {input}' --output=data/preferences
  python -m gptjax.prepare --conversations=chats.jsonl --tokenizer=runs/base --output=data/chats
  python -m gptjax.prepare --preferences=rated.jsonl --template=chatml --tokenizer=runs/chats --output=data/rated
  python -m gptjax.prepare --pairs=train.tsv --validation_input=valid.tsv --test_input=test.tsv --output=data/own_splits

To see what the rules of a config would drop and keep, try them on a few documents:

  python -m gptjax.prepare --config=configs/corpus/books_and_code.py --sample=2000
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gptjax.cluster.cores import available_cores
from gptjax.command_line import cli
from gptjax.command_line.flags import Flags
from gptjax.config import ConfigError, flatten, get
from gptjax.conversation import TEMPLATES
from gptjax.corpus.cleaning import config as cleaning
from gptjax.corpus.config import default, source, validate
from gptjax.corpus.engine import TaskExecutor
from gptjax.corpus.engine.local import LocalProcesses
from gptjax.corpus.engine.stage import is_of_use
from gptjax.corpus.forms import CHAT_PREFERENCES, SIDED
from gptjax.corpus.forms import PREFERENCES as PREFERENCES_FORM
from gptjax.corpus.manifest import WORK, finished, other_versions
from gptjax.corpus.pipeline import Pipeline
from gptjax.corpus.plain import plain
from gptjax.corpus.preview import preview
from gptjax.corpus.report.next_steps import next_steps
from gptjax.corpus.report.preview_tables import show
from gptjax.corpus.report.terminal import StageLines, summary
from gptjax.corpus.sources import pairs
from gptjax.corpus.sources.listing import Listing, list_sources
from gptjax.corpus.sources.opening import LINKS
from gptjax.corpus.sources.rows import SUFFIXES as PAIR_SUFFIXES
from gptjax.corpus.sources.text import ENCODING_ERRORS, SUFFIXES
from gptjax.display.formatting import MEGABYTE
from gptjax.display.terminal import Console
from gptjax.files.folders import alone_in, removed_if_useless
from gptjax.files.paths import output_folder

flags = Flags()
CONFIG = flags.define_config(example="configs/corpus/books_and_code.py", fields=default)
OUTPUT = flags.DEFINE_string("output", None, "The folder to make.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a folder prepared with other options.")
SAMPLE = flags.DEFINE_integer(
    "sample", 0, "Try cleaning on about this many documents and show the result; writes nothing.", 0
)
WORKERS = flags.DEFINE_integer("workers", 0, "Tasks at a time; 0: one per core, or as many as the cluster takes.", 0)
EXECUTOR = flags.DEFINE_enum(
    "executor",
    "local",
    ["local", "ray", "slurm"],
    "local: processes on this machine; ray: the cluster at RAY_ADDRESS, or this machine; slurm: a job array.",
)
SUBMITIT = flags.DEFINE_list(
    "submitit", [], "slurm: submitit parameters as NAME=VALUE,…, such as timeout_min, mem_gb, slurm_partition."
)

# These flags apply to the single source that --input makes.
INPUT = flags.DEFINE_list(
    "input", [], f"Files or folders ({' '.join(SUFFIXES)}), or python-stdlib; separated by commas."
)
PAIRS = flags.DEFINE_list(
    "pairs",
    [],
    f"Instead of --input: files of pairs ({' '.join(PAIR_SUFFIXES)}), or two of lines, as corpus.fr+corpus.en.",
)
LABELLED = flags.DEFINE_list("labelled", [], "Instead of --input: files of texts with a label each, such as .tsv.")
PREFERENCES = flags.DEFINE_list(
    "preferences", [], "Instead of --input: files of prompts with a chosen and a rejected answer, such as .jsonl."
)
CONVERSATIONS = flags.DEFINE_list(
    "conversations",
    [],
    "Instead of --input: files of conversations, with columns messages; prompt and completion; or instruction, input "
    "and output.",
)
TEMPLATE = flags.DEFINE_string(
    "template",
    "chatml",
    f"conversations: what is written around messages: {' | '.join(TEMPLATES)} | a JSON file of your own. Its control "
    "tokens are added to the tokenizer. preferences: if it is given, prompts and answers are messages.",
)
SOURCE_FIELD = flags.DEFINE_string(
    "source_field", "", "pairs: the column of the source, or several: '{question} {context}'; '': the first, or source."
)
TARGET_FIELD = flags.DEFINE_string("target_field", "", "pairs: the same for the target; '': the second, or target.")
LABEL_FIELD = flags.DEFINE_string(
    "label_field", "", "labelled: the column of the label; '': label, or the first of a table that names no columns."
)
LABELS = flags.DEFINE_string(
    "labels", "", "labelled: the labels to keep, separated by commas; texts with another label are skipped; '': all."
)
PROMPT_FIELD = flags.DEFINE_string(
    "prompt_field", "", "preferences: the column of the prompt, or several, as for --source_field; '': prompt."
)
CHOSEN_FIELD = flags.DEFINE_string("chosen_field", "", "preferences: the same for the chosen answer; '': chosen.")
REJECTED_FIELD = flags.DEFINE_string("rejected_field", "", "preferences: the same for the other; '': rejected.")
SWAP = flags.DEFINE_bool("swap", False, "pairs: exchange source and target.")
PREFIX = flags.DEFINE_string("source_prefix", "", "pairs: a text to put before every source.")
REFERENCES = flags.DEFINE_enum(
    "references", "each", pairs.REFERENCES, "pairs: if a row has several targets, train on each or on the first."
)
TOKENIZER = flags.DEFINE_string(
    "tokenizer",
    "bpe",
    "bpe | unigram | byte | char | a prepared folder, a run, a downloaded model or a tokenizer's file to reuse.",
)
VOCAB_SIZE = flags.DEFINE_integer(
    "vocab_size",
    0,
    "Number of tokens; 0: all characters for char; 8192 for bpe and unigram, fewer if the text is small.",
)
SOURCE_TOKENIZER = flags.DEFINE_string(
    "source_tokenizer", "", "pairs: the sources' own tokenizer, as for --tokenizer; '': one for both sides."
)
SOURCE_VOCAB_SIZE = flags.DEFINE_integer("source_vocab_size", 0, "pairs: number of tokens of --source_tokenizer.", 0)
SPLIT_DIGITS = flags.DEFINE_bool("split_digits", True, "bpe, unigram: every digit is a separate token.")
SAMPLE_MEGABYTES = flags.DEFINE_float(
    "sample_megabytes", 100, "bpe, unigram: megabytes of text to learn from, drawn at random."
)
VALIDATION_FRACTION = flags.DEFINE_float(
    "validation_fraction", 0.05, "Share of the text held out for validation; 0: none."
)
VALIDATION_DOCUMENTS = flags.DEFINE_integer(
    "validation_documents", 0, "Documents, pairs or labelled texts to hold out, instead of a share.", 0
)
TEST_FRACTION = flags.DEFINE_float("test_fraction", 0, "Share of the text for a third split, test; 0: none.")
TEST_DOCUMENTS = flags.DEFINE_integer("test_documents", 0, "The same as a number of documents, pairs or texts.", 0)
VALIDATION_INPUT = flags.DEFINE_list(
    "validation_input",
    [],
    "All of the validation split, in files as those of --input, --pairs, --labelled or --conversations.",
)
TEST_INPUT = flags.DEFINE_list("test_input", [], "The same for the third split, test.")
GIVEN_SPLITS = {  # split → what gives it, and what draws it
    "validation": (VALIDATION_INPUT, (VALIDATION_FRACTION, VALIDATION_DOCUMENTS)),
    "test": (TEST_INPUT, (TEST_FRACTION, TEST_DOCUMENTS)),
}
SPLIT_BY = flags.DEFINE_enum(
    "split_by",
    "auto",
    ["auto", "document", "tail"],
    "What to hold out: some documents, or the tail (end) of every document; auto: the tail if documents are few.",
)
ENCODING = flags.DEFINE_enum("encoding_errors", "detect", ENCODING_ERRORS, "What to do with text that is not UTF-8.")
TEXT_FIELD = flags.DEFINE_string(
    "text_field", "text", "The field of .jsonl and .parquet records that holds the text; labelled: or a table's column."
)
SEPARATOR = flags.DEFINE_string(
    "document_separator", "", "The string between two documents in a text file; '': a file is one document."
)
ESCAPES = flags.DEFINE_bool(
    "escapes", False, "Read \\n in --document_separator as a newline, \\t as a tab and so on, as Python does."
)
SHARD_TOKENS = flags.DEFINE_integer("shard_tokens", 1 << 28, "Tokens per file.")
SEED = flags.DEFINE_integer("seed", 0, "Random seed for the split and for the text that the tokenizer learns from.")
FIELD_FLAGS = {  # config field → its flag
    "tokenizer.name": TOKENIZER,
    "tokenizer.vocab_size": VOCAB_SIZE,
    "tokenizer.source_name": SOURCE_TOKENIZER,
    "tokenizer.source_vocab_size": SOURCE_VOCAB_SIZE,
    "tokenizer.split_digits": SPLIT_DIGITS,
    "tokenizer.sample_megabytes": SAMPLE_MEGABYTES,
    "split.validation_fraction": VALIDATION_FRACTION,
    "split.validation_documents": VALIDATION_DOCUMENTS,
    "split.test_fraction": TEST_FRACTION,
    "split.test_documents": TEST_DOCUMENTS,
    "split.by": SPLIT_BY,
    "tokens.shard_tokens": SHARD_TOKENS,
    "template": TEMPLATE,
    "seed": SEED,
}
FOLLOW = flags.DEFINE_enum(
    "links", LINKS[0], LINKS, "Symbolic links to follow: those that stay inside the given folder, or all."
)
SOURCE_FLAGS = (  # a flag of the source, and the short forms that have it
    *((flag, ("input",)) for flag in (ENCODING, SEPARATOR, ESCAPES)),
    *((flag, ("pairs",)) for flag in (SOURCE_FIELD, TARGET_FIELD, SWAP, PREFIX, REFERENCES)),
    *((flag, ("preferences",)) for flag in (PROMPT_FIELD, CHOSEN_FIELD, REJECTED_FIELD)),
    *((flag, ("labelled",)) for flag in (LABEL_FIELD, LABELS)),
    (TEXT_FIELD, ("input", "labelled")),
    (TEMPLATE, ("conversations", "preferences")),
    (FOLLOW, ("input", "pairs", "labelled", "preferences", "conversations")),
)
SHORT_FORMS = {
    "input": INPUT,
    "pairs": PAIRS,
    "labelled": LABELLED,
    "preferences": PREFERENCES,
    "conversations": CONVERSATIONS,
}

# A field that a message names → the flag that it names instead, where flags and not a config describe the corpus.
FLAG_OF_FIELD = {
    **{field: flag.name for field, flag in FIELD_FLAGS.items()},
    **{f"{source}.path": flag.name for source, flag in SHORT_FORMS.items()},
    **{f"{split}.path": files.name for split, (files, _) in GIVEN_SPLITS.items()},
}

LATER_FIELDS = (
    *("stages", "tokenizer.source_name", "tokenizer.source_vocab_size", "split.validation_documents"),
    *("split.test_fraction", "split.test_documents", "template", "least_failures", "scores", "documents"),
    "max_document_seconds",
)

INPUT_SHARD_MEGABYTES = 8  # small, so that even a small corpus keeps every core busy


def main(argv: list[str]) -> None:
    console = Console()
    with cli.fields_named_by_flags({} if CONFIG.value else FLAG_OF_FIELD):
        make_corpus(console)


def make_corpus(console: Console) -> None:
    config = chosen_config()
    validate(config)
    if SAMPLE.value:
        listing = list_sources(config.sources, config.shard_megabytes * MEGABYTE)
        return show(console, config.cleaning, preview(config, listing, SAMPLE.value))
    if OUTPUT.value is None:
        raise ConfigError("--output is missing (see --help)")
    folder = output_folder(OUTPUT.value, "--output")
    listing = list_sources(config.sources, config.shard_megabytes * MEGABYTE)
    options = output_options(config, listing)
    manifest = finished(folder, options, OVERWRITE.value)
    if manifest:
        console.print(f"{folder} is already prepared with these options; nothing to do.")
        if made_by := other_versions(manifest):
            console.print(f"It was made with {made_by}; --overwrite remakes what depends on them.", soft_wrap=True)
    else:
        with (
            removed_if_useless(folder / WORK, is_of_use),
            alone_in(folder / WORK, "--output"),
            make_executor(folder) as executor,
        ):
            manifest = Pipeline(config, listing, folder, executor, StageLines(console)).prepare(options)
    summary(console, folder, manifest)
    for when, line in zip(("next", "then"), next_steps(folder, manifest, cli.command)):
        console.print(f"{when}: {line}", soft_wrap=True)


def chosen_config() -> ConfigDict:
    """Returns the config of --config, or builds one of a single source from the short form that is given."""
    given = [name for name, flag in SHORT_FORMS.items() if flag.value]
    if bool(CONFIG.value) + len(given) != 1:
        flags_of_forms = ", ".join(f"--{name}" for name in SHORT_FORMS)
        raise ConfigError(f"give one of {flags_of_forms} and --config (see --help)")
    if CONFIG.value:
        for flag in (*FIELD_FLAGS.values(), *(flag for flag, _ in SOURCE_FLAGS), VALIDATION_INPUT, TEST_INPUT):
            if flag.present:
                raise ConfigError(f"--{flag.name} is only for --input; set fields of a config by --config.FIELD=VALUE")
        return CONFIG.value
    (form,) = given
    for flag, forms in SOURCE_FLAGS:
        if flag.present and form not in forms:
            raise ConfigError(f"--{flag.name} is only for {' and '.join(f'--{name}' for name in forms)}")
    if SAMPLE.value:
        raise ConfigError("--sample is only for --config: it shows what cleaning does, and --input does none")
    config = default()
    config.sources = (source_of(form, ",".join(SHORT_FORMS[form].value)), *given_splits(form))
    config.shard_megabytes = INPUT_SHARD_MEGABYTES
    config.cleaning.update(cleaning.off())
    config.duplicates.kind = "exact" if form in (*SIDED, "conversations") else "none"
    config.update_from_flattened_dict({field: flag.value for field, flag in FIELD_FLAGS.items()})
    return config


def given_splits(form: str) -> list[ConfigDict]:
    """Returns a source for each split that has files of its own."""
    given = []
    for split, (files, draws) in GIVEN_SPLITS.items():
        if files.value:
            for flag in draws:
                if flag.present:
                    raise ConfigError(f"--{flag.name}={flag.value}: must not be given together with --{files.name}")
            given.append(source_of(form, ",".join(files.value), split))
    return given


def source_of(form: str, path: str, split: str = "") -> ConfigDict:
    options: dict[str, Any] = {"given_split": split} if split else {}
    if form == "input":
        separator = SEPARATOR.value
        options |= {"encoding_errors": ENCODING.value, "text_field": TEXT_FIELD.value}
        options["separator"] = cli.unescaped("--document_separator", separator) if ESCAPES.value else separator
    elif form == "pairs":
        options |= {"source": SOURCE_FIELD.value, "target": TARGET_FIELD.value, "swap": SWAP.value}
        options |= {"prefix": PREFIX.value, "references": REFERENCES.value}
    elif form == "preferences":
        options |= {"prompt": PROMPT_FIELD.value, "chosen": CHOSEN_FIELD.value, "rejected": REJECTED_FIELD.value}
    elif form == "labelled":
        if LABEL_FIELD.value or TEXT_FIELD.present:
            options |= {"label": LABEL_FIELD.value or "label", "text": TEXT_FIELD.value}
        else:
            options |= {"label": "", "text": ""}
        options |= {"labels": LABELS.value} if LABELS.value else {}
    if FOLLOW.value != LINKS[0]:
        options["links"] = FOLLOW.value
    kind = {"input": "text", "preferences": CHAT_PREFERENCES if TEMPLATE.present else PREFERENCES_FORM}.get(form, form)
    return source(name=split or form, kind=kind, path=path, **options)


def output_options(config: ConfigDict, listing: Listing) -> dict:
    """Returns all options that the output depends on; a folder is finished only if it has the same values."""
    fields = {name: plain(value) for name, value in flatten(config).items()}
    unused = default()
    for name in LATER_FIELDS:  # so that folders older than these fields are still recognized
        if fields[name] == plain(get(unused, name)):
            del fields[name]
    return fields | {"input_files": listing.pieces.total(), "input_bytes": listing.bytes.total()}


def make_executor(folder: Path) -> AbstractContextManager[TaskExecutor]:
    if EXECUTOR.value == "ray":
        from gptjax.cluster.ray_tasks import RayTasks

        return RayTasks(WORKERS.value)
    if EXECUTOR.value == "slurm":
        from gptjax.cluster.job_tasks import JobTasks

        parameters = cli.named_values("--submitit", SUBMITIT.value)
        return JobTasks("slurm", folder.absolute() / WORK / "jobs", WORKERS.value, parameters)
    return LocalProcesses(WORKERS.value or len(available_cores()))


if __name__ == "__main__":
    cli.run(main, flags, outlives_console=True)
