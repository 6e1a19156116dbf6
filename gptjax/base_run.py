"""A config that goes on from another run: its model, its context and its parameters."""

from __future__ import annotations

from ml_collections import ConfigDict

from gptjax.config import ConfigError, default, from_json
from gptjax.paths import CONFIG, existing_run
from gptjax.settings import thaw

# Fields of a resolved model that follow from the data or the machine, so that another run decides them anew.
_DECIDED_ANEW = ("vocab_size", "dtype", "layers", "attention", "attention_block", "expert_products", "remat")


def start_from_run(config: ConfigDict, workdir: str) -> None:
    """Sets the model, its context and `training.init_from` of a config so that it goes on from another run.

    Raises:
      ConfigError: there is no such run, or its config cannot be read.
    """
    path = existing_run(workdir, "training.init_from") / CONFIG
    try:
        other = thaw(from_json(path.read_bytes(), str(path)))
    except OSError as error:
        raise ConfigError(f"training.init_from = {workdir!r}: {path} cannot be read ({error.strerror})") from None
    fresh = default().model
    config.model.update({field: fresh[field] if field in _DECIDED_ANEW else other.model[field] for field in fresh})
    config.data.sequence_length = other.model.max_positions
    config.training.init_from = workdir
