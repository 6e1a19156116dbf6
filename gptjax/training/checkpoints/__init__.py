"""Checkpoints of a run: each is whole or absent, verified by checksums, and can be read on any mesh.

format.py               one checkpoint on disk; checksum.py: whether its arrays are what was saved
folder.py               which checkpoints a run has, and the best of them
manager.py              saves the checkpoints of a run, restores them, and decides which to keep
snapshot.py             a copy of the state while the next step runs; saved_together.py: a save by several processes
frozen_parameters.py    arrays that the run does not train, which all of its checkpoints share
run_metadata.py         what a checkpoint says of its run, and which config may continue it
loading.py              what other code reads of a run: parameters, config, metadata
averaged.py             a model that is the mean of several checkpoints
vocabulary_growth.py    a model of more tokens from a checkpoint of one with fewer
"""
