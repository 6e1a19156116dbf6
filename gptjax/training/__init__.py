"""State, step, loss, optimizers, schedules, checkpoints, and what a run records and shows."""
