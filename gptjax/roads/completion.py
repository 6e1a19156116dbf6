"""Whether a command that ended without an error has made the whole of its result."""

from __future__ import annotations

from pathlib import Path

from gptjax.config import Units, from_json
from gptjax.data.facts import read_facts
from gptjax.files.paths import CONFIG
from gptjax.roads.definition import Stage
from gptjax.training.checkpoints.loading import saved_steps
from gptjax.training.objectives import make_objective


def missing(stage: Stage) -> str:
    """What is missing, in words; "" if nothing is. A run that was asked to stop ends without an error, too.

    Raises:
      ConfigError: the run's config or data cannot be read.
    """
    if stage.makes and not Path(stage.makes).exists():
        return f"{stage.makes} is not there"
    if stage.command[0] == "train":
        run = Path(stage.flag("workdir"))
        step, total = max(saved_steps(run), default=0), steps_of(run)
        if step < total:
            return f"{run} stopped at step {step:,} of {total:,}"
    return ""


def steps_of(run: Path) -> int:
    """The number of steps of a whole run, by its config and its data."""
    config = from_json((run / CONFIG).read_bytes(), str(run / CONFIG))
    rows = config.training.batch_size
    duration = str(config.training.duration)
    windows = read_facts(config.data, make_objective(config).windows).windows_per_epoch if "epoch" in duration else None
    units = Units(rows * config.data.sequence_length, windows / rows if windows else None)
    return units.steps(duration, "training.duration")
