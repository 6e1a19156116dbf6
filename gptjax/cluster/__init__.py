"""Starts work in other processes and on other machines.

launch.py         starts a command in its own process, here or inside a job
submission.py     submits jobs through submitit: to SLURM, or to its executors for one machine
job_states.py     finds the states of SLURM jobs
training_jobs.py  runs of a sweep as jobs
job_tasks.py      tasks of a corpus stage as jobs
ray_tasks.py      tasks of a corpus stage on Ray
cores.py          the processor cores of this process
"""
