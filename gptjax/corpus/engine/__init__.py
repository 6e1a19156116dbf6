"""Stages over shards: pure functions, run by processes, Ray or SLURM; killed anywhere, the same call goes on."""

from gptjax.corpus.engine.run import TaskExecutor, run_stage
from gptjax.corpus.engine.stage import Stage, Task

__all__ = ["Stage", "Task", "TaskExecutor", "run_stage"]
