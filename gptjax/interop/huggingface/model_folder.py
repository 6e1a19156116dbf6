"""A model as a folder of transformers: config.json and weights, written from our parameters and read into them."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from gptjax.config import ConfigError
from gptjax.display.formatting import counted
from gptjax.files import write_aside
from gptjax.files.json_files import parsed
from gptjax.interop.huggingface.families import family_of_config
from gptjax.interop.huggingface.family import Family
from gptjax.interop.huggingface.tensors import Place, Written, first_layers_of, places_of, written_tensors
from gptjax.interop.huggingface.weights import DTYPES, Weights, write_weights
from gptjax.model.families import family_of
from gptjax.settings import ModelSettings

CONFIG = "config.json"


# --- writing ----------------------------------------------------------------------------------------------------------


def write_model(
    folder: Path,
    family: Family,
    model: ModelSettings,
    params: Mapping[str, Any],
    *,
    dtype: str = "float32",
    shard_size: int = 5 * 10**9,
    special_ids: Mapping[str, int | list[int] | None],
    facts: Mapping[str, str],
) -> list[str]:
    """Writes weights and config.json into an existing folder, and returns the names of the files.

    Args:
      family: one that can express the model.
      dtype: the type of the numbers.
      shard_size: bytes of the largest file, unless a single tensor has more.
      special_ids: bos_token_id and so on. They are always written: the defaults of transformers are ids of other
        vocabularies.
      facts: texts for the header of each file of weights.
    """
    tensors = tensors_of(family, model, params)
    files = write_weights(folder, tensors, dtype, shard_size, dict(facts))
    # Version 4 of transformers reads torch_dtype, version 5 dtype.
    content = family.write(model) | {"torch_dtype": dtype, "dtype": dtype, "use_cache": True} | dict(special_ids)
    write_json(folder / CONFIG, content)
    return [*files, CONFIG]


def tensors_of(family: Family, model: ModelSettings, params: Mapping[str, Any]) -> list[Written]:
    """The tensors of an export; none is computed yet."""
    places = places_of(family.layouts[0](model), family_of(model).declarations)
    return list(written_tensors(places, family.constants(model), model, params))


def as_written(family: Family, model: ModelSettings, params: dict[str, Any], dtype: str) -> dict[str, Any]:
    """float32 parameters with the values that they have after they were written as `dtype` and read.

    The tree that is given is emptied meanwhile, so that there is one copy of the parameters, and not two.
    """
    places = places_of(family.layouts[0](model), family_of(model).declarations)
    flat = {}
    for path in list(flatten_dict(params)):
        *folders, name = path
        array = functools.reduce(dict.__getitem__, folders, params).pop(name)
        minus = places["/".join(path)].tensor.minus
        if dtype != "float32" or minus:
            array = (array - minus).astype(DTYPES[dtype]).astype(np.float32) + minus
        flat[path] = array
    return unflatten_dict(flat)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    with write_aside(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Opened:
    """A folder whose config.json and whose names and shapes of tensors fit; the numbers are not read yet.

    Attributes:
      content: config.json.
      model: the model's resolved settings.
      left: what was not used, in words: keys of config.json, and buffers.
      places, names: our path → where its numbers are; → (layer, expert) → the name of the tensor.
    """

    folder: Path
    family: Family
    content: dict[str, Any]
    model: ModelSettings
    left: list[str]
    weights: Weights
    places: dict[str, Place]
    names: dict[str, dict[tuple[int, ...], str]]

    def params(self, like: Any = None) -> dict[str, Any]:
        """The parameters, float32; raises ConfigError if a number is not finite.

        Args:
          like: a tree of `jax.ShapeDtypeStruct` with shardings: each device's part is read by itself, so that no more
            than one part of one parameter is in the host's memory. None: whole, on one device.
        """
        wanted = {"/".join(path): leaf for path, leaf in flatten_dict(like or {}).items()}
        flat = {}
        for path, place in self.places.items():
            read = functools.partial(place.read, name_of=self.names[path], get=self.weights.get)
            if like is None:
                flat[path] = jax.numpy.asarray(read((slice(None),) * len(place.declared.shape)))
            else:
                flat[path] = jax.make_array_from_callback(place.declared.shape, wanted[path].sharding, read)
        return unflatten_dict({tuple(path.split("/")): array for path, array in flat.items()})


def open_model(folder: Path) -> Opened:
    """Opens a folder of transformers.

    Raises:
      ConfigError: config.json or a file of weights is missing or damaged; it is of an unknown family, or of one with
        options that gptjax cannot express; a tensor is missing, of another shape, or belongs to nothing.
    """
    if not (folder / CONFIG).exists():
        raise ConfigError(f"{folder}: must be the folder of a model as transformers saves it; it has no {CONFIG}")
    content = read_json(folder / CONFIG)
    source = str(folder / CONFIG)
    family = family_of_config(content, source)
    model, left = family.read(content, source)
    declared = family_of(model).declarations
    weights = Weights(folder)
    places, names = _layout(family, model, declared, weights)
    for path, place in places.items():
        for name in names[path].values():
            if (shape := weights.shape(name)) != place.shape:
                raise ConfigError(
                    f"{folder}: {name} has shape {list(shape)}; by {CONFIG} it must have {list(place.shape)}"
                )
    used = {name for named in names.values() for name in named.values()}
    left = left + _unused(family, model, weights, used)
    return Opened(folder, family, content, model, left, weights, places, names)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ConfigError if there is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    return parsed(data, str(path), "download it again")


def _layout(
    family: Family, model: ModelSettings, declared: Any, weights: Weights
) -> tuple[dict[str, Place], dict[str, dict[tuple[int, ...], str]]]:
    """The places of all parameters in that layout of the family that the files have, and the names of the tensors."""
    best: list[str] | None = None
    for layout in family.layouts:
        places = places_of(layout(model), declared)
        most = max(place.count for place in places.values())
        if most > len(weights.names):  # also before a wrong config.json asks for a billion names
            raise ConfigError(
                f"{weights.folder}: has {counted(len(weights.names), 'tensor')}; by {CONFIG} there must be at least "
                f"{most:,}"
            )
        names = {
            path: {
                index: _found(family, name, weights)
                for index, name in place.names(first_layers_of(path, model)).items()
            }
            for path, place in places.items()
        }
        missing = sorted({name for named in names.values() for name in named.values()} - weights.names)
        if not missing:
            return places, names
        best = missing if best is None or len(missing) < len(best) else best
    assert best
    hint = " (tie_word_embeddings is false)" if best == ["lm_head.weight"] else ""
    more = f", and {len(best) - 1:,} other tensors" if len(best) > 1 else ""
    raise ConfigError(f"{weights.folder}: {best[0]}{more} is missing{hint}")


def _found(family: Family, name: str, weights: Weights) -> str:
    """The name that a file has: it may leave out the prefix, or have the tensor under another name."""
    others = [alias for alias, original in (family.aliases or {}).items() if original == name]
    for each in (name, name.removeprefix(family.prefix), *others):
        if each in weights.names:
            return each
    return name


def _unused(family: Family, model: ModelSettings, weights: Weights, used: Iterable[str]) -> list[str]:
    """What is in the files and not used, in words.

    Raises:
      ConfigError: a tensor belongs to no parameter, or has other values than the one that it should repeat.
    """
    left, constants = [], {constant.name: constant for constant in family.constants(model)}
    aliases, buffers = family.aliases or {}, 0
    for name in sorted(weights.names - set(used)):
        if name in aliases and model.tied_embeddings:
            _check_equal(weights, name, _whole(weights, _found(family, aliases[name], weights)), aliases[name])
            left.append(f"{name}: repeats {aliases[name]}")
        elif name in constants:
            _check_equal(weights, name, constants[name].value(model), "what config.json says")
        elif family.is_ignored(name, model):
            buffers += 1
        else:
            raise ConfigError(
                f"{weights.folder}: {name} belongs to no parameter of {family.architecture} with the settings in "
                f"{CONFIG}"
            )
    return left + ([f"{counted(buffers, 'tensor')} without effect, such as masks and frequencies"] if buffers else [])


def _whole(weights: Weights, name: str) -> np.ndarray:
    return weights.get(name)[tuple(slice(0, size) for size in weights.shape(name))]


def _check_equal(weights: Weights, name: str, expected: np.ndarray, source: str) -> None:
    shape = weights.shape(name)
    if shape != expected.shape or not np.allclose(
        _whole(weights, name).astype(np.float32), expected.astype(np.float32), atol=1e-6
    ):
        raise ConfigError(f"{weights.folder}: {name} differs from {source}, which it must repeat")
