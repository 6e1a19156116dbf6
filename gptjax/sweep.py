"""Trains many runs: python -m gptjax.sweep experiments/NAME/sweep.py[:arg] --workdir=DIR [--jobs=N] [--dry_run]

The sweep file is Python: its get_sweep() names a config file and the points to run (gptjax/sweeping/algebra.py). Each
run is a folder in DIR, the same as python -m gptjax.train would make. Give the same command again to continue a sweep:
finished runs are skipped. If a run fails, the others continue; its last lines are shown, and the sweep ends with exit
status 1. Ctrl-C and SIGTERM save the active runs first. The results are in DIR/results.csv and DIR/plots.

  python -m gptjax.sweep experiments/learning_rate_by_width/sweep.py --workdir=runs/widths --dry_run
  python -m gptjax.sweep experiments/learning_rate_by_width/sweep.py --workdir=runs/widths --jobs=2
  python -m gptjax.sweep my_sweep.py --workdir=runs/mine --dry_run --hardware=8xH100 --price='2.50 USD'
  python -m gptjax.sweep my_sweep.py --workdir=runs/mine --set=data.path=data/mine
  python -m gptjax.sweep my_sweep.py --workdir=/shared/mine --executor=slurm \\
    --submitit=slurm_partition=gpu,gpus_per_node=1,timeout_min=240
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import jax
from rich.text import Text

from gptjax.command_line import cli
from gptjax.command_line.flags import Flags
from gptjax.config import ConfigError
from gptjax.display.formatting import counted
from gptjax.display.terminal import Console, print_note
from gptjax.files.folders import alone_in
from gptjax.files.paths import run_folder
from gptjax.forecast.devices import Place, described_place, find_place
from gptjax.forecast.hardware import parse_hardware
from gptjax.forecast.price import Price, parse_price
from gptjax.sweeping import figures, gather, predict
from gptjax.sweeping.definition import Sweep, load_sweep, parse_setting
from gptjax.sweeping.execute import Processes, RunExecutor, available_gpus, execute
from gptjax.sweeping.runs import State, Status, SweepRun, plan_runs, status_of
from gptjax.sweeping.view import SweepView
from gptjax.training.interrupt import StopRequest
from gptjax.training.records.console import LOG_WIDTH

flags = Flags()
WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the sweep. If it exists, the sweep in it is continued.")
JOBS = flags.DEFINE_integer("jobs", 1, "Runs at a time; on this machine they share cores and GPUs equally.", 1)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the runs, with size, state and predicted time.")
HARDWARE = flags.DEFINE_string(
    "hardware", None, "Predict times for these devices of one run, such as 8xH100, as gptjax plan does by formula."
)
PRICE = flags.DEFINE_string(
    "price", None, "With --hardware: price per device and hour with its currency, such as '2.50 USD', to show costs."
)
SET = flags.DEFINE_multi_string("set", [], "FIELD=VALUE of the config, for all runs; may be given several times.")
EXECUTOR = flags.DEFINE_enum(
    "executor",
    "here",
    ["here", "slurm", "local", "debug"],
    "here: processes on this machine; slurm: one job array; local, debug: as in submitit (needs 'gptjax[slurm]').",
)
SUBMITIT = flags.DEFINE_list(
    "submitit", [], "NAME=VALUE,… for submitit: gpus_per_node, timeout_min, slurm_partition, …"
)
PEAK_TFLOPS = flags.DEFINE_float(
    "peak_tflops",
    0.0,
    "TFLOP/s of the devices of one run, to predict times until a run has finished; 0: this machine's.",
    0.0,
)


def main(argv: list[str]) -> int:
    if len(argv) < 2:
        raise ConfigError("a sweep file is missing: python -m gptjax.sweep FILE.py --workdir=DIR (see --help)")
    if WORKDIR.value is None:
        raise ConfigError("--workdir is missing (see --help)")
    jax.config.update("jax_platforms", "cpu")  # the devices are reserved for the runs
    console = Console()
    console = console if console.is_terminal else Console(width=LOG_WIDTH)

    # Plan: everything is checked before any run starts.
    place, price = named_hardware()
    workdir = run_folder(WORKDIR.value, "--workdir")
    sweep = load_sweep(argv[1])
    runs = plan_runs(sweep, workdir, dict(parse_setting(text) for text in SET.value))
    statuses = {run.name: status_of(run) for run in runs}
    sizes = {run.name: predict.size_of(run) for run in runs}
    forecast = make_forecast(console, runs, statuses, sizes, place)
    cost = None if place is None or price is None else functools.partial(price.text, place.count)
    console.print(gather.plan_table(runs, statuses, sizes, forecast, JOBS.value, cost))
    if DRY_RUN.value:
        return 0

    # Run.
    executor = make_executor(workdir)
    with alone_in(workdir, "--workdir"), StopRequest() as stop:
        stopped = train(console, executor, runs, statuses, forecast, functools.partial(stop.reached, 0))

    # Report.
    statuses = {run.name: status_of(run) for run in runs}
    report(console, sweep, workdir, runs, statuses, sizes)
    if any(status.state != State.FINISHED for status in statuses.values()):
        return 130 if stopped else 1
    return 0


def named_hardware() -> tuple[Place | None, Price | None]:
    """The devices of --hardware and the price of --price; None if they are not given."""
    if HARDWARE.value is None:
        if PRICE.value is not None:
            raise ConfigError(f"--price={PRICE.value!r}: needs --hardware, the devices of one run, such as 8xH100")
        return None, None
    if PEAK_TFLOPS.value:
        raise ConfigError("--hardware and --peak_tflops: only one of them can be given")
    price = None if PRICE.value is None else parse_price(PRICE.value, "--price")
    name, count = parse_hardware(HARDWARE.value)
    if name == "this":
        if available_gpus():
            raise ConfigError(
                "--hardware=this: name the devices, such as 8xH100, since a sweep leaves them to its runs"
            )
        name = "cpu"
    return (find_place("cpu", count) if name == "cpu" else described_place(name, count or 1)), price


def make_forecast(
    console: Console,
    runs: list[SweepRun],
    statuses: dict[str, Status],
    sizes: dict[str, predict.Size],
    place: Place | None = None,
) -> predict.Forecast:
    """Predicts times for the named hardware, or from the finished runs, or from an assumed speed, which is printed."""
    if place is not None:
        planned = {run.name: predict.planned_on(run, place) for run in runs}
        console.print(f"times planned by formula for {place.count} × {place.hardware.name} per run, without start-up")
        for name, each in planned.items():
            if each.problem:
                print_note(console, Text(f"› {name}: {each.problem}", "yellow"))
        return predict.Forecast(sizes, planned=planned)
    forecast = predict.Forecast(sizes)
    for run in runs:
        forecast.learn(run, statuses[run.name])
    if forecast.runs_known:
        console.print(
            f"times predicted from {counted(forecast.runs_known, 'finished run')}, for the same number of runs at a "
            "time"
        )
        return forecast
    if PEAK_TFLOPS.value:
        peak, source = 1e12 * PEAK_TFLOPS.value, "of --peak_tflops"
    elif EXECUTOR.value != "slurm":
        measured = predict.probe_peak(runs[0].config.model.dtype)
        peak, source = (measured.flops or 0.0) / JOBS.value, measured.label
        source += f", shared by {JOBS.value} runs" if JOBS.value > 1 else ""
    else:
        return forecast
    forecast.assumed_flops_per_second = predict.ASSUMED_UTILIZATION * peak
    share = f"{100 * predict.ASSUMED_UTILIZATION:.0f}%"
    console.print(f"times assume {share} {source}; start-up and evaluation are not included", soft_wrap=True)
    return forecast


def make_executor(workdir: Path) -> RunExecutor:
    if EXECUTOR.value == "here":
        return Processes(JOBS.value)
    try:
        from gptjax.cluster.training_jobs import TrainingJobs
    except ModuleNotFoundError:
        raise ConfigError(f"--executor={EXECUTOR.value} needs submitit: pip install 'gptjax[slurm]'") from None
    jobs = JOBS.value if EXECUTOR.value != "slurm" or JOBS.present else 0
    return TrainingJobs(EXECUTOR.value, workdir / "jobs", jobs, cli.named_values("--submitit", SUBMITIT.value))


def train(
    console: Console,
    executor: RunExecutor,
    runs: list[SweepRun],
    statuses: dict[str, Status],
    forecast: predict.Forecast,
    stopped: Callable[[], bool],
) -> bool:
    """Trains the runs that are not finished; returns whether a signal stopped the sweep before its end."""
    unfinished = [run for run in runs if statuses[run.name].state != State.FINISHED]
    busy = [] if executor.detaches else [run for run in unfinished if statuses[run.name].state == State.RUNNING]
    for run in busy:
        print_note(console, Text(f"› skipped   {run.name}: another process is training it", "yellow"))
    with SweepView(console, len(runs), len(runs) - len(unfinished), JOBS.value, forecast) as view:
        execute([run for run in unfinished if run not in busy], executor, view, stopped)
    return stopped()


def report(
    console: Console,
    sweep: Sweep,
    workdir: Path,
    runs: list[SweepRun],
    statuses: dict[str, Status],
    sizes: dict[str, predict.Size],
) -> None:
    """Writes results.csv and the plots, prints the table of results, and lists the runs that did not finish."""
    gather.write_results(workdir / "results.csv", runs, statuses, sizes, sweep.metric, sweep.higher_is_better)
    groups = gather.group_by_seed(runs, statuses, sweep.metric)
    console.print()
    console.print(gather.results_table(groups, sweep.metric, sweep.higher_is_better))
    paths, kinds = [workdir / "results.csv"], gather.by_data(groups)
    for data, alike in kinds.items():
        folder = workdir / "plots" / (data or "not_recorded") if len(kinds) > 1 else workdir / "plots"
        paths += figures.draw(alike, sweep.metric, sweep.x, folder, sweep.higher_is_better)
    for path in paths:
        console.print(f"written: {path}", soft_wrap=True)
    for state in State:
        names = [run.name for run in runs if statuses[run.name].state == state]
        if names and state != State.FINISHED:
            console.print(f"{len(names)} {state}: {' '.join(names)}", soft_wrap=True)


if __name__ == "__main__":
    cli.run(main, flags, arguments=1, outlives_console=True)
