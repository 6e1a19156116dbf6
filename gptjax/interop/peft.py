"""Adapters in the layout of Hugging Face's PEFT: a folder with adapter_config.json and adapter_model.safetensors.

An adapter of a decoder like Llama or Qwen3 has the names of these models' modules there, so that PEFT adds it to the
model of the same weights. Other adapters have names made in the same way, which only gptjax reads.

    layers/attention/query_lora/a [L, D, r]      base_model.model.model.layers.N.self_attn.q_proj.lora_A.weight [r, D]
    layers/attention/query_lora/b [L, r, N, H]   base_model.model.model.layers.N.self_attn.q_proj.lora_B.weight [N H, r]
    layers/…/query_lora/magnitude [L, N, H]      base_model.model.model.layers.N.self_attn.q_proj.lora_magnitude_vector

Parameters that are trained whole (`model.lora_also`, a classifier's head) are in the file, too. The file's metadata
names the model that the adapter was trained on by the hash of its parameters.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gptjax.config import ConfigError
from gptjax.files import write_aside
from gptjax.files.json_files import parsed
from gptjax.model.families import family_of
from gptjax.model.lora import MAGNITUDE, SUFFIX, A, B, without_adapters
from gptjax.model.parameters import Parameter
from gptjax.settings import ModelSettings

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "gptjax_base"  # in the metadata of WEIGHTS: hash of the base's parameters
_ROOT = "base_model.model."
_PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
_SUBLAYERS = {"attention": "self_attn", "cross_attention": "cross_attn", "feedforward": "mlp"}
_WHOLE = {"embedding": "model.embed_tokens.weight", "head": "lm_head.weight"}
_OF_CLASSIFIER = {"head": "score.weight", "head_bias": "score.bias"}
_EXPERTS = ".experts."  # in the names of routed experts
_PARTS = {A: "lora_A.weight", B: "lora_B.weight", MAGNITUDE: "lora_magnitude_vector"}
# What PEFT's own files may ask for and gptjax's adapters cannot do, with the value that asks for nothing.
_MUST_BE: dict[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
}


def write_adapter(folder: Path, config: ModelSettings, params: Mapping[str, Any], base: str, base_name: str) -> None:
    """Writes the adapter of parameters with adapters into an existing folder.

    Args:
      base: the hash of the base's parameters.
      base_name: where the base is from, for people.
    """
    flat, declared = flatten_dict(params), flatten_dict(family_of(config).declarations)
    tensors = {
        name: np.ascontiguousarray(array)
        for path, parameter in declared.items()
        if parameter.trained
        for name, array in _tensors(config, path, parameter, np.asarray(flat[path]))
    }
    modules = sorted({match[1] for name in tensors if (match := re.search(r"(\w+)\.lora_A\.weight$", name))})
    whole = {name.split(".")[-2] for name in tensors if ".lora_" not in name and name.endswith((".weight", ".bias"))}
    content = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS"
        if config.family == "classifier"
        else "CAUSAL_LM"
        if config.family == "decoder"
        else None,
        "base_model_name_or_path": base_name,
        "r": config.lora_rank,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "use_rslora": config.lora_rslora,
        "use_dora": config.lora_dora,
        "target_modules": modules,
        "modules_to_save": sorted(whole) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    with write_aside(folder / WEIGHTS) as file:
        file.write(save(tensors, {"format": "pt", BASE: base}))
    with write_aside(folder / CONFIG) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def read_adapter(folder: Path, config: ModelSettings) -> tuple[ModelSettings, dict[str, Any], str]:
    """Reads the adapter in a folder for a base with these settings.

    Returns:
      The settings with the adapter; its arrays, in a nested dict like that of the parameters; and the hash of the base
      that it was trained on, '' if the file does not say.

    Raises:
      ConfigError: a file is missing or damaged, asks for something that is not supported, or does not fit the base.
    """
    content = parsed(_bytes(folder / CONFIG), str(folder / CONFIG), "write the adapter again")
    for field, wanted in _MUST_BE.items():
        if content.get(field, wanted) not in (wanted, None):
            raise ConfigError(f"{folder / CONFIG}: {field} = {content[field]!r}: must be {wanted!r}")
    arrays, base = _read_tensors(folder / WEIGHTS)
    fields = {"rank": "r", "alpha": "lora_alpha", "rslora": "use_rslora", "dora": "use_dora"}
    values: dict[str, Any] = {}
    for field, theirs in fields.items():
        kind = type(ModelSettings()[f"lora_{field}"])
        if not isinstance(value := content.get(theirs, kind()), int | float):
            raise ConfigError(f"{folder / CONFIG}: {theirs} = {value!r}: must be a number")
        values[f"lora_{field}"] = kind(value)
    plain = without_adapters(config)
    if not values["lora_rank"] > 0:
        raise ConfigError(f"{folder / CONFIG}: r = {content.get('r')!r}: must be positive")
    target = ".*" if any(_EXPERTS in name for name in arrays) else ""
    every = dataclasses.replace(plain, lora_target=target, **values)
    declared, found, used = flatten_dict(family_of(every).declarations), {}, set()
    whole = []
    for path, parameter in declared.items():
        names = dict(_tensors(every, path, parameter, np.empty(parameter.shape, np.float32)))
        present = names.keys() & arrays.keys()
        if not present:
            continue
        if missing := names.keys() - present:
            raise ConfigError(f"{folder / WEIGHTS}: {min(missing)} is missing: every layer must have its adapter")
        for name, like in names.items():
            if arrays[name].shape != like.shape:
                has, needs = list(arrays[name].shape), list(like.shape)
                raise ConfigError(f"{folder / WEIGHTS}: {name} has shape {has}; the base needs {needs}")
        used |= present
        found[path] = _joined(every, path, parameter, arrays)
        if not _is_adapter(path):
            whole.append(re.escape("/".join(path)))
    if unknown := sorted(arrays.keys() - used):
        raise ConfigError(
            f"{folder / WEIGHTS}: {unknown[0]} belongs to no parameter of the base: it is an adapter of another model"
        )
    adapted = (path[:-1] for path in found if _is_adapter(path))
    targets = dict.fromkeys("/".join(path).removesuffix(SUFFIX) for path in adapted)
    target, also = "|".join(map(re.escape, targets)), "|".join(whole)
    return dataclasses.replace(every, lora_target=target, lora_also=also), unflatten_dict(found), base


def _is_adapter(path: tuple[str, ...]) -> bool:
    return len(path) > 1 and path[-2].endswith(SUFFIX)


def _tensors(
    config: ModelSettings, path: tuple[str, ...], parameter: Parameter, array: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) in the file for each array of a parameter: one for each layer of an adapter."""
    if not _is_adapter(path):
        yield _ROOT + _whole_name(config, path), array.T if _is_transposed(path) else array
        return
    for place in _members(parameter):
        yield _adapter_name(config, path, *place), _outputs_first(path, parameter, array[place])


