"""Shows which documents a training step read: python -m gptjax.trace --workdir=runs/mine --step=1200 --row=3

For one row of one training batch, the command shows each document that the row reads: which of its tokens, where it
comes from, under which license, and its text. The prepared folder must be the one that the run was trained on; with its
work/ folder, the addresses and licenses of single documents are known, too.
"""

from __future__ import annotations

import dataclasses

from gptjax.command_line import cli
from gptjax.command_line.flags import Flags, given_run
from gptjax.config import ConfigError
from gptjax.corpus.tokens.trace import show_row
from gptjax.data.traced import traced_row
from gptjax.display.terminal import Console
from gptjax.training.checkpoints.loading import saved_config, saved_metadata
from gptjax.training.objectives import make_objective

flags = Flags()
WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a training run.")
STEP = flags.DEFINE_integer("step", None, "The step, counted from 1 as in metrics.jsonl.")
ROW = flags.DEFINE_integer("row", None, "The row of the batch of that step, counted from 0.")
WHOLE = flags.DEFINE_bool("whole", False, "Show the full documents, with the part in the row marked by ⟦ ⟧.")


def main(argv: list[str]) -> None:
    given_run(WORKDIR)
    for flag in (STEP, ROW):
        if flag.value is None:
            raise ConfigError(f"--{flag.name} is missing (see --help)")
    config = saved_config(WORKDIR.value)
    saved = saved_metadata(WORKDIR.value)  # None before the first checkpoint
    unverified = dataclasses.replace(config, data=dataclasses.replace(config.data, verify=False))
    dataset = make_objective(unverified).open_data("train", config.training.batch_size)
    row = traced_row(config, dataset, saved and saved["fingerprint"], STEP.value, ROW.value)
    show_row(Console(), row, WHOLE.value)


if __name__ == "__main__":
    cli.run(main, flags)
