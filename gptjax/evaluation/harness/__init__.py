"""lm_eval's tasks, answered by a model of this project (extra `eval`).

  loaded = load_tasks("arc_easy,my/quiz.yaml", data=[Path("data/eval")])
  results = run_harness(loaded, answerer, identity, folder)

tasks.py finds, checks and loads tasks, without a network; model.py is the model that lm_eval asks; run.py has lm_eval
ask it, and turns what it finds into results and a table.
"""

from gptjax.evaluation.harness.run import harness_table, run_harness
from gptjax.evaluation.harness.tasks import Loaded, load_tasks

__all__ = ["Loaded", "harness_table", "load_tasks", "run_harness"]
