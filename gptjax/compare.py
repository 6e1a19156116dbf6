"""Runs side by side: python -m gptjax.compare RUN RUN … [--plot=compared.png]

  python -m gptjax.compare runs/first runs/second               a table, and the differences of their configs
  python -m gptjax.compare runs/widths/*/ --plot=widths.png     every run of a sweep, with a plot
  python -m gptjax.compare runs/a runs/b --x=tokens --metric=train/loss

The runs may be unfinished, and may differ in data or code. Their losses can only be compared if they were evaluated on
the same text; if they were not, the table marks it.
"""

from __future__ import annotations

import jax
from absl import flags

from gptjax import cli
from gptjax.config import ConfigError
from gptjax.paths import local_path, output_file
from gptjax.terminal import Console, settle_streams
from gptjax.training import comparison
from gptjax.training.console import LOG_WIDTH

PLOT = flags.DEFINE_string("plot", None, "Draw the metric of all runs into this PNG file.")
METRIC = flags.DEFINE_string("metric", "validation/loss", "The metric to draw, by its name in metrics.jsonl.")
X = flags.DEFINE_enum("x", "step", ["step", "tokens"], "The horizontal axis.")


def main(argv: list[str]) -> None:
    jax.config.update("jax_platforms", "cpu")  # nothing is computed
    folders = list(dict.fromkeys(local_path(folder, "RUN") for folder in argv[1:]))
    if not folders:
        raise ConfigError("the folder of a run is missing: python -m gptjax.compare RUN RUN … (see --help)")
    plot = output_file(PLOT.value, "--plot") if PLOT.value is not None else None
    if plot:  # it is wanted even where nobody reads the table to its end
        settle_streams(outlive=True)
    runs = comparison.read_runs(folders)
    console = Console()
    console = console if console.is_terminal else Console(width=LOG_WIDTH)
    console.print(comparison.table(runs))
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
    cli.run(main, arguments=10_000)
