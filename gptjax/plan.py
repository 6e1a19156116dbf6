"""Plans a run: python -m gptjax.plan --config=configs/NAME.py[:arg] --hardware=8xH100 --price='2.50 USD'

The actual training step is compiled for the devices, which this machine need not have. NVIDIA GPUs need their compiler
(pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt nvidia-cudnn-cu12, of JAX's version). Without it, and for TPUs,
memory and time are estimated by formula, and the output says so. The command does not train.

  … --hardware=cpu                      this machine's processors
  … --hardware=this                     this machine's GPUs
  … --json=plan.json --plot=plan.png    also writes the plan as JSON, and draws it on one page
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax

from gptjax import cli, planning
from gptjax import config as configs
from gptjax.command_flags import Flags
from gptjax.config import ConfigError
from gptjax.data.facts import DataFacts, read_facts
from gptjax.data.mixture import parse_mixture
from gptjax.files import write_aside
from gptjax.forecast.devices import Place, find_place
from gptjax.forecast.formula import formula_needs
from gptjax.forecast.hardware import parse_hardware
from gptjax.forecast.price import parse_price
from gptjax.forecast.run import Forecast, forecast_run
from gptjax.forecast.step import Needs, compiled_needs
from gptjax.forecast.table import forecast_table
from gptjax.model.families import validate_model
from gptjax.parallel.mesh import AbstractDevices
from gptjax.paths import output_file
from gptjax.planning import Plan
from gptjax.runtime import use_compilation_cache
from gptjax.settings import Settings, freeze
from gptjax.terminal import Console
from gptjax.training.comparison import check_plot
from gptjax.training.console import LOG_WIDTH
from gptjax.training.objectives import make_objective

flags = Flags()
CONFIG = flags.define_config()
HARDWARE = flags.DEFINE_string("hardware", None, "The devices, such as H200, 8xH100, 512xv5p, cpu or this.")
PRICE = flags.DEFINE_string("price", None, "Per device and hour, with its currency, such as '2.50 USD'.")
JSON = flags.DEFINE_string("json", None, "Write the plan into this file, for programs.")
PLOT = flags.DEFINE_string("plot", None, "Draw the plan on one page: .png, .svg or .pdf.")

VOCABULARY = 32_768  # assumed if neither the config nor the data give its size


def main(argv: list[str]) -> None:
    for flag in (CONFIG, HARDWARE):
        if flag.value is None:
            raise ConfigError(f"--{flag.name} is missing (see --help)")
    name, count = parse_hardware(HARDWARE.value)
    price = parse_price(PRICE.value, "--price") if PRICE.value is not None else None
    files = {flag.name: output_file(flag.value, f"--{flag.name}") for flag in (JSON, PLOT) if flag.value is not None}
    if "plot" in files:
        check_plot(files["plot"], "--plot")
    configs.validate(CONFIG.value)
    validate_model(CONFIG.value)
    console = Console()
    console = console if console.is_terminal else Console(width=LOG_WIDTH)

    place = find_place(name, count)
    use_compilation_cache()
    config = freeze(CONFIG.value)
    data, notes = facts_at_hand(config)
    plan = planning.plan(config, data, place.devices)
    place, needs = needs_at(place, plan, console)
    forecast = forecast_run(plan, place, needs, price, notes)
    console.print(forecast_table(forecast))
    write(forecast, files, console)


def facts_at_hand(config: Settings) -> tuple[DataFacts, tuple[str, ...]]:
    """Facts about the config's data, or assumptions if they are not on this machine, and notes about the
    assumptions."""
    path = config.data.path
    if path and all(Path(folder).is_dir() for folder, _ in parse_mixture(path)):
        return read_facts(config.data, make_objective(config).windows), ()
    if config.model.vocab_size:
        return DataFacts(config.model.vocab_size), ()
    note = (
        f"a vocabulary of {VOCABULARY:,} is assumed, since data.path = {path!r} is not here (or set model.vocab_size)"
    )
    return DataFacts(VOCABULARY), (note,)


def needs_at(place: Place, plan: Plan, console: Console) -> tuple[Place, Needs]:
    """The needs of a step: from the compiled step if its compiler works, otherwise by formula, with the reason."""
    if isinstance(place.devices, AbstractDevices):
        return place, formula_needs(plan)
    try:
        with console.status("compiling the step …"):
            return place, compiled_needs(plan, place.hardware)
    except jax.errors.JaxRuntimeError as error:
        why = f"the compiler refused the step ({' '.join(str(error).split())[:160]})"
        return dataclasses.replace(place, why_not=why), formula_needs(plan)


def write(forecast: Forecast, files: dict[str, Path], console: Console) -> None:
    if "json" in files:
        with write_aside(files["json"]) as out:
            out.write((json.dumps(forecast.to_json(), indent=2) + "\n").encode())
    if "plot" in files:
        from gptjax.forecast.picture import draw  # imported late because matplotlib is slow to import

        draw(forecast, files["plot"])
    for path in files.values():
        console.print(f"written: {path}", soft_wrap=True)


if __name__ == "__main__":
    cli.run(main, flags, outlives_console=True)
