"""Writes a run's model for other programs: python -m gptjax.export --workdir=runs/mine --output=exports/mine

  … --dtype=bfloat16 --shard_size=2GB       numbers of 16 bits, in files of at most 2 GB
  … --family=qwen3                          one family of transformers; by default the first that fits is taken
  … --format=gguf --dtype=q8_0              one file for llama.cpp instead of a folder for transformers, vLLM and MLX

The folder has config.json, safetensors, the tokenizer and its chat template. A family of transformers must compute
exactly the run's function; if none does, the message says which options stand in the way. Before the folder gets its
name, it is read back and its logits are compared with the run's, and with those of transformers where that is
installed. Adapters are merged.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax

from gptjax import cli, tokenizer
from gptjax.command_flags import Flags
from gptjax.config import ConfigError, RunError
from gptjax.files import folder_aside
from gptjax.formatting import counted
from gptjax.interop.huggingface import parity
from gptjax.interop.huggingface.families import AUTO, FAMILIES, family_for
from gptjax.interop.huggingface.family import Family
from gptjax.interop.huggingface.model_folder import as_written, open_model, write_model
from gptjax.paths import existing_run, output_folder
from gptjax.runtime import use_compilation_cache
from gptjax.settings import ModelSettings
from gptjax.terminal import Console
from gptjax.tokenizer import Tokenizer
from gptjax.training.checkpoint import load_for_inference
from gptjax.training.checkpoint_format import hash_of_params
from gptjax.training.run_metadata import check_tokenizer

FORMATS = ("huggingface", "gguf")
DTYPES = {"huggingface": ("float32", "bfloat16", "float16"), "gguf": ("float32", "bfloat16", "q8_0")}
CHECKS = ("auto", "own", "transformers")

flags = Flags()
WORKDIR, CHECKPOINT, EMA, OWN_FUNCTIONS = flags.define_run()
OUTPUT = flags.DEFINE_string("output", None, "The folder to write, new or empty.")
FORMAT = flags.DEFINE_enum("format", "huggingface", FORMATS, "huggingface: a folder with safetensors; gguf: a file.")
FAMILY = flags.DEFINE_string(
    "family", AUTO, f"The family of transformers: {', '.join(FAMILIES)}; {AUTO}: the first of them that fits."
)
DTYPE = flags.DEFINE_string(
    "dtype", "float32", "The type of the numbers: float32, bfloat16 or float16; for gguf float32, bfloat16 or q8_0."
)
SHARD_SIZE = flags.DEFINE_string("shard_size", "5GB", "The largest file of weights, in MB or GB.")
CHECK = flags.DEFINE_enum(
    "check",
    "auto",
    CHECKS,
    "What the logits of the export are compared with. own: the run's, after reading the folder back; transformers: "
    "also those of transformers; auto: the latter if it is installed.",
)


def main(argv: list[str]) -> None:
    del argv
    folder, shard_size = check_flags()
    use_compilation_cache()
    notes = Console(soft_wrap=True)
    params, config, metadata = load_for_inference(WORKDIR.value, CHECKPOINT.value, EMA.value, OWN_FUNCTIONS.value)
    family = family_for(config.model, FAMILY.value)
    run_tokenizer = tokenizer.load(WORKDIR.value)
    check_tokenizer(metadata, run_tokenizer.hash, f"--workdir={WORKDIR.value}")
    notes.print(f"{WORKDIR.value}: step {metadata['step']:,}, {count(params):,} parameters → {family.architecture}")

    batch = parity.batch_for(config.model, min(run_tokenizer.vocab_size, config.model.vocab_size))
    expected = parity.own_logits(config.model, as_written(family, config.model, params, DTYPE.value), batch)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder_aside(folder) as partial:
        facts = {"gptjax_run": hash_of_params(metadata, EMA.value), "gptjax_step": str(metadata["step"])}
        files = write_model(
            *(partial, family, config.model, params),
            dtype=DTYPE.value,
            shard_size=shard_size,
            special_ids=special_ids(run_tokenizer, metadata),
            facts=facts,
        )
        del params
        lines = check(partial, family, expected, batch)
    for line in (*lines, *padding(config.model, run_tokenizer), *how_to_load(folder, files)):
        notes.print(line)


def check_flags() -> tuple[Path, int]:
    """The folder to write and the bytes of a file. Raises ConfigError if a flag is missing or wrong."""
    for flag in (WORKDIR, OUTPUT):
        if flag.value is None:
            raise ConfigError(f"--{flag.name} is missing: must be a folder (see --help)")
    existing_run(WORKDIR.value, "--workdir")
    folder = output_folder(OUTPUT.value, "--output")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"--output={OUTPUT.value}: must be a new or an empty folder")
    if DTYPE.value not in DTYPES[FORMAT.value]:
        allowed = ", ".join(DTYPES[FORMAT.value])
        raise ConfigError(f"--dtype={DTYPE.value}: must be one of {allowed} for --format={FORMAT.value}")
    if FORMAT.value == "gguf":
        raise ConfigError("--format=gguf: is not available yet")
    if CHECK.value == "transformers" and not parity.has_transformers():
        raise ConfigError(
            "--check=transformers: transformers and torch are not installed (pip install 'gptjax[parity]')"
        )
    return folder, size_in_bytes("--shard_size", SHARD_SIZE.value)


def size_in_bytes(flag: str, text: str) -> int:
    """'5GB' → 5,000,000,000."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?(MB|GB)", text)
    size = float(found[1]) * {"MB": 10**6, "GB": 10**9}[found[2]] if found else 0
    if size < 10**6:
        raise ConfigError(f"{flag}={text}: must be a size of at least 1MB, such as 500MB or 5GB")
    return int(size)


