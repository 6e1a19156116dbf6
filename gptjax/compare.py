"""Compares runs: python -m gptjax.compare RUN RUN … [--plot=compared.png]

  python -m gptjax.compare runs/first runs/second               a table, and the differences of their configs
  python -m gptjax.compare runs/widths/*/ --plot=widths.png     every run of a sweep, with a plot
  python -m gptjax.compare runs/a runs/b --plot=train.svg --x=tokens --metric=train/loss

The runs may be unfinished, and may differ in data or code. Their losses can only be compared if they were evaluated on
the same text; if they were not, the table marks it.
"""

from __future__ import annotations

from pathlib import Path

import jax

from gptjax.command_line import cli
from gptjax.command_line.flags import Flags
from gptjax.config import ConfigError
from gptjax.display.formatting import counted
from gptjax.display.terminal import Console, set_up_streams
from gptjax.files.paths import local_path, output_file
from gptjax.runs import comparison
from gptjax.training.records.console import LOG_WIDTH

flags = Flags()
PLOT = flags.DEFINE_string("plot", None, "Draw the metric of all runs into this file: .png, .svg or .pdf.")
METRIC = flags.DEFINE_string("metric", "validation/loss", "The metric to draw, by its name in metrics.jsonl.")
X = flags.DEFINE_enum("x", "step", ["step", "tokens"], "The horizontal axis.")


def main(argv: list[str]) -> None:
    jax.config.update("jax_platforms", "cpu")  # nothing is computed
    if not argv[1:]:
        raise ConfigError("the folder of a run is missing: python -m gptjax.compare RUN RUN … (see --help)")
    folders = comparison.run_folders([local_path(folder, "RUN") for folder in argv[1:]])
    plot = output_file(PLOT.value, "--plot") if PLOT.value is not None else None
    if plot:
        comparison.check_plot(plot, "--plot")
    for flag in (METRIC, X):
        if flag.present and not plot:
            raise ConfigError(f"--{flag.name}={flag.value}: requires --plot=FILE")
    once: dict[Path, Path] = {}
    for folder in folders:
        once.setdefault(folder.resolve(), folder)
    if plot:  # the plot must be drawn even if nobody reads stdout to its end
        set_up_streams(outlive=True)
    runs = comparison.read_runs(list(once.values()))
    if plot:
        comparison.check_metric(runs, METRIC.value, X.value)
    console = Console()
    console = console if console.is_terminal else Console(width=LOG_WIDTH)
    console.print(comparison.table(runs))
    if repeated := len(folders) - len(once):
        console.print(f"{counted(repeated, 'folder')} named a run that is already shown", soft_wrap=True)
    for note in comparison.unlike_evaluations(runs):
        console.print(note, soft_wrap=True)
    if differences := comparison.differences(runs):
        console.print()
        console.print(comparison.differences_table(runs, differences))
    elif len(runs) > 1:
        console.print("their configs do not differ")
    if plot:
        path = comparison.plot(runs, plot, METRIC.value, X.value)
        console.print(f"plot: {path}", soft_wrap=True)


if __name__ == "__main__":
    cli.run(main, flags, arguments=10_000)
