"""The forecast of a whole run: size, memory, time, energy, price, checkpoints, data and loss.

  forecast = forecast_run(plan, place, needs, price)

`table.py` prints it, `picture.py` draws it, and `to_json` is for programs.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax

from gptjax.data.facts import read_validation_windows
from gptjax.forecast.devices import Place, kind_of
from gptjax.forecast.duration import Cases, StepTime, step_time
from gptjax.forecast.memory import Memory
from gptjax.forecast.outcomes import Calibration, calibrate
from gptjax.forecast.price import Price
from gptjax.forecast.room import Fit, fit_of
from gptjax.forecast.step import Needs
from gptjax.forecast.tuning import FORWARD
from gptjax.model.tree import leaves_by_path
from gptjax.planning import Plan
from gptjax.scaling.laws import DEFAULT, LAWS, Law
from gptjax.scaling.repetition import ON_C4, DiminishingReturns
from gptjax.training.checkpoints.frozen_parameters import split
from gptjax.training.hardware import measured_peak
from gptjax.training.optimizers.trained import backward_of

SAVE_RATE = 0.21e9  # bytes per second and node to disk, checksums included (experiments/throughput, two CPU cores)
# Bytes per second of the copy that blocks training: from one accelerator to its host, half of the rate of PCIe 4.0; for
# a node of CPUs, from memory to memory (experiments/throughput).
COPY_RATE = {"gpu": 16e9, "tpu": 16e9, "cpu": 6e9}
FITTED_SIZES, FITTED_TOKENS = (70e6, 16e9), (5e9, 500e9)  # of Chinchilla, to whose runs the default law is fitted
REPEATED = DiminishingReturns()
LAW_OBJECTIVE = "next_token"


@dataclasses.dataclass(frozen=True)
class Size:
    """The number of parameters, and FLOPs per token by convention.

    Attributes:
      trained: the parameters that rules or adapters leave to be trained.
      of_law: the N of a law, which is of dense models (`dense_size`).
    """

    parameters: int
    without_embeddings: int
    active: int
    trained: int
    of_law: float
    flops_per_token: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The tokens of the run.

    Attributes:
      at_hand: tokens in one pass over the data; None: no data were found.
      epochs: passes over the data; None: no data were found.
      optimal: the number of tokens for which this size is compute-optimal by the law of `Loss`.
    """

    per_step: int
    run: int
    steps: int
    at_hand: int | None
    epochs: float | None
    optimal: float


@dataclasses.dataclass(frozen=True)
class Speed:
    """The speed of all devices together. mfu: fraction of the peak, by convention; None: the peak is unknown."""

    tokens_per_second: Cases
    mfu: dict[str, Cases]
    peak_flops: float


@dataclasses.dataclass(frozen=True)
class RunTime:
    """Seconds of the whole run and of its parts."""

    training: Cases
    evaluation: Cases
    checkpoints: Cases
    total: Cases


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """bytes: size of one checkpoint; shared: that of the parameters that no step changes, which are written once for
    all; kept: the maximum number on disk; save_seconds: time of a save, during which training continues."""

    bytes: int
    shared: int
    kept: int
    saves: int
    save_seconds: float


