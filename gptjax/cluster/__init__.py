"""How work is started elsewhere.

launch.py         a command in a process of its own, here or inside a job
submission.py     work given to submitit: SLURM, or its executors for one machine
job_states.py     what became of SLURM jobs
training_jobs.py  the runs of a sweep as jobs; job_tasks.py: the tasks of a corpus stage as jobs
ray_tasks.py      the tasks of a corpus stage on Ray
"""
