"""Raw text to prepared folders. Needs no JAX.

config.py, pipeline.py    what is asked for; the stages in their order
sources/, formats/        where documents come from, and what kinds of text are made of
cleaning/, duplicates/, contamination/    what is mended and left out, and why
stages/, engine/          what is done to every shard; running it here, on Ray or on SLURM
tokens/, report/          the token stream; what people are shown
"""
