"""A sweep over a tiny model on a folder of bytes."""

import sys

import pytest
from prepared_folders import write_prepared

from gptjax.sweeping.algebra import over
from gptjax.sweeping.definition import Sweep
from gptjax.sweeping.runs import SweepRun, plan_runs
from gptjax.tokenizer import ByteTokenizer

CONFIG = """
from gptjax.config import default


def get_config(arg=""):
    config = default()
    config.model.update(num_layers=2, width=16, num_heads=2)
    config.data.update(path={data!r}, sequence_length=16)
    config.schedule.warmup = "2 steps"
    config.training.update(duration="20 steps", batch_size=4)
    config.checkpoint.every = "10 steps"
    config.evaluation.update(every="10 steps", tokens=128)
    config.logging.update(every="1 step", tensorboard=False, plots=False)
    return config
"""


@pytest.fixture(scope="session")
def config_file(tmp_path_factory):
    """A config of a model that trains within a second, and its data: 1,000 bytes of one sentence."""
    folder = tmp_path_factory.mktemp("sweep")
    tokenizer = ByteTokenizer()
    ids = [*tokenizer.encode("so much depends upon a red wheel barrow; " * 25), tokenizer.eos_id]
    write_prepared(folder / "data", train=[ids] * 2, validation=[ids], tokenizer=tokenizer)
    path = folder / "config.py"
    path.write_text(CONFIG.format(data=str(folder / "data")))
    return path


class ScriptRun(SweepRun):
    """A run whose command is a Python program of the test, with its folder as the argument."""

    script = ""

    @property
    def command(self):
        return [sys.executable, "-c", self.script, str(self.workdir)]


@pytest.fixture
def plan(config_file, tmp_path):
    """points → the runs of a sweep in tmp_path."""

    def make(points=None, settings=None, **fields):
        points = over("optimizer.learning_rate", [1e-3, 1e-2]) if points is None else points
        return plan_runs(Sweep(str(config_file), points, **fields), tmp_path, settings or {})

    return make


@pytest.fixture
def scripted(plan):
    """(program, number) → that number of runs that execute the program instead of training."""

    def make(script, count=1):
        runs = plan(over("seed", range(count)))
        made = [ScriptRun(**{name: getattr(run, name) for name in run.__dataclass_fields__}) for run in runs]
        for run in made:
            object.__setattr__(run, "script", script)
        return made

    return make
