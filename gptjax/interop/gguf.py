"""Writes a model as a GGUF file (docs/gguf.md of ggml), which llama.cpp and programs built on it load.

The tensors are those of the export for transformers, under the names that gguf's own table has for them. Only what
llama.cpp computes exactly is written; everything else is refused by its name.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.config import ConfigError
from gptjax.conversation import Template
from gptjax.interop.gguf_model import ARCHITECTURES, WITH_GELU, add_settings, check_model, rope_factors
from gptjax.interop.gguf_tokenizer import add_tokenizer
from gptjax.interop.huggingface.tensors import Written
from gptjax.tokenizer import Tokenizer

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}  # their names there
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ROPE_FACTORS, ROUTER = "rope_freqs.weight", ".ffn_gate_inp."  # names there
BLOCK = 32  # numbers of q8_0 that share a scale


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
    add_settings(writer, content)
    writer.add_file_type(gguf.LlamaFileType[("ALL_" if dtype == "float32" else "MOSTLY_") + DTYPES[dtype]])
    writer.add_name(title)
    notes = add_tokenizer(writer, tokenizer, template, begin_id, content["vocab_size"])
    tensors = file_tensors(content, tensors)
    types = []
    for tensor in tensors:
        types.append(kind := _type_of(gguf, tensor, dtype))
        # NumPy has no type for the others: they are written as bytes.
        number = np.dtype({"F32": np.float32, "F16": np.float16}.get(kind.name, np.uint8))
        shape = gguf.quant_shape_to_byte_shape(tensor.shape, kind) if number == np.uint8 else tensor.shape
        writer.add_tensor_info(tensor.name, shape, number, math.prod(shape) * number.itemsize, raw_dtype=kind)
    wide = [tensor for tensor in tensors if len(tensor.shape) > 1 and ROUTER not in tensor.name]
    if content["model_type"] in WITH_GELU:
        notes.append("llama.cpp takes GELU from a table of 16 bits on CPUs: logits differ by up to a thousandth")
    if dtype == "q8_0" and (odd := [tensor.name for tensor in wide if tensor.shape[-1] % BLOCK]):
        notes.append(f"{odd[0]} and others are float32: their width is no multiple of {BLOCK}, as q8_0 needs")
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, kind in zip(tensors, types):
            writer.write_tensor_data(gguf.quantize(tensor.value(), kind))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        writer.close()
    return notes


def file_tensors(content: Mapping[str, Any], tensors: Sequence[Written]) -> list[Written]:
    """The tensors of a GGUF file, under their names there, with float32 values; none is computed yet.

    Args:
      content: config.json of the export.
      tensors: of the export.

    Raises:
      ConfigError: a tensor has no place in the file.
    """
    import gguf

    architecture = ARCHITECTURES[content["model_type"]]
    number = next(number for number, each in gguf.MODEL_ARCH_NAMES.items() if each == architecture.name)
    table = gguf.get_tensor_name_map(number, content["num_hidden_layers"])
    if architecture.has_head and content["tie_word_embeddings"]:
        tensors = [*tensors, *(replace(each, name=HEAD) for each in tensors if each.name == EMBEDDING)]
    found = []
    for tensor in _joined_experts(tensors):
        there = table.get_name(tensor.name, try_suffixes=(".weight", ".bias"))
        if there is None:
            raise ConfigError(f"--format=gguf: {architecture.name} of llama.cpp has no tensor {tensor.name}")
        found.append(Written(there, tensor.shape, functools.partial(_as_there, tensor, content)))
    if (factors := rope_factors(content)) is not None:
        found.append(Written(ROPE_FACTORS, factors.shape, lambda: factors))
    return found


def _joined_experts(tensors: Sequence[Written]) -> list[Written]:
    """The matrices of all experts of a layer are one tensor, [experts, outputs, inputs]."""
    joined: dict[str, list[Written]] = {}
    for tensor in tensors:
        joined.setdefault(re.sub(r"\.experts\.\d+\.", ".experts.", tensor.name), []).append(tensor)

    def stacked(parts: list[Written]) -> np.ndarray:
        return np.stack([part.value() for part in parts])

    found = []
    for name, parts in joined.items():
        one = Written(name, (len(parts), *parts[0].shape), functools.partial(stacked, parts))
        found.append(parts[0] if parts[0].name == name else one)
    return found


def _as_there(tensor: Written, content: Mapping[str, Any]) -> np.ndarray:
    """The float32 values of a tensor, with rows in the order that llama.cpp expects.

    Raises:
      ConfigError: a number is not finite.
    """
    architecture = ARCHITECTURES[content["model_type"]]
    array = np.ascontiguousarray(tensor.value().astype(np.float32))
    if not np.isfinite(array).all():
        bad = np.count_nonzero(~np.isfinite(array))
        raise ConfigError(f"{tensor.name} has {bad:,} numbers that are not finite: such a model cannot be exported")
    if tensor.name.endswith("norm.weight"):
        return array + np.float32(architecture.norm_offset)
    heads = content["num_attention_heads"]
    of_keys = content.get("num_key_value_heads") or heads
    for part, count in (("q_proj", heads), ("k_proj", of_keys)):
        if architecture.permuted and f".{part}." in tensor.name:
            halves = array.reshape(count, 2, len(array) // count // 2, *array.shape[1:])
            array = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))
    return array


def _type_of(gguf: Any, tensor: Written, dtype: str) -> Any:
    """The type in which a tensor is written: vectors and routers are float32, as llama.cpp computes with them."""
    plain = len(tensor.shape) == 1 or ROUTER in tensor.name or (dtype == "q8_0" and tensor.shape[-1] % BLOCK)
    return gguf.GGMLQuantizationType["F32" if plain else DTYPES[dtype]]