def count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def special_ids(run_tokenizer: Tokenizer, metadata: Any) -> dict[str, int | list[int] | None]:
    """The ids of special tokens in config.json. A document begins after the begin token of the run's data."""
    begin = metadata["fingerprint"].get("begin_id", run_tokenizer.bos_id)
    return {"bos_token_id": begin, "eos_token_id": run_tokenizer.eos_id, "pad_token_id": run_tokenizer.pad_id}


def check(folder: Path, family: Family, expected: Any, batch: parity.Batch) -> list[str]:
    """Compares the logits of the folder with the expected ones, and returns what was found, in words.

    Raises:
      RunError: they differ by more than rounding.
    """
    opened = open_model(folder)
    tensors = len(opened.weights.names)
    own = parity.largest_difference(parity.own_logits(opened.model, opened.params(), batch), expected)
    lines = [f"{counted(tensors, 'tensor')} of {family.architecture}, {DTYPE.value}"]
    lines.append(f"read back: {parity.in_words(own, 'the run')}")
    if own > 1e-6:
        raise RunError(f"the export is wrong: read back, {parity.in_words(own, 'the run')}")
    if CHECK.value == "own" or not parity.has_transformers():
        return [*lines, "not compared with transformers" + ("" if CHECK.value == "own" else ", which is not installed")]
    theirs = parity.largest_difference(parity.transformers_logits(folder, batch), expected)
    if not theirs <= parity.TOLERANCE:
        raise RunError(f"the export is wrong: in transformers, {parity.in_words(theirs, 'the run')}")
    return [*lines, f"in transformers: {parity.in_words(theirs, 'the run')}"]


def padding(model: ModelSettings, run_tokenizer: Tokenizer) -> list[str]:
    """What to know of rows of the embedding that no token has."""
    unused = model.vocab_size - run_tokenizer.vocab_size
    if unused <= 0:
        return []
    return [
        f"the embedding has {unused:,} more rows than the tokenizer has tokens, as in the run: other programs may draw "
        "them, though training made them improbable"
    ]


def how_to_load(folder: Path, files: list[str]) -> list[str]:
    size = sum((folder / name).stat().st_size for name in files)
    return [
        f"{', '.join(files)} in {folder}, {size / 1e6:,.1f} MB",
        f"transformers: AutoModelForCausalLM.from_pretrained({str(folder)!r})",
    ]


if __name__ == "__main__":
    cli.run(main, flags)
