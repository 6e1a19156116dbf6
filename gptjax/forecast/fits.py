"""Whether a run fits into the memory of its devices, decided before it is compiled, and the nearest run that does fit.

  warning = check_fits(plan, limit)      raises ConfigError for a run that cannot fit

State and batch are known exactly; the rest is estimated by formula, which may be wrong. A run is refused only if its
estimate is far above the memory that there is (`SURE`). Near that memory, there is a warning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from gptjax.config import ConfigError
from gptjax.forecast.formula import formula_memory, formula_needs
from gptjax.forecast.memory import Memory, bytes_on_device, step_bytes
from gptjax.forecast.room import FRACTION, MOST_FRACTION, ROOM, beside_steps, memory_fraction
from gptjax.forecast.step import Needs
from gptjax.parallel.mesh import AbstractDevices, batch_devices
from gptjax.planning import Plan, plan
from gptjax.settings import thaw

# A run is refused if its estimate is this many times the memory. The formula is fitted to dense models on GPUs; for
# XLA:CPU it is too low (ON_CPU), except for loops over layers.
SURE = {"gpu": 1.15, "tpu": 1.15, "cpu": 1.3}
# The same for other models: mixtures of experts, encoder-decoders, with frozen parameters, or beside another model.
UNSURE = 2.0
# What XLA:CPU keeps besides parameters, gradients and optimizer, per byte of the formula's figure without
# rematerialization, which frees nothing there: 1.3 to 2.0 in compiled steps of 5M to 30M parameters.
ON_CPU = 1.8
REMATS = ("none", "dots", "attention", "full")
MOST_DEVICES = 1024
_SMALLER = "choose a smaller model.width, model.num_layers, model.vocab_size or data.sequence_length"


def check_fits(made: Plan, limit: int | None) -> str:
    """Refuses a run that cannot fit into `limit` bytes per device (None: unknown), and names the nearest that does.

    Returns:
      A warning if the run may not fit, or ''.

    Raises:
      ConfigError: it cannot fit.
    """
    if limit is None:
        return ""
    of_state = bytes_on_device((made.abstract_state, made.trainer.companions))
    of_batch = bytes_on_device(made.abstract_batch)
    has = f"but a device has {_gigabytes(limit)}"
    if of_state + of_batch > limit:
        needs = f"the training state takes {_gigabytes(of_state)} per device and a batch {_gigabytes(of_batch)}"
        raise ConfigError(f"{needs}, {has}: {advice(made, limit)}")
    estimate = formula_memory(made).total
    if estimate > _sure(made) * limit:
        raise ConfigError(f"a step needs about {_gigabytes(estimate)} per device, {has}: {advice(made, limit)}")
    if (likely := likely_bytes(made)) <= usable(made, limit):
        return ""
    return f"this may not fit: a step needs about {_gigabytes(likely)} per device, {has}; {advice(made, limit)}"


def refuse_compiled(made: Plan, limit: int | None) -> int | None:
    """The bytes that training needs on each device by its compiled step, which this compiles if needed; None: the
    compiler does not say.

    Raises:
      ConfigError: they are more than `limit`.
    """
    if (needs := step_bytes(made, made.compiled_step.run)) is not None and limit is not None and needs > limit:
        has = f"but a device has {_gigabytes(limit)}"
        raise ConfigError(f"a step needs {_gigabytes(needs)} per device, {has}: {advice(made, limit)}")
    return needs


def usable(made: Plan, limit: float) -> float:
    """The bytes of a device with `limit` bytes that a step may take so that the run surely fits."""
    return ROOM[made.platform] * max(limit - beside_steps(made), 0)


def likely_needs(made: Plan) -> Needs:
    """The needs of a step by formula, with the memory that training likely needs (`likely_memory`)."""
    return dataclasses.replace(formula_needs(made), memory=likely_memory(made))


def likely_memory(made: Plan) -> Memory:
    """The memory that training needs on each device, by formula."""
    config = made.config
    if made.platform != "cpu":
        return formula_memory(made)
    factor = 1.0
    if config.model.layers == "unroll":
        made, factor = replaced(made, config.training.gradient_accumulation_steps, "none"), ON_CPU
    memory = formula_memory(made)
    work = {name: round(factor * getattr(memory, name)) for name in ("activations", "logits", "workspace")}
    return dataclasses.replace(memory, **work)


def likely_bytes(made: Plan) -> int:
    """The total of `likely_memory`."""
    return likely_memory(made).total


def compiled_bytes(made: Plan) -> int:
    """The bytes that training needs on each device, by the compiler; by formula if it does not say."""
    return step_bytes(made, made.compiled_step.run) or likely_bytes(made)


def replaced(made: Plan, steps: int, remat: str) -> Plan:
    """The plan with `steps` micro-batches and another rematerialization, for estimates: its trainer is not made
    again."""
    model = dataclasses.replace(made.config.model, remat=cast(Any, remat))
    training = dataclasses.replace(made.config.training, gradient_accumulation_steps=steps)
    return dataclasses.replace(made, config=dataclasses.replace(made.config, model=model, training=training))


def micro_batches(made: Plan) -> list[int]:
    """The numbers of micro-batches into which the devices can divide a batch, ascending."""
    config = made.config
    if config.model.num_experts and config.training.load_balance_over == "batch":
        return [1]
    rows, devices = config.training.batch_size, batch_devices(made.mesh)
    return [steps for steps in range(1, rows // devices + 1) if rows % (steps * devices) == 0]


def remats(made: Plan) -> list[str]:
    """The config's rematerialization, and those that keep less, in this order."""
    remat = made.config.model.remat
    return list(REMATS[REMATS.index(remat) :]) if remat in REMATS else [remat]