@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss in nats per token by a published law, and the lowest and highest of all laws.

    Attributes:
      repeated: whether text is read more than once.
      extrapolated: whether size or tokens are outside those of the runs that the law was fitted to.
      why_not: why there is none, or ''.
    """

    law: str
    source: str
    loss: float | None
    lowest: float | None
    highest: float | None
    repeated: bool = False
    extrapolated: bool = False
    why_not: str = ""


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Everything that is known about a run before it starts."""

    hardware: str
    count: int
    mesh: dict[str, int]
    compute: dict[str, str]
    source: str
    why_not_compiled: str
    size: Size
    tokens: Tokens
    memory: Memory
    fit: Fit
    step: StepTime | None
    speed: Speed | None
    time: RunTime | None
    energy_kwh: Cases | None
    cost: Cases | None
    currency: str
    checkpoint: Checkpoint
    loss: Loss
    notes: tuple[str, ...]
    calibration: Calibration

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def forecast_run(plan: Plan, place: Place, needs: Needs, price: Price | None, notes: tuple[str, ...] = ()) -> Forecast:
    """Combines all parts of a forecast, with times as in this user's earlier runs. notes: the assumptions."""
    config, count = plan.config, place.count
    calibration = calibrate(kind_of(place.hardware), config.model.dtype)
    peak = peak_of_device(place, config.model.dtype)
    step = speed = time = energy = cost = None
    checkpoint = _checkpoint(plan, place)
    if peak is not None:
        step = step_time(needs, place.hardware, peak).times(calibration.factor)
        speed = _speed(plan, step, peak * count)
        time = _run_time(plan, step, checkpoint, place)
        if place.hardware.watts is not None:
            energy = Cases(*(place.hardware.watts * count * seconds / 3.6e6 for seconds in time.total))
        if price is not None:
            cost = Cases(*(price.of(count, seconds) for seconds in time.total))
    tokens = _tokens(plan)
    return Forecast(
        hardware=place.hardware.name,
        count=count,
        mesh={axis: size for axis, size in plan.mesh.shape.items() if size > 1},
        compute={name: str(config.model[name]) for name in ("dtype", "matmul", "attention", "layers", "remat")},
        source=needs.source,
        why_not_compiled=place.why_not,
        size=_size(plan),
        tokens=tokens,
        memory=needs.memory,
        fit=fit_of(needs.memory, plan, place),
        step=step,
        speed=speed,
        time=time,
        energy_kwh=energy,
        cost=cost,
        currency=price.currency if price else "",
        checkpoint=checkpoint,
        loss=_loss(plan, tokens),
        notes=notes,
        calibration=calibration,
    )


def peak_of_device(place: Place, dtype: str) -> float | None:
    """FLOP/s of one device; the peak of processors is measured."""
    if place.hardware.platform != "cpu":
        return place.hardware.peak(dtype)
    return measured_peak()[0] / place.count


def _size(plan: Plan) -> Size:
    counts, declared = plan.parameters, leaves_by_path(plan.trainer.declared)
    backward = backward_of(plan.trainer.declared, plan.trainer.treatments, stops=True)
    trained = round(sum(backward[path].own * each.size for path, each in declared.items()))
    flops = dict(plan.flops_per_token)
    return Size(counts.total, counts.non_embedding, counts.active, trained, dense_size(plan), flops)


def _tokens(plan: Plan) -> Tokens:
    windows, run = plan.data.windows_per_epoch, plan.total_tokens
    at_hand = None if windows is None else windows * plan.config.data.sequence_length
    optimal = LAWS[DEFAULT].optimal_tokens(dense_size(plan))
    epochs = None if at_hand is None else run / max(at_hand, 1)
    return Tokens(plan.tokens_per_step, run, plan.total_steps, at_hand, epochs, optimal)


def _speed(plan: Plan, step: StepTime, peak: float) -> Speed:
    rate = Cases(*(plan.tokens_per_step / seconds for seconds in step.step))
    mfu = {name: Cases(*(flops * each / peak for each in rate)) for name, flops in plan.flops_per_token.items()}
    return Speed(rate, mfu, peak)


def _run_time(plan: Plan, step: StepTime, checkpoint: Checkpoint, place: Place) -> RunTime:
    training = Cases(*(plan.total_steps * seconds for seconds in step.step))
    per_token = [seconds * FORWARD / plan.tokens_per_step for seconds in step.step]
    times = _times(plan, "evaluation.every")
    evaluated = times * _tokens_of_evaluation(plan) if times else 0
    evaluation = Cases(*(evaluated * seconds for seconds in per_token))
    hardware = place.hardware
    copies = _nodes(place) if hardware.platform == "cpu" else place.count
    stall = checkpoint.saves * checkpoint.bytes / copies / COPY_RATE[hardware.platform]
    checkpoints = Cases(2 * stall, stall, stall / 2)
    total = Cases(*(sum(parts) for parts in zip(training, evaluation, checkpoints)))
    return RunTime(training, evaluation, checkpoints, total)


