"""Says what a run needs before it is paid for: python -m gptjax.plan --config=configs/gpt2.py:124m --hardware=8xH100

It prints whether the run fits, how long it takes and what it costs, and then the details: size and FLOPs, the time of a
step, memory by content, and the loss to expect. Nothing is trained, and this machine needs none of the devices.

  … --price='2.50 USD'                  with the price of one device for an hour: what the run costs
  … --hardware=cpu                      this machine's processors
  … --hardware=this                     this machine's GPUs
  … --json=plan.json --plot=plan.png    also writes the plan as JSON, and draws it on one page

What should be trained? With a budget instead of a config, it prints a table of the sizes that it could train, the best
first, each with the reason why it is not the best, and then what the best needs. The sizes are those of --sizes, of
--config, or all depths of configs/depth.py:

  … --hardware=8xH100 --hours=24                         the lowest loss in a day
  … --hardware=8xH100 --dollars=500 --price='2.50 USD'   the lowest loss for this money
  … --hardware=8xH100 --loss=3.0                         the least time to this loss
  … --hardware=H100 --text=2GB                           the size that suits the text at hand
  … --hardware=RTX4090 --fit                             the largest size that trains there
  … --hardware=H100 --fit --config=configs/llama.py:8b   the fewest devices for this model
  … --write=best.py                                      a config file of the best, for gptjax train --config=best.py

The actual training step is compiled for the devices. NVIDIA GPUs need their compiler (pip install --no-deps
jax-cuda12-plugin==V jax-cuda12-pjrt==V nvidia-cudnn-cu12, where V is the version of jax). Without it, and for TPUs,
memory and time are estimated by formula, and the output says so. Times are calibrated on this user's earlier runs on
such devices, which gptjax train records (in the file that GPTJAX_HISTORY names; '': none).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from gptjax import config as configs
from gptjax import planning
from gptjax.command_line import cli
from gptjax.command_line.driver_messages import without_driver_messages
from gptjax.command_line.flags import Flags
from gptjax.command_line.runtime import use_compilation_cache
from gptjax.config import ConfigError
from gptjax.data.facts import DataFacts, read_facts
from gptjax.data.mixture import parse_mixture
from gptjax.display.formatting import bytes_text, count_text
from gptjax.display.terminal import Console
from gptjax.files import write_aside
from gptjax.files.paths import output_file
from gptjax.forecast.candidates import counts, is_prepared, sizes, text_tokens
from gptjax.forecast.choices import choices_json, choices_table, chosen_config, write_config
from gptjax.forecast.devices import Place, described_place, find_place
from gptjax.forecast.fits import advice
from gptjax.forecast.formula import formula_needs
from gptjax.forecast.hardware import BY_NAME, parse_hardware
from gptjax.forecast.micro_batch import fitted_at
from gptjax.forecast.price import Price, parse_price
from gptjax.forecast.room import beside_steps
from gptjax.forecast.run import Forecast, forecast_run
from gptjax.forecast.search import LAW, Candidate, Choice, Goal, choose, with_tokens, without_best
from gptjax.forecast.step import Needs, compiled_needs
from gptjax.forecast.table import forecast_table
from gptjax.model.families import validate_model
from gptjax.parallel.compiled import UncountedLoop
from gptjax.parallel.mesh import AbstractDevices
from gptjax.planning import Plan
from gptjax.runs.comparison import check_plot
from gptjax.settings import Settings, freeze
from gptjax.training.objectives import make_objective
from gptjax.training.records.console import LOG_WIDTH

flags = Flags()
CONFIG = flags.define_config()
HARDWARE = flags.DEFINE_string("hardware", None, "The devices, such as H200, 8xH100, 512xv5p, cpu or this.")
PRICE = flags.DEFINE_string("price", None, "Per device and hour, with its currency, such as '2.50 USD'.")
JSON = flags.DEFINE_string("json", None, "Write the plan into this file, for programs.")
PLOT = flags.DEFINE_string("plot", None, "Draw the plan on one page: .png, .svg or .pdf.")
flags.begin_group("What to train, by one of --hours, --dollars, --loss, --fit and --text")
HOURS = flags.DEFINE_float("hours", None, "The lowest loss in so many hours.")
DOLLARS = flags.DEFINE_float("dollars", None, "The lowest loss for so many US dollars; needs --price.")
LOSS = flags.DEFINE_float("loss", None, "The least time to this loss, in nats per token.")
FIT = flags.DEFINE_bool("fit", False, "The largest size that fits; of a --config, the fewest devices.")
TEXT = flags.DEFINE_string(
    "text",
    None,
    "The size for this much text, as 2GB, a file, or a folder (prepared or not). With --hours, --dollars or --loss: "
    "the text that the model is trained on, repeated if it is too short.",
)
SIZES = flags.DEFINE_list("sizes", [], "Configs to choose from, as configs/gpt2.py:124m,configs/gpt2.py:350m.")
WRITE = flags.DEFINE_string("write", None, "Write the config of the best into this file, for gptjax train.")

MOST = 1e12  # of a budget's number; larger ones are mistakes
NEAR = 0.02  # a compiled time that differs by a smaller fraction from the budget counts as equal
TRIES = 4  # ways to train that a search compiles, if the best ones do not fit
VOCABULARY = 32_768  # assumed if neither the config nor the data give its size


def main(argv: list[str]) -> None:
    if HARDWARE.value is None:
        raise ConfigError("--hardware is missing (see --help)")
    name, count = parse_hardware(HARDWARE.value)
    price = parse_price(PRICE.value, "--price") if PRICE.value is not None else None
    given = [flag for flag in (JSON, PLOT, WRITE) if flag.value is not None]
    files = {flag.name: output_file(flag.value, f"--{flag.name}") for flag in given}
    if "plot" in files:
        check_plot(files["plot"], "--plot")
    goal = wanted(price)
    if CONFIG.value is not None:
        configs.validate(CONFIG.value)
        validate_model(CONFIG.value)
    elif goal is None:
        raise ConfigError(
            "--config is missing: must be a config file; or give a budget, such as --hours, --dollars or --loss "
            "(see --help)"
        )
    console = Console()
    console = console if console.is_terminal else Console(width=LOG_WIDTH)
    use_compilation_cache()
    if goal is None:
        for flag in (SIZES, WRITE):
            if flag.present:
                raise ConfigError(f"--{flag.name}: belongs to a search: --hours, --dollars, --loss, --text or --fit")
        forecast = needed(CONFIG.value, find_place(name, count), price, console)
        write(forecast, forecast.to_json(), files, console)
    else:
        search(goal, name, count, price, files, console)


# --- From a config to what it needs ----------------------------------------------------------------------------------


def needed(config: ConfigDict, place: Place, price: Price | None, console: Console) -> Forecast:
    """Plans the run, asks the compiler or the formula, and prints what it needs."""
    forecast = forecast_of(config, place, price, console)
    console.print(forecast_table(forecast))
    return forecast


def forecast_of(
    config: ConfigDict, place: Place, price: Price | None, console: Console, unique: float = math.inf
) -> Forecast:
    """What the run needs, by the compiler or the formula. unique: as for `facts_at_hand`."""
    settings = freeze(config)
    data, notes = facts_at_hand(settings, unique)
    plan, of_batch = fitted_at(place, planning.plan(settings, data, place.devices))
    place, needs = needs_at(place, plan, console)
    forecast = forecast_run(plan, place, needs, price, (*notes, *of_batch))
    if not forecast.fit.fits:
        nearest = advice(plan, forecast.fit.available + beside_steps(plan))
        forecast = dataclasses.replace(forecast, notes=(*forecast.notes, nearest))
    return forecast


def facts_at_hand(config: Settings, unique: float = math.inf) -> tuple[DataFacts, tuple[str, ...]]:
    """Facts about the config's data, or assumptions if they are not on this machine, and notes about the assumptions.

    unique: the tokens that there will be, if they are known.
    """
    path = config.data.path
    if path and all(Path(folder).is_dir() for folder, _ in parse_mixture(path)):
        return read_facts(config.data, make_objective(config).windows), ()
    windows = int(unique / config.data.sequence_length) if math.isfinite(unique) else None
    if config.model.vocab_size:
        return DataFacts(config.model.vocab_size, windows), ()
    note = (
        f"a vocabulary of {VOCABULARY:,} is assumed, since data.path = {path!r} is not here (or set model.vocab_size)"
    )
    return DataFacts(VOCABULARY, windows), (note,)


def needs_at(place: Place, plan: Plan, console: Console) -> tuple[Place, Needs]:
    """The needs of a step: from the compiled step if its compiler works, otherwise by formula, with the reason."""
    if isinstance(place.devices, AbstractDevices):
        return place, formula_needs(plan)
    try:
        with console.status("compiling the step …"), without_driver_messages():
            return place, compiled_needs(plan, place.hardware)
    except jax.errors.JaxRuntimeError as error:
        why = f"the compiler refused the step ({' '.join(str(error).split())[:160]})"
        return dataclasses.replace(place, why_not=why), formula_needs(plan)
    except UncountedLoop:
        why = "the compiled step has a loop whose length depends on the data"
        return dataclasses.replace(place, why_not=why), formula_needs(plan)


# --- From a budget to what to train ----------------------------------------------------------------------------------


def wanted(price: Price | None) -> Goal | None:
    """What the flags search for; None: nothing, the run of --config is planned.

    Raises:
      ConfigError: flags that do not go together, or a budget of nothing.
    """
    budgets = [flag for flag in (HOURS, DOLLARS, LOSS) if flag.value is not None]
    names = [f"--{flag.name}" for flag in budgets] + (["--fit"] if FIT.value else [])
    if len(names) > 1:
        raise ConfigError(f"{' and '.join(names)}: only one of them can be given")
    for flag in budgets:
        if not (math.isfinite(flag.value) and flag.value > 0):
            raise ConfigError(f"--{flag.name}={flag.value:g}: must be above 0")
        if flag.value > MOST:
            raise ConfigError(f"--{flag.name}={flag.value:g}: must be at most {MOST:g}")
    if LOSS.value is not None and LOSS.value <= LAW.E:
        raise ConfigError(f"--loss={LOSS.value:g}: out of reach; must be above {LAW.E:.3f}, the floor of {LAW.source}")
    if FIT.value and TEXT.value is not None:
        raise ConfigError("--fit and --text: only one of them can be given")
    if CONFIG.value is not None and SIZES.value:
        raise ConfigError("--config and --sizes: only one of them can be given")
    unique = math.inf
    if TEXT.value is not None:
        unique = prepared_tokens(TEXT.value) if is_prepared(TEXT.value) else text_tokens(TEXT.value)
    if DOLLARS.value is not None:
        if price is None or price.currency != "USD":
            raise ConfigError(
                f"--dollars={DOLLARS.value:g}: needs the price of a device in dollars, as --price='2.5 USD'"
            )
    if not budgets:
        return Goal("fit", 0.0, "--fit") if FIT.value else Goal("text", 0.0, "--text", unique) if TEXT.value else None
    (flag,) = budgets
    return Goal("loss" if flag is LOSS else flag.name, flag.value, f"--{flag.name}={flag.value:g}", unique)


def prepared_tokens(folder: str) -> float:
    """The tokens of one pass over a prepared folder."""
    settings = dataclasses.replace(Settings().data, path=folder)
    return float((read_facts(settings).windows_per_epoch or 0) * settings.sequence_length)


def search(
    goal: Goal, name: str, count: int | None, price: Price | None, files: dict[str, Path], console: Console
) -> None:
    """Ranks what the budget can train, and then plans the best like a config of its own."""
    text = {"data.path": TEXT.value} if TEXT.value is not None and is_prepared(TEXT.value) else {}
    if CONFIG.value is not None and goal.kind == "fit" and count is None and name in BY_NAME:
        facts, _ = facts_at_hand(freeze(CONFIG.value))
        candidates = counts(CONFIG.value, facts, lambda number: described_place(name, number))
    else:
        place = find_place(name, count)
        if goal.kind in ("hours", "dollars"):
            goal = in_seconds(goal, place, price)
        candidates = chosen_from(place, text)
    with console.status("comparing …"):
        choices = choose(goal, candidates, price)

    def compiled(best: Choice) -> tuple[Choice, Forecast]:
        place = find_place(name, best.place.count) if isinstance(best.place.devices, AbstractDevices) else best.place
        forecast = forecast_of(chosen_config(best), place, price, console, goal.unique)
        if (again := in_budget(goal, best, forecast, price)) is best:
            return best, forecast
        console.print(f"with its speed as compiled, it trains on {count_text(again.tokens)} tokens", style="yellow")
        return again, forecast_of(chosen_config(again), place, price, console, goal.unique)

    choices, forecast = until_it_fits(goal, choices, price, console, compiled)
    best = choices[0]
    config = chosen_config(best)
    if "write" in files:
        why = f"Written by gptjax plan --hardware={HARDWARE.value} {goal.flag}: {reached(best)}"
        write_config(config, why, files["write"])
        data = "" if config.data.path else " --config.data.path=DATA"
        command = f"{cli.command('train')} --config={files['write']}{data} --workdir=RUN"
        console.print(f"train it: {command}", soft_wrap=True)
    write(forecast, forecast.to_json() | {"choices": choices_json(choices)}, files, console)


def in_budget(goal: Goal, best: Choice, forecast: Forecast, price: Price | None) -> Choice:
    """The choice with as many tokens as fit into a budget of time by its compiled step; the same if that is near."""
    if goal.kind != "seconds" or forecast.time is None or not forecast.fit.fits:
        return best
    share = goal.amount / forecast.time.total.likely
    return best if abs(share - 1) <= NEAR else with_tokens(goal, best, share * forecast.tokens.run, price)


def until_it_fits(
    goal: Goal,
    choices: list[Choice],
    price: Price | None,
    console: Console,
    compiled: Callable[[Choice], tuple[Choice, Forecast]],
) -> tuple[list[Choice], Forecast]:
    """Prints the choices and what the best needs as compiled; if that does not fit, the same with the next best.

    compiled: returns a choice with as many tokens as it trains as compiled, and its forecast.

    Returns:
      The choices, the best one first, and its forecast, which does not fit if TRIES compilations did not.
    """
    for left in reversed(range(TRIES)):
        console.print(choices_table(choices, price))
        console.print(f"\n{choices[0].name}:", style="bold")
        best, forecast = compiled(choices[0])
        choices = [best, *choices[1:]]
        console.print(forecast_table(forecast))
        if forecast.fit.fits or not left:
            break
        needs, most = bytes_text(forecast.memory.total), bytes_text(forecast.fit.most)
        console.print(f"\nas compiled it needs {needs} of {most}, so the next best follows\n", style="yellow")
        choices = without_best(goal, choices, forecast.memory, price)
    return choices, forecast


def in_seconds(goal: Goal, place: Place, price: Price | None) -> Goal:
    """A budget of hours or dollars as the seconds for which it pays."""
    hours = goal.amount / (price.amount * place.count) if goal.kind == "dollars" and price else goal.amount
    return dataclasses.replace(goal, kind="seconds", amount=3600 * hours)


def chosen_from(place: Place, fields: dict[str, Any]) -> list[Candidate]:
    """The sizes that a search may choose from. fields: set in each of their configs."""
    if CONFIG.value is None:
        return sizes(SIZES.value, place, lambda config: facts_at_hand(freeze(config))[0], fields)
    config = CONFIG.value.copy_and_resolve_references()
    config.update_from_flattened_dict(fields)
    return [Candidate("the config", config, facts_at_hand(freeze(config))[0], place)]


def reached(best: Choice) -> str:
    loss = (
        f", loss {best.loss:.3f} by a published law" if best.loss is not None and best.is_better_than_guessing else ""
    )
    return f"{best.parameters:,} parameters on {best.tokens or 0:,.0f} tokens{loss}"


# --- Files -----------------------------------------------------------------------------------------------------------


def write(forecast: Forecast, figures: dict[str, Any], files: dict[str, Path], console: Console) -> None:
    """Writes --json and --plot, and says which files were written."""
    if "json" in files:
        with write_aside(files["json"]) as out:
            out.write((json.dumps(figures, indent=2) + "\n").encode())
    if "plot" in files:
        from gptjax.forecast.picture import draw  # imported late because matplotlib is slow to import

        draw(forecast, files["plot"])
    for path in files.values():
        console.print(f"written: {path}", soft_wrap=True)


if __name__ == "__main__":
    cli.run(main, flags, outlives_console=True)
