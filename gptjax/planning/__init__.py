"""The plan of a run: its sizes, shapes and shardings, from its config, facts about its data, and devices."""

from gptjax.planning.plan import CompiledStep as CompiledStep
from gptjax.planning.plan import Plan as Plan
from gptjax.planning.plan import plan as plan
from gptjax.planning.plan import resolve as resolve
from gptjax.planning.plan import with_micro_batches as with_micro_batches
