"""Draws pipeline schedules, and prints for how long the stages are idle.

python experiments/pipeline/draw.py           # writes schedules.png beside this file, prints the table of README.md
python experiments/pipeline/draw.py 4 8 2     # prints one schedule: stages, micro-batches, repeats
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from gptjax.parallel.pipeline import Schedule

DRAWN = (Schedule(4, 4), Schedule(4, 8), Schedule(4, 8, 2))


def text(schedule: Schedule) -> str:
    """A line per stage: each tick's micro-batch, with the letter of its group of layers if the stage has several."""
    width = len(str(schedule.microbatches - 1)) + (schedule.repeats > 1) + 1
    lines = []
    for stage in range(schedule.stages):
        cells = []
        for tick in range(schedule.ticks):
            microbatch, repeat, busy = schedule.at(stage, tick)
            group = chr(ord("a") + repeat) if schedule.repeats > 1 and busy else ""
            cells.append((f"{microbatch}{group}" if busy else ".").rjust(width))
        lines.append(f"stage {stage} {''.join(cells)}")
    return "\n".join(lines)


def draw(schedules: tuple[Schedule, ...], path: Path) -> None:
    """Draws the forward pass and, with ticks twice as long, the backward pass, in units of a tick without repeats."""
    figure, panels = plt.subplots(len(schedules), figsize=(11, 1.9 * len(schedules)), sharex=True)
    for schedule, panel in zip(schedules, panels):
        forward = 1 / schedule.repeats
        for stage in range(schedule.stages):
            for tick in range(schedule.ticks):
                microbatch, repeat, busy = schedule.at(stage, tick)
                if not busy:
                    continue
                shade = 0.35 + 0.5 * microbatch / schedule.microbatches
                name = f"{microbatch}" + (chr(ord("a") + repeat) if schedule.repeats > 1 else "")
                end = 3 * forward * schedule.ticks
                for start, length, colours in (
                    (tick * forward, forward, plt.cm.Blues),
                    (end - 2 * forward * (tick + 1), 2 * forward, plt.cm.Oranges),
                ):
                    panel.barh(stage, length, left=start, color=colours(shade), edgecolor="white", height=0.92)
                    panel.text(start + length / 2, stage, name, ha="center", va="center", fontsize=7)
        panel.invert_yaxis()
        panel.set_yticks(range(schedule.stages), [f"stage {stage}" for stage in range(schedule.stages)])
        panel.set_title(f"{described(schedule)}: idle {schedule.bubble:.1%}", fontsize=9, loc="left")
        panel.spines[["top", "right", "left"]].set_visible(False)
    panels[-1].set_xlabel("time, in forward passes of a micro-batch through a stage; blue forward, orange backward")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def described(schedule: Schedule) -> str:
    rounds = f", {schedule.repeats} repeats" if schedule.repeats > 1 else ""
    return f"{schedule.stages} stages, {schedule.microbatches} micro-batches{rounds}"


def main(arguments: list[str]) -> None:
    if arguments:
        print(text(Schedule(*map(int, arguments))))
        return
    draw(DRAWN, Path(__file__).with_name("schedules.png"))
    for schedule in DRAWN:
        print(f"{described(schedule)}: idle {schedule.bubble:.1%}\n\n{text(schedule)}\n")
    print("| stages | micro-batches | 1 repeat | 2 repeats | 4 repeats |\n|---|---|---|---|---|")
    for stages in (2, 4, 8, 16):
        for times in (1, 2, 4, 8):
            shares = (f"{Schedule(stages, times * stages, repeats).bubble:.1%}" for repeats in (1, 2, 4))
            print(f"| {stages} | {times * stages} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
