"""What other code reads of a run: the parameters of a checkpoint, the config, the metadata. Nothing here writes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from gptjax import tokenizer
from gptjax.config import ConfigError, from_json, get
from gptjax.config.named_functions import is_named
from gptjax.files.paths import CONFIG, existing_run, local_path
from gptjax.model.families import family_of, merged_model
from gptjax.model.parameters import abstract_params
from gptjax.parallel.distributed import of_process_0
from gptjax.parallel.sharding import placed_params
from gptjax.settings import Settings
from gptjax.training.checkpoints import folder as folders
from gptjax.training.checkpoints import format as files
from gptjax.training.checkpoints.run_metadata import (
    MODEL_MAY_BE_OWN,
    check_same_model,
    check_source_tokenizer,
    check_tokenizer,
)


def load_params(
    workdir: str | Path,
    which: str | int = "latest",
    like: Any = None,
    ema: bool | None = False,
    check: Callable[[dict], Any] = lambda metadata: None,
    setting: str = "--workdir",
) -> tuple[dict, dict]:
    """Reads only the parameters of a run.

    Args:
      which: "latest" (the newest that can be read), "best" (the best score on the windows that were scored last), or a
        step.
      like: tree of `jax.ShapeDtypeStruct` with shardings that the parameters must fit; None: as saved, on one device.
      ema: True reads their moving average instead; None does so if there is one.
      check: is called with the metadata before the arrays are read; may raise ConfigError.
      setting: the flag or field that named the folder, for messages.

    Returns:
      The parameter tree, and the checkpoint's metadata: `step` and the values of `run_metadata`.

    Raises:
      ConfigError: there is no such workdir, checkpoint (lists the available ones) or average, or a shape differs.
      CheckpointError: no checkpoint can be read.
    """
    directory = folders.directory_of(workdir, setting)

    def choose() -> list[int]:
        steps = folders.choose_steps(directory, which, setting)
        # The other run may save a checkpoint meanwhile, which only some processes would see.
        return of_process_0(steps) if files.is_shared(like) else steps

    return folders.newest_readable(directory, choose, lambda path: files.read_params(path, ema, like, check))


def load_tokenizers(
    workdir: str | Path, metadata: dict, setting: str = "--workdir"
) -> tuple[tokenizer.Tokenizer, tokenizer.Tokenizer | None]:
    """A run's tokenizer, and that of the sources of its pairs if they have their own.

    Args:
      metadata: of a checkpoint of the run.
      setting: the flag or field that named the folder, for messages.

    Raises:
      ConfigError: a file is missing or cannot be read, or is not that of the checkpoint.
    """
    own, of_sources = tokenizer.load(workdir), tokenizer.load_of_sources(workdir)
    check_tokenizer(metadata, own.hash, f"{setting}={workdir}")
    check_source_tokenizer(metadata, None if of_sources is None else of_sources.hash, f"{setting}={workdir}")
    return own, of_sources


def load_for_inference(
    workdir: str | Path,
    which: str | int = "latest",
    ema: bool | None = None,
    own_functions: bool = False,
    mesh: Mesh | None = None,
) -> tuple[dict, Settings, dict]:
    """Reads what a model needs to run: parameters on one device, the run's config, the checkpoint's metadata.

    Adapters are merged, and the config is then that of a model without adapters.

    mesh: the parameters are split over its devices instead.
    own_functions: whether the model may import what config.json names as 'module:function'. A run that somebody else
    made can bring the module with it, and importing a module runs it.

    Raises what `load_params` raises, and ConfigError if config.json cannot be read, names such a function without
    permission, or describes a model other than the trained one: an edited config may fit the arrays and compute
    nonsense.
    """
    config = saved_config(workdir)
    for field in MODEL_MAY_BE_OWN:
        if is_named(name := get(config, field)) and not own_functions:
            raise ConfigError(
                f"{local_path(workdir, '--workdir') / CONFIG}: {field} = {name!r} names a function or class, and "
                "importing it runs its module; give --own_functions if you trust it"
            )
    check = functools.partial(check_same_model, config=config, source=str(local_path(workdir, "--workdir") / CONFIG))
    like = None
    if mesh is not None:
        like = placed_params(mesh, family_of(config.model).declarations)
    elif config.model.lora_rank:  # 8-bit weights are not plain arrays
        like = files.on_one_device(abstract_params(family_of(config.model).declarations))
    params, metadata = load_params(workdir, which, like, ema, check)
    params, model = merged_model(config.model, params)
    return params, dataclasses.replace(config, model=model), metadata


def saved_config(workdir: str | Path, setting: str = "--workdir") -> Settings:
    """The config of a run. setting: see `load_params`.

    Raises:
      ConfigError: there is no run, or its config.json cannot be read.
    """
    path = existing_run(workdir, setting) / CONFIG
    try:
        return from_json(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None


def saved_metadata(workdir: str | Path, setting: str = "--workdir", which: str | int = "latest") -> dict | None:
    """The metadata of a run's newest readable checkpoint, or of step `which`; None if there is no checkpoint yet.
    setting: see `load_params`."""
    directory = folders.directory_of(workdir, setting)
    if not folders.steps_in(directory):
        return None
    return folders.newest_readable(
        directory, lambda: folders.choose_steps(directory, which, setting), files.read_metadata
    )


def saved_steps(workdir: str | Path, setting: str = "--workdir") -> list[int]:
    """The steps of a run's complete checkpoints, ascending. Only reads, so it is safe while the run is training."""
    return folders.steps_in(folders.directory_of(workdir, setting))
