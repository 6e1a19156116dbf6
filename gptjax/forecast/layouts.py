"""How one model can be trained on given devices: the mesh, the micro-batch and the rematerialization.

  ranked = layouts_of(config, data, place)

All layouts are compared by formula and ranked by speed; each but the fastest has the reason why it is not the best.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from gptjax.config import ConfigError
from gptjax.data.facts import DataFacts
from gptjax.display.formatting import bytes_text
from gptjax.forecast.devices import Place, kind_of
from gptjax.forecast.duration import StepTime, step_time
from gptjax.forecast.fits import likely_needs, replaced
from gptjax.forecast.formula import formula_needs
from gptjax.forecast.memory import Memory
from gptjax.forecast.outcomes import calibrate
from gptjax.forecast.room import fit_of
from gptjax.forecast.run import peak_of_device
from gptjax.forecast.step import Needs
from gptjax.model.families import validate_model
from gptjax.parallel.mesh import AXES, AbstractDevices, batch_devices
from gptjax.parallel.pipeline import schedule_of
from gptjax.planning import Plan, plan

REMATS = ("none", "dots", "full")
WITHIN = (2, 4, 8)  # devices of a node over which heads, sequences or experts are divided
STAGES, PASSES = (2, 4, 8), (1, 4)  # stages of a pipeline, and micro-batches per stage
LONG = 8192  # tokens of a sequence from which it may be divided, too
ALIKE = 0.01  # times that differ by a smaller fraction count as equal
EIGHT_BITS = "model.matmul"  # the field that only layouts with 8-bit products set
WITH_FLOAT8 = (8, 9)  # compute capability of the first GPUs that multiply 8-bit floats


@dataclasses.dataclass(frozen=True)
class Layout:
    """One way to train a model.

    Attributes:
      fields: the config's fields that it sets.
      plan, needs, time: its plan, needs and step time; None if the config cannot be trained on this mesh.
      fits: whether its memory fits into what JAX allocates of a device.
      reason: why it is not the best; '' for the best.
    """

    fields: Mapping[str, Any]
    plan: Plan | None = None
    needs: Needs | None = None
    time: StepTime | None = None
    fits: bool = False
    reason: str = ""

    @property
    def tokens_per_second(self) -> float:
        """0 if it cannot train."""
        if self.plan is None or self.time is None or not self.fits:
            return 0.0
        return self.plan.tokens_per_step / self.time.step.likely


def layouts_of(config: ConfigDict, data: DataFacts, place: Place) -> list[Layout]:
    """All layouts that are tried, the best one first. A layout can train if its tokens_per_second are above 0."""
    peak = _peak(place)
    return _explained(sorted(_tried(config, data, place, peak), key=_rank), place, peak)


def without_best(layouts: Sequence[Layout], compiled: Memory, place: Place) -> list[Layout]:
    """The layouts again, the next best first, since the compiled step of the best needs more memory than there is."""
    best, *others = layouts
    assert best.needs is not None
    failed = dataclasses.replace(best, needs=dataclasses.replace(best.needs, memory=compiled), fits=False)
    return _explained([*(each for each in others if EIGHT_BITS not in each.fields), failed], place, _peak(place))


def _dtype(place: Place) -> str:
    return "float32" if place.hardware.platform == "cpu" else "bfloat16"


def _peak(place: Place) -> float:
    peak = peak_of_device(place, _dtype(place))
    if peak is None:
        raise ConfigError(f"--hardware={place.hardware.name}: the table of peaks lacks it, so times cannot be compared")
    return peak


def _explained(ranked: Sequence[Layout], place: Place, peak: float) -> list[Layout]:
    """Says of each layout but the first why it is not the best, and adds the first with 8-bit products."""
    best = dataclasses.replace(ranked[0], reason=ranked[0].reason if ranked[0].needs is None else "")
    others = [_with_reason(layout, best, place) for layout in ranked[1:]]
    return [best, *others, *_in_eight_bits(best, place, peak)]


def with_fields(config: ConfigDict, fields: Mapping[str, Any]) -> ConfigDict:
    """A copy of the config with these fields set."""
    changed = config.copy_and_resolve_references()
    changed.unlock()
    changed.update_from_flattened_dict(dict(fields))
    return changed


def _rank(layout: Layout) -> tuple[float, int]:
    """Sorts by speed; among layouts of about equal speed (ALIKE), by memory."""
    rate = layout.tokens_per_second
    return (-round(math.log(rate) / ALIKE) if rate else math.inf, _bytes(layout))


def _tried(config: ConfigDict, data: DataFacts, place: Place, peak: float) -> Iterator[Layout]:
    rows = max(1, round(config.training.batch_size / place.count)) * place.count
    devices = AbstractDevices(place.hardware.platform, place.count, place.hardware.kind)
    for mesh in _meshes(config, place, rows):
        fields = {f"mesh.{name}": value for name, value in {**_ONE_DEVICE, **mesh}.items()}
        fields |= {
            "training.batch_size": rows,
            "training.gradient_accumulation_steps": 1,
            "training.batch_per_device": "",
        }
        try:
            changed = with_fields(config, fields)
            validate_model(changed)
            made = plan(changed, data, devices)
        except ConfigError as error:
            yield Layout(fields, reason=str(error))
            continue
        for remat in REMATS:
            yield _largest_micro_batch(made, fields, remat, place, peak)


_ONE_DEVICE: Mapping[str, Any] = dict.fromkeys(AXES, 1) | {
    **{"zero1": False, "pipeline_microbatches": 0, "pipeline_repeats": 1},
    **{"context_attention": "auto", "expert_exchange": "auto"},
}


def _meshes(config: ConfigDict, place: Place, rows: int) -> Iterator[dict[str, Any]]:
    """Meshes of all devices: data, fsdp, ZeRO-1, hybrid sharding; tensor, and for long sequences context, within a
    node; experts; and stages of a pipeline, if there are several nodes."""
    count, per_node = place.count, min(place.hardware.per_node, 8)
    yield {"data": count}
    if count == 1:
        return
    yield {"fsdp": count}
    yield {"data": count, "zero1": True}
    if count > per_node and count % per_node == 0:
        yield {"data": count // per_node, "fsdp": per_node}
    within = [size for size in WITHIN if size <= min(per_node, count) and count % size == 0]
    yield from ({"fsdp": count // size, "tensor": size} for size in within)
    if config.data.sequence_length >= LONG:
        yield from ({"fsdp": count // size, "context": size} for size in within)
    if config.model.num_experts:
        ways = ("auto", "all_to_all") if config.model.expert_capacity else ("auto",)
        for size, way in itertools.product(within, ways):
            yield {"fsdp": count // size, "expert": size, "expert_exchange": way}
    if count > per_node:
        yield from _pipelines(count, per_node, rows)


def _pipelines(count: int, per_node: int, rows: int) -> Iterator[dict[str, Any]]:
    for stages, passes in itertools.product(STAGES, PASSES):
        each = count // stages
        if count % stages or rows % (passes * stages * each):
            continue
        fields = {"pipeline": stages, "pipeline_microbatches": passes * stages}
        yield fields | {"fsdp": each}
        if each > 1:
            yield fields | {"data": each, "zero1": True}
        if each > per_node and each % per_node == 0:
            yield fields | {"data": each // per_node, "fsdp": per_node}


def _largest_micro_batch(made: Plan, fields: Mapping[str, Any], remat: str, place: Place, peak: float) -> Layout:
    """The layout with the fewest micro-batches that fits; if none fits, the one with the most."""
    rows, steps = made.rows_at_once, 1
    schedule = schedule_of(made.config.mesh, made.mesh)
    parts = batch_devices(made.mesh) * (schedule.microbatches if schedule.stages > 1 else 1)
    while True:
        changed = replaced(made, steps, remat)
        needs = likely_needs(changed)
        fits = needs.memory.total <= (fit_of(needs.memory, changed, place).available or math.inf)
        smaller = 2 * steps
        if fits or rows % (smaller * parts):
            time = _time(needs, place, peak)
            chosen = {**fields, "model.remat": remat, "training.gradient_accumulation_steps": steps}
            return Layout(chosen, changed, needs, time, fits)
        steps = smaller


def _time(needs: Needs, place: Place, peak: float) -> StepTime:
    """The time of a step, as in this user's earlier runs on such devices."""
    factor = calibrate(kind_of(place.hardware), _dtype(place)).factor
    return step_time(needs, place.hardware, peak).times(factor)


