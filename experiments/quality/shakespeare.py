"""Trains three seeds of a setting: python -m gptjax.sweep experiments/quality/shakespeare.py:cpu
--workdir=runs/quality/cpu

The argument is one of configs/shakespeare_char.py's: cpu, cpu_same_steps, cpu_same_time, gpu.
"""

from gptjax.sweeping import Sweep, seeds


def get_sweep(setting: str = "cpu") -> Sweep:
    settings = {"evaluation.every": "25%", "evaluation.sample_every": "", "checkpoint.every": "25%"}
    return Sweep(f"configs/shakespeare_char.py:{setting}", seeds(3), settings)
