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

Checkpoints:

checkpoint.py           saves those of a run and restores them; checkpoint_format.py: one of them on disk
checkpoint_folder.py    which there are, and the best of them; checkpoint_loading.py: what other code reads of a run
snapshot.py             a copy of the state while the next step runs; saved_together.py: a save by several processes
checksum.py             whether arrays are what was saved; frozen_parameters.py: arrays that all checkpoints share
run_metadata.py         what a checkpoint says of its run, and which config may continue it
averaged.py, vocabulary_growth.py    a model made of several checkpoints, or of one with fewer tokens

What is recorded and shown:

progress.py             metrics, read a step late; console.py: what is printed; plots.py: what is drawn
writers.py              metrics.jsonl, with tensorboard.py and weights_and_biases.py; patient_file.py: on a full disk
history.py, best.py     all starts of a run, and its best score; task_evaluation.py: scores of tasks
interrupt.py, profiler.py, memory_check.py, host_memory.py    signals, traces, and what happens without enough memory
"""
