"""Evaluates a model on tasks of the library lm_eval (extra `eval`).

  loaded = load_tasks("arc_easy,my/quiz.yaml", data=[Path("data/eval")])
  results = run_harness(loaded, answerer, identity, folder)

tasks.py      finds, checks and loads tasks without a network
model.py      implements lm_eval's interface of a model
run.py        runs lm_eval, and turns its output into results and a table
compare.py    compares two runs item by item
library.py    imports lm_eval, which then uses no network, prints nothing and starts no processes
"""

from gptjax.evaluation.harness.run import harness_table, run_harness
from gptjax.evaluation.harness.tasks import Loaded, load_tasks

__all__ = ["Loaded", "harness_table", "load_tasks", "run_harness"]
