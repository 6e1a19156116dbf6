"""Raw text to a model that you can talk with: python -m gptjax.road --config=configs/road/laptop.py --workdir=runs/road

A road is a list of stages, each an ordinary command, which is printed before it runs. Stages that are done are skipped:
killed anywhere, the same command goes on. If a command or what it reads has changed, it and all that depends on it are
to be done again, for which --overwrite removes what they made.

  … --dry_run                              prints every command, and which are done: the way to read the road
  … --text=FOLDER --chats=chats.jsonl      your own text and conversations instead of the road's
  … --until=base                           ends after a stage
  … --only=chat,questions                  these stages alone, also if they are done; --overwrite makes them anew
  … --hardware=H100 --price='2.50 USD'     plans the training of a road for a GPU: configs/road/h100.py

configs/road/laptop.py takes about ten minutes on two cores, and needs nothing but the installed packages.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from gptjax.command_line import cli
from gptjax.command_line.flags import Flags
from gptjax.config import ConfigError, RunError, suggestion
from gptjax.display.formatting import duration_text
from gptjax.display.terminal import Console, print_note
from gptjax.files.folders import alone_in
from gptjax.files.paths import local_path, run_folder
from gptjax.roads.definition import Road, Stage, load_road
from gptjax.roads.markers import keys_of, read_marker
from gptjax.roads.walking import Stopped, is_done, run, walk

flags = Flags()
CONFIG = flags.DEFINE_string("config", None, "A road, such as configs/road/laptop.py; FILE.py:ARG if it takes one.")
WORKDIR = flags.DEFINE_string("workdir", None, "The folder for all that the road makes.")
TEXT = flags.DEFINE_string("text", "", "Your own text: files or folders, separated by commas. '': the road's own.")
CHATS = flags.DEFINE_string(
    "chats", "", "Your own conversations, as for gptjax prepare --conversations. '': the road's."
)
UNTIL = flags.DEFINE_string("until", None, "The last stage.")
ONLY = flags.DEFINE_list("only", [], "These stages alone, separated by commas, also if they are done.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Remove what changed stages made, and make it again.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the commands, and which of them are done.")
HARDWARE = flags.DEFINE_string(
    "hardware", None, "Only plan the road's training for these devices, as gptjax plan does."
)
PRICE = flags.DEFINE_string("price", None, "With --hardware: per device and hour, with its currency, as '2.50 USD'.")

WIDTH = 120  # columns, if there is no terminal


def main(argv: list[str]) -> int:
    del argv
    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    for flag in (CONFIG, WORKDIR):
        if flag.value is None and not (flag is WORKDIR and HARDWARE.value):
            raise ConfigError(f"--{flag.name} is missing (see --help)")
    workdir = as_typed_here(run_folder(WORKDIR.value or "runs/road", "--workdir"))
    road = load_road(CONFIG.value, {"workdir": str(workdir), **own_inputs()})
    if HARDWARE.value:
        return plan(console, road)
    if PRICE.value:
        raise ConfigError(f"--price={PRICE.value}: needs --hardware, the devices, such as H100")
    chosen = chosen_stages(road)
    keys = keys_of(road.stages)
    if DRY_RUN.value:
        return dry_run(console, workdir, road, chosen, keys)
    try:
        go(console, workdir, road, chosen, keys)
    except Stopped as stop:
        print_note(console, str(stop))
        return 128 + stop.number
    if all(is_done(workdir, stage, keys) for stage in road.stages):
        for what, command in road.opens:
            console.print(f"{what}:", style="bold")
            text = command if isinstance(command, str) else Stage("next", what, command).text
            console.print(f"  {text}", soft_wrap=True)
    return 0


def go(console: Console, workdir: Path, road: Road, chosen: Sequence[Stage], keys: dict[str, str]) -> None:
    """Runs the chosen stages that are not done, and shows all times and results."""
    with alone_in(workdir, "--workdir"):
        started = time.monotonic()
        for stage in chosen:
            number = road.stages.index(stage) + 1
            console.print()
            console.print(Rule(f"{number}/{len(road.stages)} {stage.name}: {stage.about}", align="left", style="dim"))
            walk(console, workdir, stage, keys[stage.name], again=bool(ONLY.value), overwrite=OVERWRITE.value)
        console.print()
        console.print(table(workdir, road, keys))
        console.print(f"this time {duration_text(time.monotonic() - started)}", style="dim")


# --- What is asked ---------------------------------------------------------------------------------------------------


def as_typed_here(path: Path) -> Path:
    """The path from the current folder if it is below it, so that runs/road and ./runs/road/ name the same stages."""
    whole = Path(os.path.abspath(path))
    return whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole


def own_inputs() -> dict[str, str]:
    """--text and --chats, whose files exist."""
    for flag in (TEXT, CHATS):
        for path in flag.value.split(",") if flag.value else ():
            if not local_path(path, f"--{flag.name}").exists():
                raise ConfigError(f"--{flag.name}={path}: must be a file or a folder, there is nothing of this name")
    return {"text": TEXT.value, "chats": CHATS.value}


def chosen_stages(road: Road) -> list[Stage]:
    """The stages of --until or --only, or all."""
    names = [stage.name for stage in road.stages]
    for flag, given in ((UNTIL, [UNTIL.value] if UNTIL.value else []), (ONLY, ONLY.value)):
        for name in given:
            if name not in names:
                raise ConfigError(
                    f"--{flag.name}={name}: the road has no such stage{suggestion(name, names)}; "
                    f"its stages: {', '.join(names)}"
                )
    if UNTIL.value and ONLY.value:
        raise ConfigError("--until and --only: only one of them can be given")
    if UNTIL.value:
        return list(road.stages[: names.index(UNTIL.value) + 1])
    return [stage for stage in road.stages if not ONLY.value or stage.name in ONLY.value]


# --- Tables ----------------------------------------------------------------------------------------------------------


def dry_run(console: Console, workdir: Path, road: Road, chosen: Sequence[Stage], keys: dict[str, str]) -> int:
    for stage in chosen:
        done = "  (done)" if is_done(workdir, stage, keys) else ""
        console.print(
            f"# {road.stages.index(stage) + 1}. {stage.name}: {stage.about}{done}", style="dim", soft_wrap=True
        )
        console.print(stage.text, soft_wrap=True)
    return 0


def table(workdir: Path, road: Road, keys: dict[str, str]) -> Table:
    """Each stage, its time and its result, and the sum of times."""
    rows = Table(box=None, pad_edge=False)
    rows.add_column("stage", no_wrap=True)
    rows.add_column("time", justify="right", no_wrap=True)
    rows.add_column("result")
    total = 0.0
    for stage in road.stages:
        marker = read_marker(workdir, stage) if is_done(workdir, stage, keys) else None
        total += marker.seconds if marker else 0.0
        rows.add_row(
            stage.name, duration_text(marker.seconds) if marker else "–", marker.figures if marker else "not done"
        )
    rows.add_row(Text("all", "bold"), duration_text(total), "")
    return rows


def plan(console: Console, road: Road) -> int:
    """Runs `gptjax plan` for each stage that trains, and prints the sums, each likely with its range."""
    rows = Table(box=None, pad_edge=False)
    rows.add_column("stage", no_wrap=True)
    rows.add_column("time", justify="right")
    rows.add_column(f"price ({PRICE.value} per device and hour)" if PRICE.value else "price", justify="right")
    if not any(stage.plan for stage in road.stages):
        raise ConfigError(f"--config={CONFIG.value}: no stage of this road says how it is planned (Stage.plan)")
    seconds, costs, unit = np.zeros(3), np.zeros(3), ""
    for stage in road.stages:
        if stage.plan:
            console.print()
            planned = planned_stage(console, stage)
            cost = np.array(planned["cost"] or np.zeros(3))
            unit = planned["currency"] or unit
            rows.add_row(stage.name, range_text(planned["time"]["total"], duration_text), price_text(cost, unit))
            seconds, costs = seconds + planned["time"]["total"], costs + cost
    rows.add_row(Text("training", "bold"), range_text(seconds, duration_text), price_text(costs, unit))
    console.print()
    console.print(rows)
    return 0


def planned_stage(console: Console, stage: Stage) -> dict[str, Any]:
    """What `gptjax plan --json` says of a stage's training; it prints its tables, too."""
    price = (f"--price={PRICE.value}",) if PRICE.value else ()
    asked = ("plan", *stage.plan, f"--hardware={HARDWARE.value}", *price)
    console.print(Stage(stage.name, stage.about, asked).text, style="bold", soft_wrap=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        status, _ = run(Stage(stage.name, stage.about, (*asked, f"--json={file}")))
        if status:
            raise RunError(f"the plan of stage {stage.name} ended with exit status {status}")
        return json.loads(file.read_bytes())


def range_text(slow_likely_fast: Any, text: Callable[[float], str]) -> str:
    slow, likely, fast = slow_likely_fast
    return f"{text(likely)} ({text(fast)} to {text(slow)})"


def price_text(costs: Any, unit: str) -> str:
    return range_text(costs, lambda cost: f"{cost:.2f}") + f" {unit}" if unit else ""


if __name__ == "__main__":
    cli.run(main, flags, outlives_console=True)
