"""How an exported model is loaded: commands of the programs that compute its function, for reports and model cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from gptjax.config import ConfigError
from gptjax.interop.huggingface.family import Family
from gptjax.interop.huggingface.model_folder import open_model
from gptjax.interop.huggingface.programs import loading
from gptjax.reporting.document import Block, Code, Note, Paragraph
from gptjax.reporting.facts import RunFacts
from gptjax.settings import ModelSettings
from gptjax.training.checkpoints.format import hash_of_params
from gptjax.training.checkpoints.loading import saved_metadata

GGUF, MAGIC = ".gguf", b"GGUF"
PROMPT = "Once"


def folder_blocks(family: Family, model: ModelSettings, name: str, chats: bool) -> list[Block]:
    """How to load an exported folder of this name. chats: the model was trained on conversations."""
    blocks: list[Block] = [Paragraph("With transformers:"), Code(transformers_code(model, name, chats))]
    for line in loading(family, model, name):
        program, _, command = line.partition(": ")
        if program != "transformers" and "--format" not in command:
            blocks += [Paragraph(f"With {program}:"), Code(command)]
    return blocks


def transformers_code(model: ModelSettings, name: str, chats: bool) -> str:
    """Python that writes a text with `transformers`."""
    kind = "AutoModelForCausalLM" if model.family == "decoder" else "AutoModelForSeq2SeqLM"
    asked = f'inputs = tokenizer("{PROMPT}", return_tensors="pt")'
    if chats:
        asked = (
            'messages = [{"role": "user", "content": "What can you do?"}]\n'
            "inputs = tokenizer.apply_chat_template(\n"
            '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"\n)'
        )
    return (
        f"from transformers import {kind}, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
        f'model = {kind}.from_pretrained("{name}")\n'
        f"{asked}\n"
        "outputs = model.generate(**inputs, max_new_tokens=100, do_sample=True, temperature=0.8, top_p=0.95)\n"
        "print(tokenizer.decode(outputs[0], skip_special_tokens=True))"
    )


def export_blocks(path: Path, facts: RunFacts) -> list[Block]:
    """How to load what `gptjax export` wrote of a run: a folder of transformers, or a .gguf file.

    Raises:
      ConfigError: it is neither, or damaged.
    """
    if path.suffix == GGUF and path.is_file():
        with open(path, "rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ConfigError(f"--export={path}: is not a GGUF file")
        command = f"llama-cli -m {path.name} -p '{PROMPT}'"
        return [Paragraph("With llama.cpp:"), Code(command)]
    if not path.is_dir():
        raise ConfigError(f"--export={path}: must be a folder that gptjax export wrote, or a .gguf file")
    opened = open_model(path)
    chats = bool(facts.checkpoint and facts.checkpoint.fingerprint.get("template"))
    blocks = folder_blocks(opened.family, opened.model, path.resolve().name, chats)
    if not _is_of(path, facts):
        blocks.insert(0, Note("The exported folder holds the parameters of another checkpoint than the described one."))
    return blocks


def _is_of(folder: Path, facts: RunFacts) -> bool:
    """Whether the export holds the parameters of the described checkpoint, or their moving average."""
    try:
        with safe_open(str(sorted(folder.glob("*.safetensors"))[0]), framework="numpy") as file:
            header: Any = file.metadata() or {}
        metadata = saved_metadata(facts.run.folder, which=facts.checkpoint.step) if facts.checkpoint else None
    except (SafetensorError, OSError, IndexError):
        return False
    return metadata is not None and header.get("gptjax_run") == hash_of_params(metadata)
