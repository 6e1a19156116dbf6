"""The weights of a folder: one safetensors file, or several with an index. Nothing else is read; nothing is executed.

model.safetensors                                  or
model-00001-of-00002.safetensors …, model.safetensors.index.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gptjax.config import ConfigError
from gptjax.files import write_aside
from gptjax.files.json_files import parsed
from gptjax.interop.huggingface.tensors import Written

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
_FLOATS = {"F64", "F32", "F16", "BF16"}  # as safetensors names them
_MAPPED = 64 * 2**20  # bytes after which files are opened anew
_PICKLED = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|pickle)")


class Weights:
    """The tensors of a folder, of which only the slices that are asked for are read.

    safetensors maps files into memory, where what was read stays as long as they are open: beside the parameters, the
    whole folder. They are therefore opened anew from time to time.

    Attributes:
      names: of all tensors.
      bytes_read: of all slices so far.
    """

    def __init__(self, folder: Path):
        self._files: dict[str, Any] = {}
        self._file_of: dict[str, str] = {}
        self.folder = folder
        self.bytes_read = 0
        self._bytes_before = 0  # those read before the files were last opened
        for name in _files_of(folder):
            for tensor in self._opened(name).keys():
                if tensor in self._file_of:
                    raise ConfigError(f"{folder}: {tensor} is in {self._file_of[tensor]} and in {name}")
                self._file_of[tensor] = name
        self.names = frozenset(self._file_of)
        _check_index(folder, self._file_of)

    def get(self, name: str) -> Slices:
        if self.bytes_read - self._bytes_before >= _MAPPED:
            self._files.clear()
            self._bytes_before = self.bytes_read
        return Slices(self, name, self._opened(self._file_of[name]).get_slice(name))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.get(name).slices.get_shape())

    def _opened(self, file: str) -> Any:
        if file not in self._files:
            self._files[file] = _opened(self.folder / file)
        return self._files[file]


class Slices:
    """A tensor of a file; an index with a slice for each axis reads that part of it as a NumPy array."""

    def __init__(self, weights: Weights, name: str, slices: Any):
        self.weights, self.name, self.slices = weights, name, slices

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a part.

        Raises:
          ConfigError: the numbers are not floats, or one of them is not finite.
        """
        if (dtype := self.slices.get_dtype()) not in _FLOATS:
            raise ConfigError(f"{self.weights.folder}: {self.name} has numbers of type {dtype}: must be floats")
        array = self.slices[index]
        self.weights.bytes_read += array.nbytes
        finite = np.isfinite(array)
        if not finite.all():
            raise ConfigError(
                f"{self.weights.folder}: {self.name} has {np.count_nonzero(~finite):,} numbers that are not finite"
            )
        return array


def _files_of(folder: Path) -> list[str]:
    """The names of a folder's safetensors files.

    Raises:
      ConfigError: there are none, the index cannot be read, or a file that it names is missing.
    """
    if (folder / INDEX).is_file():
        index = parsed((folder / INDEX).read_bytes(), str(folder / INDEX), "download it again")
        named = index.get("weight_map")
        if not isinstance(named, dict) or not named or not all(isinstance(file, str) for file in named.values()):
            raise ConfigError(f"{folder / INDEX}: weight_map must be an object that names a file for each tensor")
        files = sorted(set(named.values()))
        for file in files:
            if Path(file).name != file:
                raise ConfigError(f"{folder / INDEX}: {file!r} must be the name of a file in the same folder")
        if missing := [file for file in files if not (folder / file).is_file()]:
            raise ConfigError(
                f"{folder}: {missing[0]} is missing ({len(missing)} of {len(files)} files are); {INDEX} names it"
            )
        return files
    if (folder / WHOLE).is_file():
        return [WHOLE]
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    if shards:
        raise ConfigError(f"{folder}: has {shards[0]}, but neither {WHOLE} nor {INDEX}")
    pickled = sorted(path.name for path in folder.iterdir() if _PICKLED.fullmatch(path.name))
    if pickled:
        raise ConfigError(
            f"{folder}: has {pickled[0]}, but no {WHOLE}: a pickle can run any program when it is opened, so only "
            "safetensors are read; save the model with safe_serialization=True"
        )
    raise ConfigError(f"{folder}: has no {WHOLE}")


def _opened(path: Path) -> Any:
    try:
        return safe_open(str(path), framework="numpy")
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path}: is not a safetensors file that can be read ({error})") from None


def _check_index(folder: Path, file_of: dict[str, str]) -> None:
    if not (folder / INDEX).is_file():
        return
    named = parsed((folder / INDEX).read_bytes(), str(folder / INDEX), "download it again")["weight_map"]
    for tensor, file in named.items():
        if file_of.get(tensor) != file:
            raise ConfigError(f"{folder}: {tensor} is not in {file}, where {INDEX} says it is")


# --- writing ----------------------------------------------------------------------------------------------------------


def write_weights(
    folder: Path, tensors: Sequence[Written], dtype: str, shard_size: int, facts: dict[str, str]
) -> list[str]:
    """Writes tensors into a folder, in several files if they have more than `shard_size` bytes; returns their names.

    At most one file's tensors are in memory at a time.

    Args:
      facts: texts for the header of each file.

    Raises:
      ConfigError: a number is not finite, or is too large for the type.
    """
    number = DTYPES[dtype]
    shards = list(_shards(tensors, number.itemsize, shard_size))
    names = (
        [WHOLE]
        if len(shards) == 1
        else [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    )
    weight_map: dict[str, str] = {}
    total = 0
    for name, shard in zip(names, shards):
        arrays = {tensor.name: _rounded(tensor.name, tensor.value(), number) for tensor in shard}
        # transformers 4 refuses files without a format
        save_file(arrays, str(folder / name), metadata={"format": "pt", **facts})
        (folder / name).chmod(folder.stat().st_mode & 0o666)  # it would be readable by its owner only
        weight_map |= dict.fromkeys(arrays, name)
        total += sum(array.nbytes for array in arrays.values())
        del arrays  # before the next file's are computed
    if len(names) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        with write_aside(folder / INDEX) as file:
            file.write((json.dumps(index, indent=2) + "\n").encode())
    return names


def _shards(tensors: Iterable[Written], item_size: int, shard_size: int) -> Iterator[list[Written]]:
    shard: list[Written] = []
    size = 0
    for tensor in tensors:
        of_tensor = item_size * int(np.prod(tensor.shape, dtype=np.int64))
        if shard and size + of_tensor > shard_size:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += of_tensor
    yield shard


def _rounded(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if not np.isfinite(array).all():
        bad = np.count_nonzero(~np.isfinite(array))
        raise ConfigError(f"{name} has {bad:,} numbers that are not finite: such a model cannot be exported")
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(array.astype(dtype, copy=False))
    if rounded.dtype != array.dtype and not np.isfinite(rounded.astype(np.float32)).all():
        largest = np.abs(array).max()
        raise ConfigError(
            f"{name} has the number {largest:.3g}, which is too large for {dtype.name}; use another --dtype"
        )
    return rounded
