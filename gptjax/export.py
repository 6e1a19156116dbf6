"""Writes a run's model for other programs: python -m gptjax.export --workdir=runs/mine --output=exports/mine

  … --dtype=bfloat16 --shard_size=2GB       numbers of 16 bits, in files of at most 2 GB
  … --family=qwen3                          one family of transformers; by default the first that fits is taken
  … --format=gguf --dtype=q8_0              a file for llama.cpp instead of those for transformers, vLLM and MLX

The folder has config.json, safetensors, the tokenizer and its chat template. A family of transformers must compute
exactly the run's function; if none does, the message says which options stand in the way. Before the folder gets its
name, it is read back and its logits are compared with the run's, and with those of transformers where that is
installed. Adapters are merged.

A GGUF file (pip install -e '.[gguf]') has the weights, the tokenizer and the chat template in one. It is written for
the families llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, olmo2, olmoe and gemma3, and compared with the run and,
where llama-cpp-python is installed, with llama.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gptjax import tokenizer
from gptjax.command_line import cli
from gptjax.command_line.flags import Flags, given_run
from gptjax.command_line.runtime import use_compilation_cache
from gptjax.config import ConfigError, RunError
from gptjax.conversation import Template, template_of
from gptjax.display.formatting import counted
from gptjax.display.terminal import Console
from gptjax.files import folder_aside
from gptjax.files.paths import output_folder
from gptjax.interop import gguf, gguf_check
from gptjax.interop.huggingface import parity
from gptjax.interop.huggingface.families import AUTO, FAMILIES, family_for
from gptjax.interop.huggingface.family import Family
from gptjax.interop.huggingface.model_folder import (
    as_written,
    open_model,
    read_json,
    tensors_of,
    write_json,
    write_model,
)
from gptjax.interop.huggingface.programs import loading
from gptjax.interop.tokenizer_folder import special_ids, write_tokenizer
from gptjax.reporting.card import write_card
from gptjax.reporting.document import Code
from gptjax.reporting.exports import folder_blocks
from gptjax.settings import ModelSettings
from gptjax.tokenizer import Tokenizer
from gptjax.training.checkpoints.format import hash_of_params
from gptjax.training.checkpoints.loading import load_for_inference, load_tokenizers

SOURCES, GENERATION = "source_tokenizer", "generation_config.json"
FORMATS = ("huggingface", "gguf")
DTYPES = {"huggingface": ("float32", "bfloat16", "float16"), "gguf": tuple(gguf.DTYPES)}
CHECKS = ("auto", "own", "transformers")

flags = Flags()
WORKDIR, CHECKPOINT, EMA, OWN_FUNCTIONS = flags.define_run()
OUTPUT = flags.DEFINE_string("output", None, "The folder to write, new or empty.")
FORMAT = flags.DEFINE_enum("format", "huggingface", FORMATS, "huggingface: safetensors and JSON; gguf: one file.")
FAMILY = flags.DEFINE_string(
    "family", AUTO, f"The family of transformers: {', '.join(FAMILIES)}; {AUTO}: the first of them that fits."
)
DTYPE = flags.DEFINE_string(
    "dtype", "float32", "The type of the numbers: float32, bfloat16 or float16; for gguf also q8_0."
)
TOKENIZER = flags.DEFINE_bool(
    "tokenizer", True, "Also write the tokenizer; --notokenizer: weights and config.json alone."
)
LICENSE = flags.DEFINE_string(
    "license", None, "The licence that you give the model, by the hub's name for it, such as apache-2.0; for README.md."
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
    run_tokenizer, _ = load_tokenizers(WORKDIR.value, metadata)
    notes.print(f"{WORKDIR.value}: step {metadata['step']:,}, {count(params):,} parameters → {family.architecture}")

    if FORMAT.value == "gguf":
        for line in export_gguf(folder, params, config.model, family, run_tokenizer, metadata):
            notes.print(line)
        return
    batch = parity.batch_for(config.model, min(run_tokenizer.vocab_size, config.model.vocab_size))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder_aside(folder) as partial:
        begin, template = begin_and_template(metadata)
        of_tokenizer: list[str] = []
        said: list[str] = []
        if TOKENIZER.value:  # first, since a tokenizer that cannot be written is known at once
            of_tokenizer, said = write_tokenizers(partial, config.model, run_tokenizer, template, begin)
        facts = {"gptjax_run": hash_of_params(metadata, EMA.value), "gptjax_step": str(metadata["step"])}
        files = write_model(
            *(partial, family, config.model, params),
            dtype=DTYPE.value,
            shard_size=shard_size,
            special_ids=special_ids(run_tokenizer, template, begin) | start_of_targets(config.model, begin),
            facts=facts,
        )
        # After the files, because it takes the parameters with it: there is never a second copy of them.
        expected = parity.own_logits(config.model, as_written(family, config.model, params, DTYPE.value), batch)
        lines = [*check(partial, family, expected, batch), *said]
        files += of_tokenizer
        files.append(
            write_card(
                partial,
                given_run(WORKDIR),
                license=LICENSE.value,
                library_name="transformers",
                loading=folder_blocks(family, config.model, folder.name, chats=template is not None),
                step=metadata["step"],
            ).name
        )
    for line in (*lines, *to_know(config.model, run_tokenizer), *how_to_load(family, config.model, folder, files)):
        notes.print(line)


def export_gguf(
    folder: Path, params: Any, model: ModelSettings, family: Family, run_tokenizer: Tokenizer, metadata: Mapping
) -> list[str]:
    """Writes a folder with a GGUF file, and returns what was found, in words.

    Raises:
      RunError: the file's numbers or the logits of llama.cpp differ from the run's by more than rounding.
    """
    content, tensors = family.write(model), tensors_of(family, model, params)
    begin, template = begin_and_template(metadata)
    name, dtype = f"{folder.name}-{DTYPE.value}.gguf", DTYPE.value
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder_aside(folder) as partial:
        path = partial / name
        lines = gguf.write_gguf(
            *(path, content, tensors, run_tokenizer, template), begin_id=begin, dtype=dtype, title=folder.name
        )
        rounding = gguf_check.largest_rounding(path, content, tensors)
        said = f"read back: {parity.in_words(rounding, 'the run', 'numbers')}"
        if rounding > gguf_check.ROUNDING[dtype]:
            raise RunError(f"the export is wrong: {said}")
        lines.append(said)
        if CHECK.value == "own" or not gguf_check.has_llama_cpp():
            lines.append("not compared with llama.cpp" + ("" if CHECK.value == "own" else ", which is not installed"))
        else:
            batch = parity.batch_for(model, min(run_tokenizer.vocab_size, model.vocab_size))
            expected = parity.own_logits(model, params, batch)
            theirs = parity.largest_difference(gguf_check.llama_cpp_logits(path, batch.tokens_BT), expected)
            said = f"in llama.cpp: {parity.in_words(theirs, 'the run')}"
            if not theirs <= gguf_check.TOLERANCE[dtype]:
                raise RunError(f"the export is wrong: {said}")
            lines.append(said)
        size = path.stat().st_size
        write_card(
            partial,
            given_run(WORKDIR),
            license=LICENSE.value,
            library_name="gguf",
            loading=[Code(f"llama-cli -m {name}")],
            step=metadata["step"],
        )
    return [*lines, *to_know(model, run_tokenizer), f"{folder}: {name}, {size / 1e6:,.1f} MB, for llama-cli -m"]


def check_flags() -> tuple[Path, int]:
    """The folder to write and the bytes of a file. Raises ConfigError if a flag is missing or wrong."""
    given_run(WORKDIR)
    if OUTPUT.value is None:
        raise ConfigError("--output is missing: must be a folder (see --help)")
    folder = output_folder(OUTPUT.value, "--output")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"--output={OUTPUT.value}: must be a new or an empty folder")
    if DTYPE.value not in DTYPES[FORMAT.value]:
        allowed = ", ".join(DTYPES[FORMAT.value])
        raise ConfigError(f"--dtype={DTYPE.value}: must be one of {allowed} for --format={FORMAT.value}")
    if FORMAT.value == "gguf" and not TOKENIZER.value:
        raise ConfigError("--notokenizer: a GGUF file always has a tokenizer")
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


def begin_and_template(metadata: Mapping[str, Any]) -> tuple[int | None, Template | None]:
    """The token that begins a text, and the template of conversations, if the run was trained on them."""
    fingerprint = metadata["fingerprint"]
    template = fingerprint.get("template")
    return fingerprint.get("begin_id"), template_of(template, "template") if template else None


def start_of_targets(model: ModelSettings, begin: int | None) -> dict[str, int | None]:
    """The token that a decoder starts a target with, for models of pairs."""
    return {"decoder_start_token_id": begin} if model.family == "encoder_decoder" else {}


def write_tokenizers(
    folder: Path, model: ModelSettings, run_tokenizer: Tokenizer, template: Template | None, begin: int | None
) -> tuple[list[str], list[str]]:
    """Writes the tokenizer, and that of the sources if they have one; returns names of files and what to know.

    Raises:
      ConfigError: transformers has no such tokenizer.
    """
    try:
        return tokenizer_files(folder, model, run_tokenizer, template, begin)
    except ConfigError as error:
        raise ConfigError(
            f"{error}. --notokenizer exports the model without it (gptjax.tokenizer.load(workdir) then encodes texts); "
            "a tokenizer of kind bpe can be written"
        ) from None


def tokenizer_files(
    folder: Path, model: ModelSettings, run_tokenizer: Tokenizer, template: Template | None, begin: int | None
) -> tuple[list[str], list[str]]:
    """See `write_tokenizers`."""
    names, notes = write_tokenizer(folder, run_tokenizer, template, begin_id=begin, context=model.max_positions)
    if model.family == "encoder_decoder":
        path = folder / GENERATION
        write_json(path, read_json(path) | start_of_targets(model, begin))
    if (of_sources := tokenizer.load_of_sources(WORKDIR.value)) is not None:
        (folder / SOURCES).mkdir()
        of_folder, _ = write_tokenizer(
            folder / SOURCES, of_sources, None, begin_id=None, context=model.max_source_positions
        )
        names += [f"{SOURCES}/{name}" for name in of_folder]
        notes.append(f"sources have a tokenizer of their own, in {SOURCES}")
    return names, notes


def check(folder: Path, family: Family, expected: Any, batch: parity.Batch) -> list[str]:
    """Compares the logits of the folder with the expected ones, and returns what was found, in words.

    Raises:
      RunError: they differ by more than rounding, or are not finite, so that no comparison could find a difference.
    """
    if not np.isfinite(expected).all():
        raise RunError("the run's logits are not finite, although its parameters are: activations overflow")
    opened = open_model(folder)
    tensors = len(opened.weights.names)
    own = parity.largest_difference(parity.own_logits(opened.model, opened.params(), batch), expected)
    lines = [f"{counted(tensors, 'tensor')} of {family.architecture}, {DTYPE.value}"]
    lines.append(f"read back: {parity.in_words(own, 'the run')}")
    if not own <= 1e-6:
        raise RunError(f"the export is wrong: read back, {parity.in_words(own, 'the run')}")
    if CHECK.value == "own" or not parity.has_transformers():
        return [*lines, "not compared with transformers" + ("" if CHECK.value == "own" else ", which is not installed")]
    theirs = parity.largest_difference(parity.transformers_logits(folder, batch), expected)
    if not theirs <= parity.TOLERANCE:
        raise RunError(f"the export is wrong: in transformers, {parity.in_words(theirs, 'the run')}")
    return [*lines, f"in transformers: {parity.in_words(theirs, 'the run')}"]


def to_know(model: ModelSettings, run_tokenizer: Tokenizer) -> list[str]:
    """What to know of rows of the embedding that no token has, and of experts that are full in training."""
    lines = []
    if (unused := model.vocab_size - run_tokenizer.vocab_size) > 0:
        lines.append(
            f"the embedding has {unused:,} more rows than the tokenizer has tokens, as in the run: other programs may "
            "draw them, though training made them improbable"
        )
    if model.num_experts and model.expert_capacity:
        lines.append("experts take every token, as in generation here; in training they drop some")
    return lines


def how_to_load(family: Family, model: ModelSettings, folder: Path, files: list[str]) -> list[str]:
    size = sum((folder / name).stat().st_size for name in files)
    return [f"{folder}: {', '.join(files)}, {size / 1e6:,.1f} MB", *loading(family, model, str(folder))]


if __name__ == "__main__":
    cli.run(main, flags)
