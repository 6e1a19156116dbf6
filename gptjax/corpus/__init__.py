"""Raw text to prepared folders. Needs no JAX.

config.py, settings.py    the fields of a config; pipeline.py, state.py: the stages in order, and what they found
sources/, formats/        where documents come from, and how each format becomes text
cleaning/, duplicates/, contamination/    what is repaired and dropped, and why
stages/, engine/          what is done to every shard; running it here, on Ray or on Slurm
tokens/, report/          the token stream; what people are shown
"""
