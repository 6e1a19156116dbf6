"""The stages of the pipeline, one per file: a function of a task, which writes files, and its declaration (base.py)."""
