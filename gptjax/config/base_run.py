"""A config that continues from another run, with its model, its context and its parameters."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from gptjax.config.access import default
from gptjax.config.saved import from_json
from gptjax.errors import ConfigError
from gptjax.files.paths import CONFIG, existing_run
from gptjax.settings import thaw

# Fields of a resolved model that follow from the data or the machine, so that another run decides them anew.
_DECIDED_ANEW = ("vocab_size", "dtype", "layers", "attention", "attention_block", "expert_products", "remat")


class NoBase(ConfigError):
    """There is no such run to start from. run: its folder, as the config names it."""

    def __init__(self, message: str, run: str):
        super().__init__(message)
        self.run = run


def start_from_run(config: ConfigDict, workdir: str) -> None:
    """Sets the model, its context and `training.init_from` of a config so that it continues from another run.

    Raises:
      NoBase: there is no such run.
      ConfigError: its config cannot be read.
    """
    try:
        path = existing_run(workdir, "training.init_from") / CONFIG
    except ConfigError as error:
        raise NoBase(str(error), workdir) from None
    other = _config_in(path)
    fresh = default().model
    config.model.update({field: fresh[field] if field in _DECIDED_ANEW else other.model[field] for field in fresh})
    config.data.sequence_length = other.model.max_positions
    config.training.init_from = workdir


def config_to_resume(workdir: str, base: str) -> ConfigDict | None:
    """The config that the run in `workdir` has kept, if it started from the run `base`, which need not exist any more.

    Raises:
      ConfigError: the config in `workdir` cannot be read.
    """
    path = Path(workdir).expanduser() / CONFIG
    if not path.is_file():
        return None
    kept = _config_in(path)
    return kept if kept.training.init_from == base else None


def _config_in(path: Path) -> ConfigDict:
    try:
        return thaw(from_json(path.read_bytes(), str(path)))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
