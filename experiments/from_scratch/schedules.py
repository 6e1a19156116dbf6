"""Learning-rate schedules, drawn, and the book's one written out.

python experiments/from_scratch/schedules.py      # writes schedules.png beside this file
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from draw import write_picture

from gptjax.settings import ScheduleSettings
from gptjax.training.optimizers.schedule import make_schedule

STEPS, WARMUP, PEAK = 1000, 100, 1e-3
DRAWN = {
    "cosine": ScheduleSettings(name="cosine", warmup="100", final_fraction=0.1),
    "linear": ScheduleSettings(name="linear", warmup="100", final_fraction=0.1),
    "wsd": ScheduleSettings(name="wsd", warmup="100", decay="300", final_fraction=0.1),
    "inverse_sqrt": ScheduleSettings(name="inverse_sqrt", warmup="100"),
    "constant": ScheduleSettings(name="constant", warmup="0"),
}


def warmup_and_cosine(update: int, peak: float, floor: float, warmup: int, total: int) -> float:
    """The rate of an update, counted from 1: a straight line up to the peak, then half a cosine down to the floor."""
    if update <= warmup:
        return peak * update / warmup
    done = (update - warmup) / (total - warmup)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * done))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("schedules.png"))
    options = parser.parse_args()
    figure, panel = plt.subplots(figsize=(7, 3))
    for name, settings in DRAWN.items():
        rates = make_schedule(settings, PEAK, STEPS, int)(np.arange(STEPS))
        panel.plot(np.arange(1, STEPS + 1), rates, label=f"schedule.name = {name!r}")
    panel.set_xlabel("update")
    panel.set_ylabel("learning rate")
    write_picture(figure, options.output)


if __name__ == "__main__":
    main()
