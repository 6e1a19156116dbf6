"""One checkpoint on disk: its parts, its metadata, and checksums that verify what is read.

A checkpoint is an Orbax folder with the parts `params`, `ema` (if there is one) and `optimizer` (everything else that
the next step depends on), so that sampling reads only the parameters. Its metadata are JSON values: the caller's, and
the shape, dtype and checksum of every array. Parameters that the run does not train may lie in a folder beside it,
which its checkpoints share (frozen_parameters.py).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp
from orbax.checkpoint._src.futures.synchronization import OperationIdGenerator

from gptjax.config import ConfigError, RunError
from gptjax.model.tree import leaves_by_path
from gptjax.parallel.distributed import of_process_0
from gptjax.training.checkpoints import checksum
from gptjax.training.checkpoints.frozen_parameters import Frozen, folder_of, nested
from gptjax.training.checkpoints.saved_together import SaveFailedElsewhere, start_together
from gptjax.training.state import TrainState

FORMAT_VERSION = 1
WITH_FROZEN = 3  # the format of a checkpoint that shares a folder of frozen parameters
READ = (FORMAT_VERSION, 2, WITH_FROZEN)  # in format 2, the moving average has the frozen parameters, too
DELETED = "deleted-"  # begins the name of a folder that is being deleted
TEMPORARY = ".orbax-checkpoint-tmp"  # in the name of a folder that is being written
COMMITTED = "commit_success.txt"  # Orbax writes it last, then renames the folder

T = TypeVar("T")


class CheckpointError(RunError):
    """A checkpoint that could not be written or read; the message names it and the reason."""


def start_save(
    path: Path,
    state: TrainState,
    metadata: Mapping,
    sums: Mapping[str, jax.Array] | None = None,
    frozen: Frozen | None = None,
) -> ocp.AsyncResponse:
    """Copies `state` from the devices, then writes it in the background; `.result()` waits and raises any error.

    The folder appears under `path` when it is complete. The arrays may be donated as soon as this returns.

    Args:
      sums: the result of `start_checksums(state)`, if it has already been called.
      frozen: parameters that `state` lacks, which `save_frozen` has written beside `path`.
    """
    arrays = _described_with_sums(leaves_by_path(state), sums)
    described: dict[str, Any] = {"format_version": FORMAT_VERSION, "arrays": arrays}
    if frozen is not None:
        shared = {"folder": frozen.folder, "arrays": sorted(frozen.arrays)}
        described = {"format_version": WITH_FROZEN, "arrays": arrays | frozen.arrays, "frozen": shared}
    return _start_save(path, _parts(state), {**metadata, **described})


def save(path: Path, state: TrainState, metadata: Mapping) -> None:
    """Writes a checkpoint and waits until it is on disk.

    Raises:
      CheckpointError: it could not be written.
    """
    try:
        start_save(path, state, metadata).result()
    except Exception as error:
        raise CheckpointError(f"checkpoint {path} was not written: {reason(error)}") from error


def describe_frozen(arrays: Mapping[str, jax.Array]) -> Frozen:
    """arrays: 'params/…' → array."""
    return Frozen(_described_with_sums(arrays))


def save_frozen(directory: Path, frozen: Frozen, arrays: Mapping[str, jax.Array], is_sound: bool) -> None:
    """Writes the parameters that checkpoints in `directory` share, unless they are there, and waits until they are.

    Args:
      is_sound: whether this run has read or written the folder itself, if it is there. Otherwise it may be damaged, and
        takes the place of the new one again if that cannot be written.

    Raises:
      CheckpointError: they could not be written; raised in all processes.
    """
    path = directory / frozen.folder
    if of_process_0((path / COMMITTED).exists()) and is_sound:
        return
    error: Exception | None = None
    aside = path.with_name(DELETED + path.name)
    try:
        if jax.process_index() == 0 and path.exists():
            path.rename(aside)
    except OSError as failure:
        error = failure
    if in_all(error is None):
        metadata = {"format_version": WITH_FROZEN, "arrays": frozen.arrays}
        try:
            _start_save(path, {"params": nested(_without_prefix(arrays))}, metadata).result()
        except Exception as failure:
            error = failure
    is_written = in_all(error is None)
    if jax.process_index() == 0 and aside.exists():
        if is_written or path.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(path)
    if not is_written:
        why = "another process could not write its part" if error is None else reason(error)
        raise CheckpointError(f"{path} was not written: {why}") from error


def start_checksums(state: Any) -> dict[str, jax.Array]:
    """Starts to compute the checksums of the arrays of `state`, without waiting for them."""
    return checksum.checksums_on_device(leaves_by_path(state))


def _start_save(path: Path, parts: dict[str, Any], metadata: Mapping) -> ocp.AsyncResponse:
    _count_operations_alike()
    with _orbax():
        return start_together(lambda: ocp.save_checkpointables_async(path, parts, custom_metadata=metadata), reason)


def _described_with_sums(arrays: Mapping[str, jax.Array], sums: Mapping[str, jax.Array] | None = None) -> dict:
    values = checksum.fetched(checksum.checksums_on_device(dict(arrays)) if sums is None else sums)
    return {name: {**entry, "checksum": values[name]} for name, entry in _describe(arrays).items()}


def _without_prefix(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("params/"): array for name, array in arrays.items()}


def read_metadata(path: Path) -> dict:
    """The metadata at `path`. Raises CheckpointError if it is damaged or was not written by gptjax."""
    try:
        with _orbax(alone=True):
            metadata = ocp.checkpointables_metadata(path).custom_metadata
        if not isinstance(metadata, dict) or not {"format_version", "arrays", "step"} <= metadata.keys():
            raise ValueError("not written by gptjax")
    except Exception as error:
        raise CheckpointError(f"checkpoint {path} is unreadable: {reason(error)}") from error
    if metadata["format_version"] not in READ:
        version = metadata["format_version"]
        raise ConfigError(f"checkpoint {path} has format {version}; this gptjax reads formats {READ[0]} to {READ[-1]}")
    return metadata


def read_state(path: Path, abstract: TrainState) -> tuple[TrainState, dict]:
    """The state and the metadata at `path`, with arrays sharded like `abstract`.

    Raises:
      ConfigError: the arrays of the checkpoint differ from `abstract` in names, shapes or dtypes.
      CheckpointError: it is damaged, or unreadable for at least one of the processes that share the arrays.
    """

    def read() -> tuple[dict, dict]:
        metadata = read_metadata(path)
        wanted, parts = leaves_by_path(abstract), _parts(abstract)
        unneeded = _averages_of_frozen(metadata, wanted)
        _check_same(path, {name: entry for name, entry in metadata["arrays"].items() if name not in unneeded}, wanted)
        if unneeded:  # Orbax reads a part as a whole
            parts["ema"] = nested(leaves_by_path(parts["ema"]) | {n: wanted[f"params/{n}"] for n in unneeded.values()})
        return _load_parts(path, parts, metadata), metadata

    together = is_shared(abstract)
    parts, metadata = agreed(path, read, together)
    arrays = parts["optimizer"]
    for part in ("params", "ema"):
        arrays |= {f"{part}/{name}": array for name, array in leaves_by_path(parts.get(part)).items()}
    agreed(path, lambda: _check_sums(path, metadata, metadata["arrays"], arrays), together)
    return jax.tree.unflatten(
        jax.tree.structure(abstract), [arrays[name] for name in leaves_by_path(abstract)]
    ), metadata


def _averages_of_frozen(metadata: Mapping, wanted: Mapping[str, Any]) -> dict[str, str]:
    """The moving averages that older versions saved of parameters that no step changes: 'ema/…' → name."""
    saved, has_average = metadata["arrays"], any(name.startswith("ema/") for name in wanted)
    averages = {name: name.removeprefix("ema/") for name in saved if name.startswith("ema/") and name not in wanted}
    return {name: of for name, of in averages.items() if has_average and saved[name] == saved.get(f"params/{of}")}


def means_average(metadata: Mapping, ema: bool | None) -> bool:
    """Whether to read the moving average: `ema`, or, if that is None, whether the checkpoint has one."""
    return any(name.startswith("ema/") for name in metadata["arrays"]) if ema is None else ema


def hash_of_params(metadata: Mapping, ema: bool | None = None) -> str:
    """Twelve hexadecimal digits that identify the parameters of a checkpoint, or their moving average (see
    `means_average`), from the checksums in its metadata."""
    arrays = _of_model(metadata, means_average(metadata, ema))
    return hashlib.sha256(json.dumps(arrays, sort_keys=True).encode()).hexdigest()[:12]


def _of_model(metadata: Mapping, average: bool) -> dict[str, dict]:
    """What the metadata say of each parameter, or of its moving average; frozen parameters are their own average."""
    of_part: dict[str, dict[str, dict]] = {"params": {}, "ema": {}}
    for path, entry in metadata["arrays"].items():
        part, _, name = path.partition("/")
        of_part.get(part, {})[name] = entry
    return of_part["params"] | of_part["ema"] if average else of_part["params"]


def read_params(
    path: Path, ema: bool | None = False, like: Any = None, check: Callable[[dict], Any] = lambda metadata: None
) -> tuple[dict, dict]:
    """The parameters, or their moving average, and the metadata. Reads no files of the other parts.

    Args:
      ema: see `means_average`.
      like: tree of `jax.ShapeDtypeStruct` with shardings; None: as saved, on one device.
      check: is called with the metadata before the arrays are read; may raise ConfigError.

    Raises as `read_state` does.
    """

    def read() -> tuple[dict, dict, dict]:
        metadata = read_metadata(path)
        check(metadata)
        average = means_average(metadata, ema)
        if average and not means_average(metadata, None):
            raise ConfigError(f"checkpoint {path} has no ema: training.ema_decay was 0")
        part, saved = "ema" if average else "params", _of_model(metadata, average)
        wanted = _as_saved(saved) if like is None else like
        _check_same(path, saved, leaves_by_path(wanted))
        return _load_parts(path, {part: wanted}, metadata)[part], saved, metadata

    together = is_shared(like)
    params, saved, metadata = agreed(path, read, together)
    agreed(path, lambda: _check_sums(path, metadata, saved, leaves_by_path(params)), together)
    return params, metadata


def reason(error: BaseException) -> str:
    """The root cause in one line: storage errors are wrapped, and print long lists of their options."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, SaveFailedElsewhere):
        return str(error)
    text = str(error).strip().split("\n")[0].split(" [tensorstore_spec")[0].split(" [os_error")[0]
    if len(text) > 300:  # the start says what failed, the end says why
        text = f"{text[:80]} … {text[-200:]}"
    return f"{type(error).__name__}: {text}"


