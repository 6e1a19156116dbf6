"""The commands to give when a folder is prepared: training, then sampling with a prompt or classifying a text."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

import gptjax
from gptjax import tokenizer as tokenizers
from gptjax.corpus.forms import CHAT_PREFERENCES, CONVERSATIONS, LABELLED, PAIRS, PREFERENCES, TEMPLATED, TEXT
from gptjax.data.tokens import TokenSource
from gptjax.files.paths import CONFIG

PYTHON = "python-stdlib"  # a path of a source of text: this Python's standard library
TINY = "configs/text_tiny.py"
TRANSLATION, SUMMARIZATION = "configs/translation.py", "configs/summarization.py"  # of pairs
LONG_PAIR_TOKENS = 100  # tokens of a pair: from here on its source counts as a text, below as a sentence
LEAST_PAIR_TOKENS = 500_000  # tokens of all pairs; for fewer, the config's tiny version is suggested
CLASSIFICATION = "configs/classifier.py"  # of labelled texts; its argument is a run, whose tokenizer the folder has
INSTRUCTIONS = "configs/instructions.py"
TINY_STEPS, TINY_TOKENS = 300, 1024  # the config's duration, and its tokens per step
PASSES, LEAST_STEPS = 10, 30  # passes through a small text; more would only memorize it
# (tokens of training text from here on, config): depth.py:N is for a certain number of tokens, and four passes through
# the same text are nearly as good as four times the text (Muennighoff et al. 2023, arXiv:2305.16264).
BY_SIZE = ((550_000_000, "configs/depth.py:12"), (58_000_000, "configs/depth.py:4"), (0, TINY))
PROMPT_TOKENS = 40  # tokens of the text's beginning in which the first words are searched
PROMPT_WORDS, PROMPT_CHARACTERS = 3, 24  # at most


def next_steps(folder: Path, manifest: dict, command: Callable[[str], str]) -> list[str]:
    """Lines for a shell in the current folder: train, then sample or classify.

    Args:
      command: 'train' → how that command is started here.
    """
    splits = manifest["splits"]
    paths = [source["path"] for source in manifest["options"]["sources"]]
    if manifest.get("form") == PAIRS:
        tokens, documents = (splits["train"][name] for name in ("tokens", "documents"))
        config = SUMMARIZATION if 2 * tokens > LONG_PAIR_TOKENS * documents else TRANSLATION
        config, prompt = config + ":tiny" * (tokens < LEAST_PAIR_TOKENS), first_words(folder)
    elif manifest.get("form") == PREFERENCES:
        config, prompt = "configs/preferences.py:RUN", first_words(folder)  # RUN: that of the base
    elif manifest.get("form") == CHAT_PREFERENCES:
        base = Path(manifest["options"]["tokenizer.name"])
        config, prompt = f"configs/preferences.py:{base if (base / 'checkpoints').is_dir() else 'RUN'}", ""
    elif manifest.get("form") == LABELLED:
        run = manifest["options"].get("tokenizer.name", "")
        config, prompt = CLASSIFICATION + f":{run}" * Path(run, CONFIG).exists(), first_words(folder)
    elif manifest.get("form") == CONVERSATIONS:
        base = Path(manifest["options"]["tokenizer.name"])  # a run whose tokenizer was extended, or a kind of tokenizer
        config, prompt = f"{INSTRUCTIONS}:{base}" if (base / "checkpoints").is_dir() else INSTRUCTIONS, ""
    elif paths == [PYTHON]:
        config, prompt = "configs/stdlib_tiny.py", "def "
    else:
        config = next(name for least, name in BY_SIZE if splits["train"]["tokens"] >= least)
        prompt = first_words(folder)
    workdir = unused(Path("runs") / folder.absolute().name)
    train = {"config": _as_seen_from_here(config), "config.data.path": folder, "workdir": workdir}
    if config == TINY and (steps := PASSES * splits["train"]["tokens"] // TINY_TOKENS) < TINY_STEPS:
        train["config.training.duration"] = f"{max(steps, LEAST_STEPS)} steps"
    if "validation" not in splits:
        train["config.evaluation.every"] = ""  # nothing to evaluate on
    if manifest.get("form") in TEMPLATED:
        later, flags = "chat", {}
    elif manifest.get("form") == LABELLED:
        later, flags = "classify", {"text": prompt}
    else:
        later, flags = "sample", {"prompt": prompt}
    return [_typed(command("train"), train), _typed(command(later), {"workdir": workdir, **flags})]


def _typed(command: str, flags: Mapping[str, object]) -> str:
    return " ".join([command, *(f"--{name}={shlex.quote(str(value))}" for name, value in flags.items())])


def first_words(folder: Path) -> str:
    """The first words of the training text, from one line; '' if there are none that can be typed."""
    source = TokenSource(folder, "train", verify=False)
    first = source.num_tokens if source.form == TEXT else int(source.document_offsets()[1])  # a source, or a text
    tokens = source.take_runs(np.array([0]), np.array([min(PROMPT_TOKENS, first)]))
    tokenizer = tokenizers.load_of_sources(folder) or tokenizers.load(folder)
    lines = tokenizer.decode(tokens[tokens != tokenizer.eos_id].tolist()).splitlines()
    line = next((line.strip() for line in lines if line.strip()), "")
    words = " ".join(line.split(" ")[:PROMPT_WORDS])[:PROMPT_CHARACTERS].partition("\N{REPLACEMENT CHARACTER}")[0]
    return words if words.isprintable() else ""


def unused(path: Path) -> Path:
    """The path, or the first of path-2, path-3, … that does not exist: an existing folder may be another run's."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found


def _as_seen_from_here(config: str) -> str:
    """The path, relative to the current folder, of one of the project's configs, which are beside its package."""
    file, colon, argument = config.partition(":")
    beside = Path(gptjax.__file__).parents[1] / file
    if Path(file).exists() or not beside.exists():
        return config
    return f"{os.path.relpath(beside)}{colon}{argument}"
