"""Makes a run of a model that others have trained: python -m gptjax.import DOWNLOADED --output=runs/qwen3

  … --input=DOWNLOADED --output=runs/qwen3        the same
  … --mesh=fsdp=8                                 each device reads its own part of the weights
  … --template=chatml                             it was trained on conversations, written like this

DOWNLOADED is a folder as transformers saves it, on this machine: config.json, safetensors, tokenizer.json. Only data
are read: no pickles, and no code that the folder may hold. The result is a run like any other, at step 0: sample,
evaluate and export it, or train from it (training.init_from=runs/qwen3).

Before the run gets its name, its logits are compared with those of transformers, where that is installed (pip install
-e '.[parity]'), and the loss of a plain English text is shown. What the folder has and gptjax does not use is listed.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gptjax import tokenizer
from gptjax.command_line import cli
from gptjax.command_line.flags import Flags
from gptjax.command_line.runtime import use_compilation_cache
from gptjax.config import ConfigError, RunError, default, to_json
from gptjax.conversation import TEMPLATES, Renderer, Template, load_template
from gptjax.display.formatting import counted
from gptjax.display.terminal import Console
from gptjax.files import folder_aside, write_aside
from gptjax.files.paths import CONFIG, local_path, run_folder
from gptjax.inference.devices import decoding_mesh
from gptjax.interop.chat_template import recognized
from gptjax.interop.huggingface import parity
from gptjax.interop.huggingface.model_folder import Opened, open_model, read_json
from gptjax.interop.tokenizer_folder import chat_template
from gptjax.model.families import family_named, family_of
from gptjax.parallel.sharding import placed_params
from gptjax.settings import ModelSettings, Settings, freeze, thaw
from gptjax.tokenizer import Tokenizer
from gptjax.training.checkpoints.format import hash_of_params, save
from gptjax.training.checkpoints.loading import load_for_inference, saved_metadata
from gptjax.training.checkpoints.run_metadata import run_metadata
from gptjax.training.metrics import init_monitor
from gptjax.training.state import TrainState

CHECKS = ("auto", "none", "transformers")
AUTO, NONE = "auto", "none"
# What a model of English text finds likely.
ENGLISH = (
    "The sun had gone down behind the hills, and the people of the village sat in front of their houses and talked "
    "about the weather. It had not rained for weeks. The river was low, the fields were dry, and the old woman at the "
    "end of the road said that she had never seen such a summer in her life. In the morning, the first clouds came "
    "over the sea."
)
SEQUENCE_LENGTH = 2048  # data.sequence_length of the run's config, unless the context is shorter

flags = Flags()
INPUT = flags.DEFINE_string(
    "input", None, "The folder to read, with config.json and safetensors; the argument is one, too."
)
OUTPUT = flags.DEFINE_string("output", None, "The run's folder to write, new or empty.")
MESH = flags.DEFINE_string(
    "mesh",
    "",
    "fsdp=8: divide the parameters over eight devices, each of which reads its own part; '': one device reads all.",
)
TEMPLATE = flags.DEFINE_string(
    "template",
    AUTO,
    f"How conversations are written, for gptjax chat: {', '.join(TEMPLATES)}, a JSON file, or none; {AUTO}: as the "
    "folder's chat template writes them, if it can be said as data. It is a program in Jinja, and only tried in a "
    "sandbox.",
)
CHECK = flags.DEFINE_enum(
    "check", "auto", CHECKS, "Compare logits with those of transformers; auto: if it is installed."
)


def main(argv: list[str]) -> None:
    source, folder = check_flags(argv)
    mesh = decoding_mesh(MESH.value, "fsdp")
    use_compilation_cache()
    notes = Console(soft_wrap=True)
    opened = open_model(source)
    own_tokenizer = read_tokenizer(source, opened)
    notes.print(f"{source}: {opened.family.architecture}, {counted(len(opened.weights.names), 'tensor')}")
    template = read_template(source, own_tokenizer, notes)
    config = config_of(opened, own_tokenizer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder_aside(folder) as partial:
        params = opened.params(None if mesh is None else placed_params(mesh, family_of(config.model).declarations))
        write_run(partial, config, params, own_tokenizer, template, opened)
        del params
        lines = check(partial, opened, own_tokenizer, mesh)
    metadata = saved_metadata(folder)
    assert metadata
    size = sum(parameter.size for parameter in jax.tree.leaves(family_of(config.model).declarations))
    for line in (*lines, *(f"not used: {left}" for left in opened.left)):
        notes.print(line)
    notes.print(
        f"{folder}: step 0, {size:,} parameters with hash {hash_of_params(metadata)}, {own_tokenizer.vocab_size:,} "
        f"tokens of kind {own_tokenizer.kind}"
    )
    notes.print(f"next: {cli.command('sample')} --workdir={folder} --prompt='Once'")


def check_flags(argv: list[str]) -> tuple[Path, Path]:
    """The folder to read and the folder to write. Raises ConfigError if one is missing or cannot be."""
    if len(argv) > 1 and INPUT.value is not None:
        raise ConfigError(f"--input={INPUT.value}: must not be given together with the argument {argv[1]!r}")
    given = argv[1] if len(argv) > 1 else INPUT.value
    if given is None:
        raise ConfigError("--input is missing: must be a folder with config.json and safetensors (see --help)")
    if OUTPUT.value is None:
        raise ConfigError("--output is missing: must be a folder (see --help)")
    source = local_path(given, "--input")
    if not source.is_dir():
        what = "it is a file, not a folder" if source.exists() else "there is no such folder"
        if re.fullmatch(r"[\w.-]+/[\w.-]+", given) and not source.exists():
            what += f"; a model of the hub must be downloaded first: hf download {given} --local-dir FOLDER"
        raise ConfigError(
            f"--input={given}: must be a folder on this machine, with config.json and safetensors; {what}"
        )
    folder = run_folder(OUTPUT.value, "--output")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"--output={OUTPUT.value}: must be a new or an empty folder")
    if CHECK.value == "transformers" and not parity.has_transformers():
        raise ConfigError(
            "--check=transformers: transformers and torch are not installed (pip install 'gptjax[parity]')"
        )
    return source, folder


def read_tokenizer(source: Path, opened: Opened) -> Tokenizer:
    """The folder's tokenizer. Raises ConfigError if there is none, or the model has no row for one of its tokens."""
    found = tokenizer.load(source)
    if found.vocab_size > opened.model.vocab_size:
        raise ConfigError(
            f"{source}: the tokenizer has {found.vocab_size:,} tokens, but the model has rows for vocab_size = "
            f"{opened.model.vocab_size:,} only: they do not belong together"
        )
    return found


