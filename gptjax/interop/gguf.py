"""Writes a model as a GGUF file (docs/gguf.md of ggml), which llama.cpp and programs built on it load.

The tensors are those of the export for transformers, and the settings those of its config.json: gguf's own table has
the names of both. Only what llama.cpp computes exactly is written; everything else is refused by its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.config import ConfigError
from gptjax.conversation import Template
from gptjax.interop.gguf_tokenizer import add_tokenizer
from gptjax.interop.huggingface.tensors import Written
from gptjax.tokenizer import Tokenizer

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}  # their names there
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
BLOCK = 32  # numbers of q8_0 that share a scale


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp knows a family of transformers.

    Attributes:
      name: its architecture there.
      permuted: whether the rows of queries and keys are in the order of neighbouring pairs, rather than of halves.
      has_head: whether the output matrix has to be written even if it is the table of tokens.
    """

    name: str
    permuted: bool = False
    has_head: bool = False


ARCHITECTURES = {  # by model_type
    "llama": Architecture("llama", permuted=True),
    "mistral": Architecture("llama", permuted=True),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "olmo2": Architecture("olmo2", has_head=True),
}
# Keys of config.json that must have these values, or be missing.
PLAIN = {"hidden_act": ("silu",), "rope_scaling": (None,), "sliding_window": (None,), "use_sliding_window": (False,)}


def write_gguf(
    path: Path,
    content: Mapping[str, Any],
    tensors: Sequence[Written],
    tokenizer: Tokenizer,
    template: Template | None,
    *,
    begin_id: int | None,
    dtype: str = "float32",
    title: str = "gptjax",
) -> list[str]:
    """Writes a file, and returns what the user should know. One tensor at a time is in memory.

    Args:
      content: config.json of the export.
      tensors: of the export.
      template: of the conversations that the model was trained on; None: it was not.
      begin_id: the token that begins a text; None: there is none.
      dtype: of the matrices, one of DTYPES; vectors are float32.
      title: the model's name, for people.

    Raises:
      ConfigError: llama.cpp does not compute this model or tokenizer; gguf is not installed; a number is not finite.
    """
    try:
        import gguf
    except ImportError:
        raise ConfigError("--format=gguf: the package gguf is not installed (pip install 'gptjax[gguf]')") from None
    check_model(content)
    architecture = ARCHITECTURES[content["model_type"]]
    writer = gguf.GGUFWriter(None, architecture.name)
    _add_settings(writer, content, gguf.LlamaFileType[("ALL_" if dtype == "float32" else "MOSTLY_") + DTYPES[dtype]])
    writer.add_name(title)
    notes = add_tokenizer(writer, tokenizer, template, begin_id, content["vocab_size"])
    if architecture.has_head and content["tie_word_embeddings"]:
        tensors = [*tensors, *(replace(each, name=HEAD) for each in tensors if each.name == EMBEDDING)]
    types = []
    for tensor, name in zip(tensors, tensor_names(content, tensors)):
        types.append(kind := _type_of(gguf, tensor, dtype))
        # NumPy has no type for the others: they are written as bytes.
        number = np.dtype({"F32": np.float32, "F16": np.float16}.get(kind.name, np.uint8))
        shape = gguf.quant_shape_to_byte_shape(tensor.shape, kind) if number == np.uint8 else tensor.shape
        writer.add_tensor_info(name, shape, number, math.prod(shape) * number.itemsize, raw_dtype=kind)
    if dtype == "q8_0" and (odd := [each.name for each in tensors if len(each.shape) > 1 and each.shape[-1] % BLOCK]):
        notes.append(f"{odd[0]} and others are float32: their width is no multiple of {BLOCK}, as q8_0 needs")
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, kind in zip(tensors, types):
            writer.write_tensor_data(gguf.quantize(as_there(tensor, content), kind))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        writer.close()
    return notes


def check_model(content: Mapping[str, Any]) -> None:
    """Raises ConfigError if llama.cpp does not compute the model of this config.json exactly."""
    kind = content["model_type"]
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ConfigError(f"--format=gguf: model_type = {kind!r}: must be one of {known} (--family chooses)")
    for key, allowed in PLAIN.items():
        if key in content and content[key] not in allowed:
            raise ConfigError(f"--format=gguf: {key} = {content[key]!r}: must be {allowed[0]!r}")
    rope = content.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default" or rope.get("partial_rotary_factor", 1) != 1:
        raise ConfigError(f"--format=gguf: rope_parameters = {rope!r}: only rope_type = 'default' can be written")


def tensor_names(content: Mapping[str, Any], tensors: Sequence[Written]) -> list[str]:
    """The names of these tensors in a GGUF file. Raises ConfigError if one has no place there."""
    import gguf

    name = ARCHITECTURES[content["model_type"]].name
    number = next(number for number, each in gguf.MODEL_ARCH_NAMES.items() if each == name)
    table = gguf.get_tensor_name_map(number, content["num_hidden_layers"])
    found = [table.get_name(tensor.name, try_suffixes=(".weight", ".bias")) for tensor in tensors]
    for tensor, there in zip(tensors, found):
        if there is None:
            raise ConfigError(f"--format=gguf: {name} of llama.cpp has no tensor {tensor.name}")
    return [there for there in found if there is not None]


def as_there(tensor: Written, content: Mapping[str, Any]) -> np.ndarray:
    """The float32 values of a tensor, with rows in the order that llama.cpp expects.

    Raises:
      ConfigError: a number is not finite.
    """
    array = np.ascontiguousarray(tensor.value().astype(np.float32))
    if not np.isfinite(array).all():
        bad = np.count_nonzero(~np.isfinite(array))
        raise ConfigError(f"{tensor.name} has {bad:,} numbers that are not finite: such a model cannot be exported")
    heads = content["num_attention_heads"]
    of_keys = content.get("num_key_value_heads") or heads
    for part, count in (("q_proj", heads), ("k_proj", of_keys)):
        if ARCHITECTURES[content["model_type"]].permuted and f".{part}." in tensor.name:
            halves = array.reshape(count, 2, len(array) // count // 2, *array.shape[1:])
            array = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))
    return array


def _add_settings(writer: Any, content: Mapping[str, Any], file_type: int) -> None:
    heads = content["num_attention_heads"]
    width = content.get("head_dim") or content["hidden_size"] // heads
    writer.add_context_length(content["max_position_embeddings"])
    writer.add_embedding_length(content["hidden_size"])
    writer.add_block_count(content["num_hidden_layers"])
    writer.add_feed_forward_length(content["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(content.get("num_key_value_heads") or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float((content.get("rope_parameters") or content)["rope_theta"]))
    writer.add_layer_norm_rms_eps(content["rms_norm_eps"])
    writer.add_vocab_size(content["vocab_size"])
    writer.add_file_type(file_type)


def _type_of(gguf: Any, tensor: Written, dtype: str) -> Any:
    """The type in which a tensor is written; llama.cpp computes with vectors in float32."""
    plain = len(tensor.shape) == 1 or (dtype == "q8_0" and tensor.shape[-1] % BLOCK)
    return gguf.GGMLQuantizationType["F32" if plain else DTYPES[dtype]]
