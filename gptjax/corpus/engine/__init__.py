"""Runs a stage over shards, in processes, on Ray or on Slurm. After a kill, the same call continues.

run.py          runs a stage over all shards: skips, retries, gives up (start here)
stage.py        a stage and its tasks; the files and the marker of a finished task
local.py        tasks in processes of this machine
journal.py      the document that a task is at, in case its process dies there
"""

from gptjax.corpus.engine.run import TaskExecutor, run_stage
from gptjax.corpus.engine.stage import Stage, Task

__all__ = ["Stage", "Task", "TaskExecutor", "run_stage"]