def _parts(state: TrainState) -> dict[str, Any]:
    """The parts as plain dicts: with an optimizer's tuples and classes, the files would depend on one version of
    Optax."""
    trees = {
        "params": state.params,
        "ema": None if state.ema is None else nested(leaves_by_path(state.ema)),
        "optimizer": leaves_by_path(state.replace(params=None, ema=None)),
    }
    return {name: tree for name, tree in trees.items() if tree is not None}


def _load_parts(path: Path, parts: dict[str, Any], metadata: Mapping) -> dict[str, Any]:
    """The parts as arrays. Frozen parameters, and their average, are read from the folder that has them.

    Raises:
      CheckpointError: that folder is missing or damaged.
    """
    if (folder := folder_of(path, metadata)) is None:
        return _load(path, parts)
    still = metadata["frozen"]["arrays"]
    own = metadata["arrays"].keys() - set(still)
    wanted = {part: leaves_by_path(tree) for part, tree in parts.items() if part != "optimizer"}
    trained = {part: {n: leaf for n, leaf in of.items() if f"{part}/{n}" in own} for part, of in wanted.items()}
    found = _load(path, parts | {part: nested(leaves) for part, leaves in trained.items()})
    for part, leaves in wanted.items():
        arrays = leaves_by_path(found[part])
        if missing := {name: leaf for name, leaf in leaves.items() if name not in arrays}:
            arrays |= _load_frozen(path, folder, missing)
        found[part] = jax.tree.unflatten(jax.tree.structure(parts[part]), [arrays[name] for name in leaves])
    return found