def read_template(source: Path, own_tokenizer: Tokenizer, notes: Console) -> Template | None:
    """The template of conversations that --template names or, by default, that writes what the folder's writes.

    Raises:
      ConfigError: there is no such template, or the tokenizer lacks one of its control tokens.
    """
    if TEMPLATE.value == NONE:
        return None
    if TEMPLATE.value != AUTO:
        with cli.fields_named_by_flags({"template": "template"}):
            template = load_template(TEMPLATE.value)
            Renderer(template, own_tokenizer)
        return template
    written = their_template(source)
    for template in map(load_template, TEMPLATES):
        if written in (chat_template(template), chat_template(template, generation=False)):
            return template
    if not written:
        return None
    found, lines = recognized(written, own_tokenizer)
    try:
        if found is not None:
            Renderer(found, own_tokenizer)
    except ConfigError as error:
        found, lines = None, [str(error)]
    for line in lines:
        notes.print(line, style="yellow", markup=False)
    if found is None:
        notes.print("give --template=chatml or another one to chat with the model", style="yellow", markup=False)
    return found


def their_template(source: Path) -> str:
    """The template in Jinja of a folder; '' if there is none."""
    path = source / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    if not (source / "tokenizer_config.json").is_file():
        return ""
    found = read_json(source / "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, Mapping)}
        found = named.get("default")
    return found if isinstance(found, str) else ""


def config_of(opened: Opened, own_tokenizer: Tokenizer) -> Settings:
    """A complete config of the run."""
    config = default()
    limits = [opened.model.max_positions]
    if opened.model.family == "encoder_decoder":
        limits.append(opened.model.max_source_positions)
    config.data.sequence_length = min(SEQUENCE_LENGTH, *limits)
    config.training.objective = "seq2seq" if opened.model.family == "encoder_decoder" else "next_token"
    model = family_named(opened.model.family).resolve(
        thaw(opened.model),
        platform=jax.default_backend(),
        vocab_size=own_tokenizer.vocab_size,
        sequence_length=config.data.sequence_length,
    )
    return dataclasses.replace(freeze(config), model=model)


def write_run(
    folder: Path,
    config: Settings,
    params: Any,
    own_tokenizer: Tokenizer,
    template: Template | None,
    opened: Opened,
) -> None:
    """Writes a run with these parameters at step 0."""
    own_tokenizer.save(folder)
    with write_aside(folder / CONFIG) as file:
        file.write(to_json(config).encode())
    begin = opened.content.get("bos_token_id")
    if begin not in own_tokenizer.control_ids.values():
        begin = own_tokenizer.eos_id if own_tokenizer.bos_id is None else own_tokenizer.bos_id
    origin = {"architecture": opened.family.architecture, "config": opened.content}
    fingerprint: dict[str, Any] = {"tokenizer_hash": own_tokenizer.hash, "begin_id": begin}
    if template is not None:
        fingerprint["template"] = template.to_json()
    metadata = run_metadata(config, fingerprint, tokens=0)
    metadata |= {"step": 0, "metrics": {}, "imported": json.loads(json.dumps(origin))}
    path = (folder / "checkpoints" / "0").absolute()
    path.parent.mkdir()
    # There is no state of an optimizer: the run can start others, but not be continued itself.
    save(path, TrainState(jax.numpy.int32(0), params, (), None, init_monitor()), metadata)


def check(folder: Path, opened: Opened, own_tokenizer: Tokenizer, mesh: Mesh | None) -> list[str]:
    """Compares the logits of the written run with those of transformers, and returns what was found, in words.

    Raises:
      RunError: they differ by more than rounding.
    """
    params, config, metadata = load_for_inference(folder, mesh=mesh)
    lines = []
    if opened.model.family == "decoder":
        lines.append(loss_in_words(config.model, params, own_tokenizer, metadata["fingerprint"]["begin_id"]))
    if CHECK.value == NONE or not parity.has_transformers():
        why = "" if CHECK.value == NONE else ": transformers is not installed"
        fits = "names and shapes of all tensors fit, and all numbers are finite"
        return [f"logits were not compared with another program{why}; {fits}", *lines]
    batch = parity.batch_for(opened.model)
    ours = parity.own_logits(config.model, params, batch)
    del params
    difference = parity.largest_difference(ours, parity.transformers_logits(opened.folder, batch))
    said = parity.in_words(difference, "transformers")
    if not difference <= parity.TOLERANCE:
        raise RunError(f"the imported model is wrong: {said}")
    return [f"compared: {said}", *lines]


def loss_in_words(model: ModelSettings, params: Any, own_tokenizer: Tokenizer, begin: int | None) -> str:
    """The loss of ENGLISH beside that of guessing. A wrong layout or setting would show in it, without transformers."""
    first = [] if begin is None else [begin]
    tokens = np.array([*first, *own_tokenizer.encode(ENGLISH)][: model.max_positions])
    logits_TV = parity.own_logits(model, params, parity.Batch(tokens[None, :-1]))[0].astype(np.float64)
    top_T = logits_TV.max(axis=-1)
    normalizer_T = top_T + np.log(np.exp(logits_TV - top_T[:, None]).sum(axis=-1))
    loss = float((normalizer_T - logits_TV[np.arange(len(tokens) - 1), tokens[1:]]).mean())
    return f"loss of a plain English text: {loss:.2f} nats per token; guessing has {np.log(model.vocab_size):.2f}"


if __name__ == "__main__":
    cli.run(main, flags, arguments=1)
