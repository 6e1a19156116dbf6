"""How a run trains: its step, its checkpoints, and its records. The loop itself is in `gptjax/train.py`.

The step, to read in this order:

objectives/             what is optimized, one file for each; objectives/objective.py: their interface
optimizers/             how gradients become updates, learning rates, and which parameters are trained
cross_entropy.py        the loss of most of them; logits.py, divergence.py, routing.py: parts of other losses
step.py, state.py       one step, from gradients to new parameters, and all that it depends on
trainer.py              model, objective and optimizer together, and the steps compiled for a mesh
metrics.py              throughput, utilization, z-scores; hardware.py: the peaks of devices

What an objective needs besides the batch:

companions.py           models that are read but not trained: a teacher, a reference; columns.py: what they say once
rollout.py, rewards.py  texts that the model writes itself, and their rewards

What remains of a run:

checkpoints/            saved states, whole or absent, and what reads them
records/                metrics, plots, the console, and all starts of a run
task_evaluation.py      scores of tasks while the run trains

What happens to its process:

interrupt.py            signals; profiler.py: traces
memory_check.py         the error of a device without enough memory; host_memory.py: what the process may use
"""
