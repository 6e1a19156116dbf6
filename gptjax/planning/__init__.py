"""The plan of a run: its sizes, shapes and shardings, from its config, facts about its data, and devices.

run_plan.py         the plan, which allocates nothing
"""

from gptjax.planning.run_plan import CompiledStep, Plan, plan, resolve, with_micro_batches

__all__ = ["CompiledStep", "Plan", "plan", "resolve", "with_micro_batches"]