def _joined(config: ModelSettings, path: tuple[str, ...], parameter: Parameter, arrays: Mapping) -> np.ndarray:
    """The parameter, from its arrays in the file."""
    if not _is_adapter(path):
        array = arrays[_ROOT + _whole_name(config, path)]
        return (array.T if _is_transposed(path) else array).astype(np.float32)
    layers = [arrays[_adapter_name(config, path, *place)] for place in _members(parameter)]
    layers = [layer if path[-1] == MAGNITUDE else layer.T for layer in layers]
    return np.stack(layers).reshape(parameter.shape).astype(np.float32)


def _members(parameter: Parameter) -> Iterator[tuple[int, ...]]:
    """The place of each array of the file in the parameter: (layer,), or (layer, expert)."""
    return np.ndindex(*parameter.stack.values())


def _outputs_first(path: tuple[str, ...], parameter: Parameter, layer: np.ndarray) -> np.ndarray:
    """A layer's array as PyTorch stores it: [out, in]."""
    if path[-1] == MAGNITUDE:
        return layer.reshape(-1)
    inputs = int(np.prod(list(parameter.inputs.values())))
    return layer.reshape(inputs, -1).T


def _adapter_name(config: ModelSettings, path: tuple[str, ...], index: int, expert: int | None = None) -> str:
    *stack, inner = _split(path)
    layer = index + (config.first_dense_layers if stack[-1] == "layers" else 0)
    side = "encoder." if "encoder" in stack else "decoder." if config.family == "encoder_decoder" else ""
    sublayer, *between, matrix, part = inner
    matrix = matrix.removesuffix(SUFFIX)
    projection = _PROJECTIONS.get(matrix, f"{matrix}_proj")
    between = between if expert is None else [*between, _EXPERTS.strip("."), str(expert)]
    names = [_SUBLAYERS.get(sublayer, sublayer), *between, projection, _PARTS[part]]
    return f"{_ROOT}model.{side}layers.{layer}." + ".".join(names)


def _split(path: tuple[str, ...]) -> tuple:
    """(names up to the stack, …, names inside of a layer)"""
    at = next(number for number, name in enumerate(path) if name in ("layers", "first_layers"))
    return (*path[: at + 1], path[at + 1 :])


def _whole_name(config: ModelSettings, path: tuple[str, ...]) -> str:
    if config.family == "classifier" and len(path) == 1:
        return _OF_CLASSIFIER[path[0]]
    name = path[-1] if path[:-1] in ((), ("body",)) else ""
    return _WHOLE.get(name, "gptjax." + ".".join(path))


def _is_transposed(path: tuple[str, ...]) -> bool:
    return path[-1] == "head"


def _read_tensors(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a file, and the hash of the base in its metadata."""
    _bytes(path, only_check=True)
    try:
        with safe_open(str(path), framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get(BASE, "")
    except (SafetensorError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: is not a file of arrays that can be read ({error})") from None


def _bytes(path: Path, only_check: bool = False) -> bytes:
    try:
        with open(path, "rb") as file:
            return b"" if only_check else file.read()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