def _sure(made: Plan) -> float:
    """How many times the memory an estimate must be for a run to be refused."""
    config = made.config
    dense = config.model.family in ("decoder", "encoder") and not config.model.num_experts
    frozen = any(each.method == "frozen" for each in made.trainer.treatments.values())
    alone = not made.trainer.companions
    return SURE[made.platform] if dense and alone and not frozen else UNSURE


# --- the nearest run that fits ---------------------------------------------------------------------------------------


def advice(made: Plan, limit: int) -> str:
    """'training.gradient_accumulation_steps=8 (about 3.1 GiB) would fit', or what to make smaller if nothing would."""
    if not (found := nearest(made, limit)):
        return f"{_SMALLER}, or more devices on mesh.fsdp"
    return f"{' or '.join(f'{text} (about {_gigabytes(size)})' for text, size in found)} would fit"


def nearest(made: Plan, limit: int) -> list[tuple[str, int]]:
    """Settings with which the run fits, and the bytes that a step then needs, by formula.

    The first of these that has any: one change (more micro-batches, rematerialization, a larger part of a GPU's
    memory), both of the first two, the optimizer on the host, parameters divided over these devices, more devices.
    """
    room, now = usable(made, limit), made.config.training.gradient_accumulation_steps
    remat, *further = remats(made)
    more = [steps for steps in micro_batches(made) if steps > now]
    single = [_first_that_fits(made, [(steps, remat) for steps in more], room)]
    single += [_first_that_fits(made, [(now, each) for each in further], room), _more_of_the_device(made, limit)]
    if found := [each for each in single if each]:
        return found
    for fields, where in ({}, 0), *_elsewhere(made):
        try:
            moved = _planned(made, fields, where) if fields else made
        except ConfigError:  # such a mesh does not divide this model or batch
            continue
        every = [(steps, each) for each in remats(moved) for steps in micro_batches(moved) if steps >= now]
        if best := _first_that_fits(moved, every, room, ", ".join(f"{name}={fields[name]}" for name in fields)):
            return [(f"{best[0]} on {where} such devices" if where else best[0], best[1])]
    return []


def _first_that_fits(
    made: Plan, tried: Iterable[tuple[int, str]], room: float, before: str = ""
) -> tuple[str, int] | None:
    """The first (micro-batches, remat) that fits, as a text and bytes. before: other settings of the text."""
    training, model = made.config.training, made.config.model
    for steps, remat in tried:
        if (size := likely_bytes(replaced(made, steps, remat))) <= room:
            texts = [before] if before else []
            if steps != training.gradient_accumulation_steps:
                texts.append(f"training.gradient_accumulation_steps={steps}")
            return ", ".join(texts + ([f"model.remat={remat}"] if remat != model.remat else [])), size
    return None


def _more_of_the_device(made: Plan, limit: int) -> tuple[str, int] | None:
    """JAX allocates only a part of a GPU's memory, which can be larger."""
    size, device = likely_bytes(made), limit / memory_fraction()
    if made.platform != "gpu" or size > ROOM["gpu"] * MOST_FRACTION * device:
        return None
    return f"the environment variable {FRACTION}={size / ROOM['gpu'] / device:.2f}", size


def _elsewhere(made: Plan) -> Iterator[tuple[dict[str, Any], int]]:
    """(fields, number of devices, or 0 for the same devices)"""
    count, mesh = made.mesh.size, made.config.mesh
    if made.platform != "cpu":
        yield {"optimizer.memory": "host"}, 0
    divided = {"mesh.data": 1} if mesh.data > 1 else {}
    if made.mesh.shape["data"] > 1:
        yield {"mesh.fsdp": made.mesh.shape["data"] * made.mesh.shape["fsdp"], **divided}, 0
    more = 2 * count
    while more <= MOST_DEVICES:
        yield {"mesh.fsdp": more * made.mesh.shape["fsdp"] * made.mesh.shape["data"] // count, **divided}, more
        more *= 2


def _planned(made: Plan, fields: Mapping[str, Any], count: int) -> Plan:
    """The run with these fields, on `count` devices of the same kind (0: as many as before)."""
    config = thaw(made.config)
    config.update_from_flattened_dict(dict(fields) | {"training.batch_per_device": ""})
    kind = made.devices.kind if isinstance(made.devices, AbstractDevices) else made.devices[0].device_kind
    return plan(config, made.data, AbstractDevices(made.platform, count or made.mesh.size, kind))


def _gigabytes(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB"
