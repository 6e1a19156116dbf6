"""What a run took, with where each figure comes from: measured, counted by a formula, or an estimate."""

from __future__ import annotations

from gptjax.display.formatting import bytes_text, count_text, duration_text
from gptjax.reporting.document import Block, Facts, Paragraph, plain
from gptjax.reporting.effort import Effort
from gptjax.reporting.facts import RunFacts
from gptjax.reporting.summary import devices_text, energy_text, flops_text


def cost_blocks(facts: RunFacts) -> tuple[Block, ...]:
    effort = facts.effort
    hardware = effort.hardware
    rows: list[tuple[str, str, str]] = []
    if hardware:
        count = hardware.get("processes") or 1
        remark = "recorded by the run" + (f", {count} processes" if count != 1 else "")
        if effort.several_kinds:
            remark += "; its starts ran on different devices, this is the last"
        rows.append(("devices", devices_text(effort), remark))
    else:
        rows.append(("devices", "not recorded", "the run is of a version that did not record them"))
    if effort.seconds is not None:
        rows.append(("wall time", duration_text(effort.seconds), "measured; without steps that a kill threw away"))
    if effort.training_seconds is not None:
        rows.append(
            (
                "time of training steps",
                duration_text(effort.training_seconds),
                "measured; the rest is compiling, evaluating and saving",
            )
        )
    if effort.tokens_per_second is not None:
        rows.append(
            ("speed", f"{count_text(effort.tokens_per_second)} tokens per second", "measured, over all training steps")
        )
    if effort.flops is not None:
        rows.append(
            (
                "training FLOPs",
                flops_text(effort.flops),
                "formula of the model's family, causal attention, times the tokens; no recomputation",
            )
        )
    if effort.mfu is not None:
        rows.append(
            (
                "model FLOP utilization",
                f"{100 * effort.mfu:.1f} %",
                f"measured, causal, {effort.peak or 'of the peak that training knew'}",
            )
        )
    if effort.memory_bytes is not None:
        rows.append(("largest memory in use", bytes_text(effort.memory_bytes), "measured at the rows of metrics.jsonl"))
    rows += _energy(effort)
    return (
        Facts(tuple((name, plain(value), plain(remark)) for name, value, remark in rows)),
        Paragraph(
            "Time, energy and cost count the devices during this run alone: no other hardware, no cooling, no "
            f"preparation of data, {'not the runs that it started or learned from, ' if facts.origins else ''}and no "
            "earlier attempts."
        ),
    )


def _energy(effort: Effort) -> list[tuple[str, str, str]]:
    prices = effort.prices
    if effort.kilowatt_hours is not None:
        how = (
            f"estimate: {effort.watts:g} W ({effort.watts_from}) for the measured wall time; the power was not measured"
        )
        rows = [("energy", energy_text(effort.kilowatt_hours), how)]
    else:
        rows = [("energy", "not estimated", "the devices' power is in no table; give it with --watts")]
    if effort.carbon_grams is not None:
        rows.append(
            ("carbon", f"{effort.carbon_grams:.3g} g CO₂", f"estimate: {prices.grams_per_kwh:g} g per kWh, as given")
        )
    if effort.cost is not None and prices.price is not None:
        each = f"{prices.price.amount:g} {prices.price.currency}"
        how = f"estimate: {each} per device and hour, as given, for the wall time"
        rows.append(("cost", effort.cost, how))
    else:
        rows.append(("cost", "not estimated", "no price was given (--price)"))
    return rows
