"""Runs a stage over shards, in processes, on Ray or on Slurm. After a kill, the same call continues."""

from gptjax.corpus.engine.run import TaskExecutor, run_stage
from gptjax.corpus.engine.stage import Stage, Task

__all__ = ["Stage", "Task", "TaskExecutor", "run_stage"]