def _tokens_of_evaluation(plan: Plan) -> int:
    """The tokens that one evaluation reads: those of the config, or all of the validation set if that has fewer or the
    config says 0. If the set is not here, those of the config."""
    config = plan.config
    tokens, windows = config.evaluation.tokens, read_validation_windows(config.data, plan.trainer.objective.windows)
    if windows is None:
        return tokens
    at_hand = windows * config.data.sequence_length
    return min(tokens, at_hand) if tokens else at_hand


def _times(plan: Plan, field: str) -> int:
    """The number of times that an interval of the config ends during the run, including the end of the run."""
    section, name = field.split(".")
    duration = plan.config[section][name]
    return math.ceil(plan.total_steps / plan.units.steps(duration, field)) if duration else 0


def _nodes(place: Place) -> int:
    return -(-place.count // place.hardware.per_node)


def _checkpoint(plan: Plan, place: Place) -> Checkpoint:
    saved, frozen = split(plan.abstract_state, plan.trainer.frozen)
    size, shared = (
        sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(part)) for part in (saved, frozen)
    )
    settings, saves = plan.config.checkpoint, _times(plan, "checkpoint.every")
    kept = settings.keep_latest + settings.keep_best + _times(plan, "checkpoint.keep_every")
    return Checkpoint(size, shared, min(kept, saves), saves, size / _nodes(place) / SAVE_RATE)


def law_loss(law: Law, parameters: float, tokens: float, unique: float) -> float:
    """The loss by a law, where tokens beyond the unique ones count for less and less.

    Parameters are not discounted: with unique tokens alone the law must stay what it is.
    """
    return float(law.loss(float(parameters), REPEATED.effective_tokens(float(tokens), float(min(unique, tokens)))))


def _loss(plan: Plan, tokens: Tokens) -> Loss:
    law = LAWS[DEFAULT]
    config, why = plan.config, ""
    if config.training.objective != LAW_OBJECTIVE:
        why = f"the laws are of next-token prediction, and training.objective = {config.training.objective!r}"
    elif config.training.init_from:
        why = f"the laws are of training from scratch, and training.init_from = {config.training.init_from!r}"
    elif config.model.lora_rank:
        why = f"the laws are of training all parameters, and model.lora_rank = {config.model.lora_rank}"
    if why:
        return Loss(DEFAULT, law.source, None, None, None, why_not=why)
    size, unique = dense_size(plan), min(tokens.at_hand or tokens.run, tokens.run)
    found = {name: law_loss(each, size, tokens.run, unique) for name, each in LAWS.items()}
    if found[DEFAULT] >= math.log(plan.config.model.vocab_size):  # what guessing scores
        why = f"{size:,.0f} parameters and {tokens.run:,} tokens are far below what the laws were fitted to"
        return Loss(DEFAULT, law.source, None, None, None, why_not=why)
    lowest, highest = min(found.values()), max(found.values())
    if unique < tokens.run:  # repetition can also do harm
        highest = max(highest, ON_C4.loss(law, size, tokens.run, unique))
    return Loss(
        DEFAULT, law.source, found[DEFAULT], lowest, highest, unique < tokens.run, extrapolated(size, tokens.run)
    )


def extrapolated(parameters: float, tokens: float) -> bool:
    """Whether a run is outside of the sizes and tokens that the default law was fitted to."""
    (smallest, largest), (fewest, most) = FITTED_SIZES, FITTED_TOKENS
    return not (smallest <= parameters <= largest and fewest <= tokens <= most)


def dense_size(plan: Plan) -> float:
    """The N of a law, which is of dense models: of a mixture of experts, the parameters that a token uses."""
    return float(plan.parameters.active if plan.config.model.num_experts else plan.parameters.total)