def _in_eight_bits(best: Layout, place: Place, peak: float) -> Iterator[Layout]:
    """The best layout with 8-bit products, if the device supports them. Never chosen: it changes the loss."""
    target = place.hardware.target
    if best.plan is None or not best.fits or target is None or target.capability < WITH_FLOAT8:
        return
    if best.plan.config.model.num_experts:  # they multiply in the compute dtype only
        return
    model = dataclasses.replace(best.plan.config.model, matmul="fp8")
    changed = dataclasses.replace(best.plan, config=dataclasses.replace(best.plan.config, model=model))
    needs = formula_needs(changed)
    time = _time(needs, place, peak)
    layout = Layout({**best.fields, EIGHT_BITS: "fp8"}, changed, needs, time, True)
    faster = layout.tokens_per_second / best.tokens_per_second - 1
    speed = f"{faster:.0%} faster, but" if faster >= ALIKE else "not faster, and"
    yield dataclasses.replace(layout, reason=f"{speed} changes the loss by an unknown amount")


def _bytes(layout: Layout) -> int:
    return layout.needs.memory.total if layout.needs else 2**62


def _with_reason(layout: Layout, best: Layout, place: Place) -> Layout:
    if layout.needs is None or layout.time is None or layout.plan is None:
        return layout
    if not layout.fits:
        limit = fit_of(layout.needs.memory, layout.plan, place).available
        return dataclasses.replace(
            layout, reason=f"does not fit: {bytes_text(layout.needs.memory.total)} of {bytes_text(limit)}"
        )
    slower = best.tokens_per_second / layout.tokens_per_second - 1
    assert best.time is not None
    parts = {
        "computes more": layout.time.products.likely - best.time.products.likely,
        "sends more": layout.time.sending.likely - best.time.sending.likely,
        "moves more in memory": layout.time.other.likely - best.time.other.likely,
    }
    why = max(parts, key=lambda name: parts[name])
    if slower < ALIKE:
        return dataclasses.replace(layout, reason="about as fast")
    return dataclasses.replace(layout, reason=f"{slower:.0%} slower: {why}")
