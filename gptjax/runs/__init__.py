"""A run, as `train` opens and starts it, and as other commands read it from its folder.

training_run.py     what `train` runs on: a plan, with the opened data and the run's folder
start.py            the state that it starts from
shown_settings.py   what it prints before the first step
trained_model.py    a run's model, as `sample`, `chat` and `serve` load it
comparison.py       runs compared by their folders
"""
