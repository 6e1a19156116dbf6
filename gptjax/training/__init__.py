"""State, step, loss, optimizers, schedules, checkpoints, and what a run tells of itself."""
