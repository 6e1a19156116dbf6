"""How work is started elsewhere: commands in processes of their own, tasks on Ray, jobs on SLURM through submitit."""