def _load_frozen(path: Path, folder: Path, leaves: Mapping[str, Any]) -> dict[str, jax.Array]:
    what = f"checkpoint {path} is unreadable: {folder}, which has the parameters that are not trained,"
    if not (folder / COMMITTED).exists():
        raise CheckpointError(f"{what} is missing; copy it with the checkpoints")
    try:
        return leaves_by_path(_load(folder, {"params": nested(leaves)})["params"])
    except Exception as error:
        raise CheckpointError(f"{what} is damaged: {reason(error)}") from error


def _load(path: Path, parts: dict[str, Any]) -> dict[str, Any]:
    with _orbax(alone=True):
        return ocp.load_checkpointables(path, parts)


def _orbax(alone: bool = False) -> ocp.Context:
    """Orbax's options. Processes write together, but each reads independently: otherwise one failure would hang the
    others."""
    context = ocp.Context()
    # Compression makes trained floats 8 % smaller but takes 2.5 times as long.
    context.array.saving.use_compression = False
    if alone:
        context.multiprocessing_options.primary_host = jax.process_index()
        context.multiprocessing_options.active_processes = {jax.process_index()}
    return context


def _count_operations_alike() -> None:
    """Orbax names the barriers of a save by the number of operations that a process has begun. After a load that failed
    early in only one process, the processes would wait at different barriers in every save of the run."""
    if jax.process_count() > 1:
        most = multihost_utils.process_allgather(np.int32(OperationIdGenerator.get_current_operation_id())).max()
        while int(OperationIdGenerator.get_current_operation_id()) < most:
            OperationIdGenerator.next_operation_id()


