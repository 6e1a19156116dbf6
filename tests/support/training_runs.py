"""Training runs in this process, as `gptjax.train` runs after parsing its flags, and what they log."""

import jax

from gptjax import train as command
from gptjax.training.interrupt import StopRequest
from gptjax.training.records.writers import read_metrics


def train_run(config, workdir):
    """Trains to the end, from the last checkpoint if `workdir` has one, and returns the run."""
    run = command.open_run(config, workdir)
    train_opened(run)
    return run


def train_opened(run):
    with StopRequest(every=None) as stop, jax.set_mesh(run.mesh), command.open_checkpoints(run) as checkpoints:
        run = run.accompanied(checkpoints)
        command.train(run, checkpoints, *command.start(run, checkpoints), stop)


def losses_and_scores(workdir):
    """([training loss of each row that has one], [validation figures of each evaluation])"""
    rows = read_metrics(workdir / "metrics.jsonl")
    scores = [{name: row[name] for name in row if name.startswith("validation/")} for row in rows]
    return [row["train/loss"] for row in rows if "train/loss" in row], [found for found in scores if found]
