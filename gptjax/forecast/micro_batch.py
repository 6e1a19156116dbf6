"""Replaces `training.batch_per_device = auto`: the largest micro-batch that fits, or the fastest way with less memory.

Candidates are numbers of micro-batches, each with the config's rematerialization or one that keeps less. They are
ranked by estimated speed, so a whole batch at once comes first. The first that fits by formula is compiled; if the
compiled step needs other memory than estimated, the estimates are corrected by what was found. The batch of the
optimizer is always `training.batch_size`, so results differ only in rounding. A resumed run keeps its earlier choice,
so that it continues exactly.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from gptjax.config import AUTO, ConfigError
from gptjax.display.formatting import bytes_text, counted
from gptjax.forecast.devices import Place, find_place
from gptjax.forecast.duration import step_time
from gptjax.forecast.fits import (
    advice,
    check_fits,
    compiled_bytes,
    likely_bytes,
    micro_batches,
    refuse_compiled,
    remats,
    replaced,
    usable,
)
from gptjax.forecast.formula import formula_memory, formula_needs
from gptjax.forecast.memory import bytes_on_device
from gptjax.forecast.room import ROOM, beside_steps, fit_of
from gptjax.forecast.run import peak_of_device
from gptjax.forecast.step import compiled_needs
from gptjax.parallel import members
from gptjax.parallel.compiled import UncountedLoop
from gptjax.parallel.distributed import of_process_0, processes_on_this_host, smallest
from gptjax.parallel.mesh import AbstractDevices, batch_devices
from gptjax.planning import Plan, plan
from gptjax.settings import thaw
from gptjax.training.checkpoints.loading import saved_metadata
from gptjax.training.hardware import bytes_per_device, free_bytes_per_device

ENOUGH = 4  # compilations after which the best candidate that fits is taken
ALIKE = 0.03  # speeds that differ by a smaller fraction count as equal; what recomputes less comes first


class Candidate(NamedTuple):
    """A number of micro-batches per batch, and the rematerialization."""

    steps: int
    remat: str


def fitted(made: Plan, workdir: Path) -> tuple[Plan, list[str]]:
    """The plan with its micro-batch decided, and notes to print.

    Args:
      made: for devices of this machine.
      workdir: the run's folder, which may hold an earlier choice.

    Raises:
      ConfigError: the run cannot fit, or, on processors, may not.
    """
    limit = bytes_per_device()
    if made.config.training.batch_per_device != AUTO:
        warning = check_fits(made, limit)
        return made, [warning] if warning else []
    members.begin("deciding training.batch_per_device")
    if (earlier := _earlier(made, workdir)) is not None:
        again = _planned(made, earlier)
        check_fits(again, limit)
        return again, [f"training.batch_per_device={AUTO}: {_described(again, made)}, as before"]
    if (room := _room(made)) is None:
        raise ConfigError(f"training.batch_per_device = {AUTO!r}: this device does not report its memory; set a number")
    chosen, size = decide(made, room, _seconds_of(made), _compiled_bytes)
    if size > room:
        check_fits(chosen, limit)
        size = _compiled_bytes(chosen)
        refuse_compiled(chosen, limit)
    if size > room and made.platform == "cpu":
        _refuse(chosen, made, size, room)
    of = f"a step needs {bytes_text(size)} of {bytes_text(room)} per device"
    tight = "" if size <= room else ": this may not fit"
    return chosen, [f"training.batch_per_device={AUTO}: {_described(chosen, made)}; {of}{tight}"]


def _refuse(least: Plan, made: Plan, size: float, room: int) -> None:
    """Refuses the candidate that needs least: of processors' memory, the system would kill the process without a word.

    Raises:
      ConfigError: always.
    """
    nearest = advice(least, round(room / ROOM["cpu"] + beside_steps(least)))
    raise ConfigError(
        f"training.batch_per_device = {AUTO!r}: even {_described(least, made)} needs about {bytes_text(size)}, and "
        f"{bytes_text(room)} are left beside what the process itself needs: {nearest}"
    )


def fitted_at(place: Place, made: Plan) -> tuple[Plan, list[str]]:
    """As `fitted`, for a run that is only planned, and without refusing it: by the compiled steps where they can be
    compiled, else by formula.

    Raises:
      ConfigError: the mesh cannot divide the batch.
    """
    if made.config.training.batch_per_device != AUTO:
        return made, []
    fit = fit_of(formula_memory(made), made, place)
    room = ROOM[place.hardware.platform] * fit.available if fit.device else math.inf
    peak = peak_of_device(place, made.config.model.dtype)
    of_compiled = functools.partial(_bytes_at, place)
    chosen, size = decide(made, room, _seconds_at(place, peak), of_compiled)
    found = "by formula" if of_compiled(chosen) is None else f"a step needs {bytes_text(size)} of {bytes_text(room)}"
    return chosen, [f"training.batch_per_device={AUTO}: {_described(chosen, made)}, {found}"]


def _bytes_at(place: Place, made: Plan) -> float | None:
    """The bytes of the compiled step at a place, math.inf if it cannot be compiled; None: it is only described."""
    if isinstance(place.devices, AbstractDevices):
        return None
    try:
        return compiled_needs(made, place.hardware).memory.total
    except UncountedLoop:
        return None
    except jax.errors.JaxRuntimeError:
        return math.inf


def decide(
    made: Plan, room: float, seconds_of: Callable[[Plan], float], bytes_of: Callable[[Plan], float | None]
) -> tuple[Plan, float]:
    """The plan of the best candidate whose steps need at most `room` bytes per device, and these bytes.

    If none does, it is the plan that needs least.

    Args:
      seconds_of: the estimated time of a step of a plan.
      bytes_of: the bytes of a plan's compiled step, math.inf if it cannot be compiled, or None without a compiler.

    Raises:
      ConfigError: the mesh cannot divide the batch.
    """
    every = [Candidate(steps, remat) for remat in remats(made) for steps in micro_batches(made)]
    plans = {each: replaced(made, *each) for each in every}
    order = {remat: number for number, remat in enumerate(remats(made))}

    def rank(each: Candidate) -> tuple[float, int, int]:
        return round(math.log(seconds_of(plans[each])) / ALIKE), order[each.remat], each.steps

    ranked = sorted(every, key=rank)
    planned = functools.cache(functools.partial(_planned, made))  # a plan keeps its compiled step
    estimate, found = Estimate(made, plans), dict[Candidate, float]()
    best: Candidate | None = None
    while best is None or len(found) < ENOUGH:
        better = ranked if best is None else ranked[: ranked.index(best)]
        hopeful = [each for each in better if each not in found and estimate(each) <= room]
        if not hopeful:
            break
        candidate = hopeful[0]
        try:
            size = bytes_of(planned(candidate))
        except ConfigError:  # a pipeline, for example, cannot divide this micro-batch
            size = math.inf
        found[candidate] = estimate.learn(candidate, size)
        if found[candidate] <= room:
            best = candidate
    if best is None:
        possible = [each for each in ranked if found.get(each) != math.inf]
        if not possible:
            raise ConfigError(f"training.batch_per_device = {AUTO!r}: the mesh divides no micro-batch of this batch")
        best = min(possible, key=lambda each: found.get(each, estimate(each)))
    return planned(best), found.get(best, estimate(best))


class Estimate:
    """The bytes that a candidate's step needs: by formula, corrected by the steps that have been compiled."""

    def __init__(self, made: Plan, plans: Mapping[Candidate, Plan]):
        self._fixed = bytes_on_device(made.abstract_state) + bytes_on_device(made.abstract_state.params)  # gradients
        self._by_formula = functools.cache(lambda candidate: likely_bytes(plans[candidate]))
        self._factors: dict[str, float] = {}  # of what micro-batches and rematerialization change, by the latter

    def __call__(self, candidate: Candidate) -> float:
        return self._fixed + self._factor(candidate.remat) * (self._by_formula(candidate) - self._fixed)

    def learn(self, candidate: Candidate, size: float | None) -> float:
        """Corrects the estimates by the size of a compiled step; returns the size, or the estimate if there is none."""
        if size is None:
            return self(candidate)
        if math.isfinite(size):
            changing = max(self._by_formula(candidate) - self._fixed, 1)
            self._factors[candidate.remat] = max(size - self._fixed, 0.0) / changing
        return size

    def _factor(self, remat: str) -> float:
        return self._factors.get(remat, next(reversed(self._factors.values()), 1.0))


