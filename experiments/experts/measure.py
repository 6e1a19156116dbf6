"""Does a mixture of experts learn more than a dense layer of the same active FLOPs? On a CPU, real text, three seeds.

  python experiments/experts/measure.py DATA tune     # learning rates, with a seed that the comparison does not use
  python experiments/experts/measure.py DATA compare  # at the best of them, which are in RATES
  python experiments/experts/measure.py DATA draw     # from results.csv

One run at a time, each `python -m gptjax.train` in a separate process, whose processor seconds are read from /proc
(Linux) whenever it has written a row of metrics.
"""

import csv
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib
import matplotlib.figure

from gptjax.display.figures import STYLE, save_figure
from gptjax.training.records.writers import FILE_NAME, read_metrics

HERE = Path(__file__).parent
SIDES = {
    "16 experts, 4 used": {"model.router_normalized": True},
    "16 experts, 4 used, not normalized": {"model.router_normalized": False},
    # as wide as four experts, plus 8 columns for the FLOPs of the router
    "dense": {"model.num_experts": 0, "model.feedforward_width": 392},
}
COLORS = {"16 experts, 4 used": "#d1495b", "dense": "#3b6fb6"}
RATES = {"16 experts, 4 used": 0.002, "dense": 0.002}
TRIED = (0.001, 0.002, 0.004)
TUNE = {"training.duration": "100 steps", "evaluation.every": "100 steps"}
COMPARE = {"training.duration": "600 steps", "evaluation.every": "100 steps"}
COMMON = {
    "model.layers": "scan",
    "evaluation.tokens": 20_480,
    "evaluation.sample_every": "",
    "checkpoint.every": "100%",
    "checkpoint.keep_best": 0,
    "logging.every": "10 steps",
    "logging.tensorboard": False,
    "logging.plots": False,
}
COLUMNS = ("side", "learning_rate", "seed", "step", "tokens", "validation_loss", "processor_seconds", "to_compile")


def run(fields: dict) -> tuple[list[dict], float, float]:
    """Returns (rows of metrics, processor seconds per step, processor seconds before the first row) of one run.

    The seconds of a step are the median over the spans between two rows; those with an evaluation are left out.
    """
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    with tempfile.TemporaryDirectory() as folder:
        workdir, used = Path(folder) / "run", {}
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gptjax.train", "--config=configs/moe.py:tiny", f"--workdir={workdir}", *flags],
                stdout=log,
                stderr=log,
            )
            while process.poll() is None:
                time.sleep(0.1)
                if (workdir / FILE_NAME).exists():
                    try:
                        seconds = processor_seconds(process.pid)
                    except OSError:
                        break
                    for row in read_metrics(workdir / FILE_NAME):
                        if "train/loss" in row:
                            used.setdefault(row["step"], seconds)
            if process.wait():
                raise RuntimeError((Path(folder) / "log").read_text()[-2000:])
        rows = read_metrics(workdir / FILE_NAME)
    evaluated = {row["step"] for row in rows if "validation/loss" in row}
    steps = sorted(used)
    spans = [(used[b] - used[a]) / (b - a) for a, b in itertools.pairwise(steps) if a not in evaluated]
    return rows, statistics.median(spans), used[steps[0]] - steps[0] * statistics.median(spans)


def processor_seconds(pid: int) -> float:
    """The user and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(data: str, path: Path, runs: list[tuple[str, float, int]], fields: dict) -> None:
    """Appends the validation losses of the runs (side, rate, seed) to a CSV file, unless they are in it."""
    done = {(row["side"], float(row["learning_rate"]), int(row["seed"])) for row in table(path)}
    for side, rate, seed in runs:
        if (side, rate, seed) in done:
            continue
        own = {"optimizer.learning_rate": rate, "seed": seed}
        rows, seconds, to_compile = run(COMMON | fields | SIDES[side] | own | {"data.path": data})
        is_new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(COLUMNS)
            for row in rows:
                if "validation/loss" in row:
                    spent = f"{row['step'] * seconds:.2f}", f"{to_compile:.1f}"
                    loss = f"{row['validation/loss']:.4f}"
                    writer.writerow([side, rate, seed, row["step"], row["tokens"], loss, *spent])
        print(side, rate, seed, loss, f"{1000 * seconds:.0f} processor ms per step", flush=True)


def table(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def draw() -> None:
    """Draws mean and range over the seeds, by tokens and by processor seconds, from results.csv."""
    rows = table(HERE / "results.csv")
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for side, color in COLORS.items():
            own = [row for row in rows if row["side"] == side]
            steps = sorted({int(row["step"]) for row in own})
            losses = [[float(row["validation_loss"]) for row in own if int(row["step"]) == step] for step in steps]
            for axes, column, unit in zip(panels, ("tokens", "processor_seconds"), (1000.0, 1.0)):
                places = [
                    statistics.mean(float(row[column]) / unit for row in own if int(row["step"]) == step)
                    for step in steps
                ]
                means = [statistics.mean(each) for each in losses]
                axes.plot(places, means, "o-", color=color, markersize=3, label=f"{side}  (last {means[-1]:.3f})")
                axes.fill_between(places, list(map(min, losses)), list(map(max, losses)), color=color, alpha=0.25)
        panels[0].set_ylabel("validation loss (nats per token)")
        panels[0].set_xlabel("thousand tokens")
        panels[1].set_xlabel("processor seconds of training steps")
        panels[0].legend(fontsize="small")
        figure.supxlabel("lines: mean over seeds; bands: lowest to highest", fontsize="small", color="#4a4f55")
        save_figure(figure, HERE / "loss.png")


def main() -> None:
    data, what = sys.argv[1:]
    if what == "tune":
        measure(data, HERE / "tune.csv", [(side, rate, 100) for rate in TRIED for side in SIDES], TUNE)
    elif what == "compare":
        measure(data, HERE / "results.csv", [(side, RATES[side], seed) for seed in range(3) for side in RATES], COMPARE)
    if (HERE / "results.csv").exists():
        draw()


if __name__ == "__main__":
    main()