def is_shared(abstract: Any) -> bool:
    """Whether other processes also hold parts of these arrays, so that all of them read the arrays together."""
    return not all(leaf.sharding.is_fully_addressable for leaf in jax.tree.leaves(abstract))


def in_all(good: bool) -> bool:
    """Whether something is true in all processes, which must all call this."""
    return good if jax.process_count() == 1 else bool(np.all(multihost_utils.process_allgather(np.array(good))))


def agreed(path: Path, read: Callable[[], T], together: bool) -> T:
    """The result of `read`, which reads the checkpoint at `path`.

    together: all processes call this, and if `read` fails in any of them, all raise CheckpointError. Otherwise the
      processes would continue with different checkpoints.
    """
    error: Exception | None = None
    result: list[T] = []
    try:
        result.append(read())
    except ConfigError:
        raise
    except Exception as failure:
        error = failure
    good = error is None
    if in_all(good) if together else good:
        return result[0]
    if isinstance(error, CheckpointError):
        raise error
    why = "it is damaged, or cannot be read, in another process" if error is None else reason(error)
    raise CheckpointError(f"checkpoint {path} is unreadable: {why}") from error


def on_one_device(shapes: Any) -> Any:
    """The shapes with the sharding of an array on this process's first device."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


def _as_saved(saved: Mapping[str, Mapping]) -> dict:
    """The named arrays as an abstract nested tree, on one device."""
    tree: dict = {}
    for name, entry in saved.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = jax.ShapeDtypeStruct(entry["shape"], entry["dtype"])
    return on_one_device(tree)


def _describe(arrays: Mapping[str, Any]) -> dict[str, dict]:
    return {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in arrays.items()}


def _check_same(path: Path, saved: Mapping[str, Mapping], wanted: Mapping[str, Any]) -> None:
    """Raises ConfigError, before anything is read, unless names, shapes and dtypes of the arrays are equal."""

    def show(entry: Mapping | None) -> str:
        return f"{entry['dtype']}{entry['shape']}" if entry else "missing"

    expected = _describe(wanted)
    lines = [
        f"{name} is {show(saved.get(name))} in the checkpoint and {show(expected.get(name))} in this run"
        for name in sorted({*expected, *saved})
        if show(expected.get(name)) != show(saved.get(name))
    ]
    if lines:
        more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise ConfigError(f"checkpoint {path} does not fit: {'; '.join(lines[:5])}{more}")


def _check_sums(path: Path, metadata: Mapping, saved: Mapping[str, Mapping], restored: Mapping[str, jax.Array]) -> None:
    damaged = [name for name, value in checksum.checksums(restored).items() if value != saved[name]["checksum"]]
    if damaged:
        still = metadata["frozen"]["arrays"] if "frozen" in metadata else ()
        are_shared = all(name in still or f"params/{name}" in still for name in damaged)
        where = f", in {folder_of(path, metadata)}, which other checkpoints share" if are_shared else ""
        raise CheckpointError(
            f"checkpoint {path} is damaged: these arrays differ from what was saved: {', '.join(damaged[:5])}{where}"
        )