def _compiled_bytes(made: Plan) -> float:
    """The bytes of the compiled step in process 0, or math.inf if the compiler itself runs out of memory."""
    members.begin("compiling")
    try:
        size: float = compiled_bytes(made)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        size = math.inf
    members.wait_for_all()
    return of_process_0(size)


def _seconds_of(made: Plan) -> Callable[[Plan], float]:
    """Estimates the time of a plan's step on this machine; if its devices are in no table, all are equal."""
    try:
        place = find_place("this", None)
    except ConfigError:
        return lambda _: 1.0
    return _seconds_at(place, of_process_0(peak_of_device(place, made.config.model.dtype)))


def _seconds_at(place: Place, peak: float | None) -> Callable[[Plan], float]:
    if peak is None:
        return lambda _: 1.0
    return lambda each: step_time(formula_needs(each), place.hardware, peak).step.likely


def _planned(made: Plan, candidate: Candidate) -> Plan:
    """Raises ConfigError if the mesh cannot divide such micro-batches."""
    rows = made.config.training.batch_size // candidate.steps // batch_devices(made.mesh)
    config = thaw(made.config)
    config.training.batch_per_device, config.model.remat = str(rows), candidate.remat
    return plan(config, made.data, made.devices)


def _room(made: Plan) -> int | None:
    """The bytes that a step may need on each device of any process; None if a device does not report its memory."""
    if (free := free_bytes_per_device()) is None:
        return None
    if made.platform == "cpu":
        free //= processes_on_this_host()
    return smallest(round(usable(made, free)))


def _earlier(made: Plan, workdir: Path) -> Candidate | None:
    """The choice of the run's newest checkpoint, if it is for this batch and as many devices."""
    found: Any = None
    if jax.process_index() == 0 and (saved := saved_metadata(workdir)) is not None:
        training, model = saved["config"]["training"], saved["config"]["model"]
        steps, rows = training["gradient_accumulation_steps"], training["batch_size"]
        at_once = str(training.get("batch_per_device", ""))
        alike = at_once.isdecimal() and int(at_once) * steps * batch_devices(made.mesh) == rows
        found = [steps, model["remat"]] if alike and rows == made.config.training.batch_size else None
    found = of_process_0(found)
    return Candidate(*found) if found is not None else None


def _described(chosen: Plan, made: Plan) -> str:
    """'4 sequences per device, gradient_accumulation_steps=2, model.remat=dots'"""
    rows, steps = int(chosen.config.training.batch_per_device), chosen.config.training.gradient_accumulation_steps
    parts = [f"{counted(rows, 'sequence')} at once on each device", f"gradient_accumulation_steps={steps}"]
    if chosen.config.model.remat != made.config.model.remat:
        parts.append(f"model.remat={chosen.config.model.remat}")
    return ", ".join(parts)
