"""State, step, loss, optimizers, schedules, checkpoints, and the records and console of a run."""
