"""The facts of one run as a document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptjax.config import default, flatten
from gptjax.formatting import bytes_text, count_text, counted, duration_text
from gptjax.reporting.data_section import data_blocks
from gptjax.reporting.document import Block, Bullets, Code, Document, Facts, Folded, Paragraph, Sample, Section, plain
from gptjax.reporting.effort import Effort
from gptjax.reporting.evaluation_section import evaluation_blocks
from gptjax.reporting.facts import ORIGINS, RunFacts
from gptjax.reporting.history import MOST_EVENTS, events_of
from gptjax.reporting.kinds import family_words, kind_of
from gptjax.reporting.samples import sample_blocks
from gptjax.reporting.summary import devices_text, energy_text, lead, limits
from gptjax.reporting.tables import table
from gptjax.reporting.training_section import training_blocks
from gptjax.settings import Settings

NAMES_FOLDERS = ("data.path", *(f"training.{field}" for field in ORIGINS))


def report_of(
    facts: RunFacts,
    made: str,
    about: str = "",
    samples: Sequence[Sample] | None = None,
    rule: str = "",
    loading: Sequence[Block] = (),
) -> Document:
    """The report on one run.

    Args:
      made: by what and when it is written.
      about: a paragraph of the author's, shown first.
      samples: texts that were generated for it, and the rule by which they were chosen; None: those of training.
      loading: how exported forms of the model are loaded.
    """
    sections = (
        Section("quality", "How good it is", evaluation_blocks(facts)),
        Section("training", "Course of training", training_blocks(facts)),
        Section("samples", "Samples", sample_blocks(facts.config, facts.run.folder, samples, rule)),
        Section("model", "Model and tokenizer", model_blocks(facts)),
        Section("cost", "Hardware, time, energy and cost", cost_blocks(facts.effort)),
        Section("data", "Training data", data_blocks(facts)),
        Section("limits", "Intended use and limits", limits(facts)),
        Section("load", "How to load it", (*loading, *load_blocks(facts))),
        Section("settings", "Settings", settings_blocks(facts)),
        Section("reproduce", "How to reproduce it", reproduce_blocks(facts)),
        Section("history", "History of the run", history_blocks(facts)),
    )
    top = (Paragraph(plain(about)),) if about else ()
    return Document(plain(facts.name), subtitle(facts), (*top, *lead(facts)), sections, made)


def subtitle(facts: RunFacts) -> str:
    parts = [family_words(facts.config)]
    if facts.size:
        parts.append(f"{count_text(facts.size.parameters.total)} parameters")
    if facts.checkpoint:
        parts.append(f"step {facts.checkpoint.step:,}{', the best checkpoint' if facts.checkpoint.is_best else ''}")
    if facts.starts and facts.starts[-1].time:
        parts.append(f"trained {facts.starts[0].time[:10]}")
    return " · ".join(parts)


def model_blocks(facts: RunFacts) -> tuple[Block, ...]:
    model, data, size = facts.config.model, facts.config.data, facts.size
    rows = [
        ("architecture", family_words(facts.config), ""),
        ("objective", facts.config.training.objective, kind_of(facts.config).learned),
        (
            "layers, width, heads",
            f"{model.num_layers} · {model.width} · {model.num_heads}",
            f"keys and values have {counted(model.num_kv_heads, 'head')}" if model.num_kv_heads else "",
        ),
        ("feed-forward, norm, positions", f"{model.feedforward} · {model.norm} · {model.position}", ""),
        (
            "context",
            f"{model.max_positions or data.sequence_length:,} tokens",
            f"trained on rows of {data.sequence_length:,}",
        ),
        ("computed in", model.dtype, "parameters are float32"),
    ]
    if size:
        used = f"{size.parameters.active:,} used per token" if size.parameters.active != size.parameters.total else ""
        rows.insert(2, ("parameters", f"{size.parameters.total:,}", used))
    if model.lora_rank:
        rows.append(("adapters", f"LoRA of rank {model.lora_rank}", "the rest of the model is frozen"))
    rows += [(ORIGINS[field], name, f"training.{field}") for field, name in facts.origins.items()]
    if facts.starts:
        for name, identity in facts.starts[-1].companions.items():
            rows.append((f"{name} as read", json.dumps(identity, sort_keys=True), "step and hash of its parameters"))
    if facts.tokenizer:
        own = facts.tokenizer
        restores = "decoding restores every text" if own.lossless else "decoding does not restore every text"
        rows.append(("tokenizer", f"{own.kind}, {own.vocab_size:,} tokens", restores))
        rows.append(("control tokens", " ".join(own.controls), ""))
        rows.append(("tokenizer's hash", own.hash, ""))
    return (Facts(tuple((plain(name), plain(value), plain(remark)) for name, value, remark in rows)),)


def cost_blocks(effort: Effort) -> tuple[Block, ...]:
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
                f"{effort.flops:.3g}",
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
            "Energy and cost count the devices during this run alone: no other hardware, no cooling, no preparation of "
            "data, and no earlier attempts."
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


def load_blocks(facts: RunFacts) -> tuple[Block, ...]:
    if facts.checkpoint is None:
        return (Paragraph("There is no checkpoint to load yet."),)
    which = "--checkpoint=best" if facts.checkpoint.is_best else f"--checkpoint={facts.checkpoint.step}"
    kind, name = kind_of(facts.config), "RUN"
    lines = []
    if facts.config.training.objective == "classification":
        lines.append(f"gptjax classify --workdir={name} {which} --text='…'")
    elif facts.config.training.objective == "instruction":
        lines.append(f"gptjax chat --workdir={name} {which}")
    elif kind.writes:
        lines.append(f"gptjax sample --workdir={name} {which} --prompt='…'")
    if kind.writes:
        lines.append(f"gptjax evaluate --workdir={name} {which} --text=FILE")
    python_which = '"best"' if facts.checkpoint.is_best else '"latest"'
    python = (
        "from gptjax import tokenizer\nfrom gptjax.training.checkpoint import load_for_inference\n\n"
        f'params, config, metadata = load_for_inference("{name}", {python_which})\n'
        f'tokens = tokenizer.load("{name}")'
    )
    return (Paragraph("With gptjax, where `RUN` is the run's folder:"), Code("\n".join(lines)), Code(python))


def settings_blocks(facts: RunFacts) -> tuple[Block, ...]:
    whole, usual = shown_settings(facts.config), shown_settings(default())
    differing = [[field, value, usual.get(field, "")] for field, value in whole.items() if value != usual.get(field)]
    rest = [[field, value] for field, value in whole.items()]
    return (
        table(("setting", "value", "default"), differing, "Settings that differ from the default"),
        Folded(f"All {len(rest)} settings", (table(("setting", "value"), rest),)),
    )


def shown_settings(config: Any) -> dict[str, str]:
    """Field → its value as text. Of folders, only the names are shown."""
    found = {}
    for field, value in flatten(config).items():
        shown = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
        found[field] = folder_names(shown) if field in NAMES_FOLDERS and value else plain(shown)
    return found


def folder_names(path: str) -> str:
    """'/data/web=0.7,/data/code=0.3' → 'web=0.7,code=0.3'."""
    return ",".join(plain(Path(part.strip()).name) for part in path.split(","))


def reproduce_blocks(facts: RunFacts) -> tuple[Block, ...]:
    code = (
        facts.checkpoint.git_revision if facts.checkpoint else next((s.git_revision for s in facts.starts[::-1]), None)
    )
    versions = (facts.checkpoint.versions if facts.checkpoint else {}) or {}
    rows = [
        ("hash of the config", facts.config_hash, "of all settings that affect the results"),
        (
            "revision of the code",
            code or "not recorded",
            "-dirty: with changes that were not committed" if code else "",
        ),
        (
            "versions",
            ", ".join(f"{name} {number}" for name, number in versions.items() if number) or "not recorded",
            "",
        ),
        ("seed", str(facts.config.seed), "batches depend on it and on the step alone"),
    ]
    rows += [
        (f"data: {corpus.name}", (corpus.manifest or {}).get("hash", "not known"), "hash of its manifest")
        for corpus in facts.corpora
    ]
    data = folder_names(facts.config.data.path) or "DATA"
    blocks: list[Block] = [
        Facts(tuple((plain(name), plain(value), plain(remark)) for name, value, remark in rows)),
        Paragraph("This config, saved as `report_config.py`, trains the same model on the same prepared data:"),
        Code(config_source(facts.config)),
        Code(f"gptjax train --config=report_config.py --config.data.path={data} --workdir=runs/again"),
    ]
    if facts.origins:
        named = ", ".join(f"`training.{field}` ({plain(name)})" for field, name in facts.origins.items())
        blocks.append(Paragraph(f"It also needs the folders of other runs: {named}."))
    return (*blocks, *_preparation(facts))


def config_source(config: Settings) -> str:
    """Python source of a config file with the settings of the run. Folders are left to flags or to be filled in."""
    usual = flatten(default())
    lines = ["from gptjax.config import default", "", "", "def get_config():", "    config = default()"]
    for field, value in flatten(config).items():
        if value != usual[field]:
            shown = repr(folder_names(value)) if field in NAMES_FOLDERS else repr(value)
            lines.append(f"    config.{field} = {shown}")
    return "\n".join([*lines, "    return config"])


def _preparation(facts: RunFacts) -> list[Block]:
    """How the prepared folders were made: the options that differ from the default."""
    from gptjax.corpus.config import default as usual_corpus
    from gptjax.corpus.config import plain as plain_value

    usual = {name: plain_value(of) for name, of in flatten(usual_corpus()).items()}
    blocks: list[Block] = []
    for corpus in facts.corpora:
        options = (corpus.manifest or {}).get("options", {})
        rows = [
            [name, json.dumps(value, ensure_ascii=False)]
            for name, value in sorted(options.items())
            if name != "sources" and (name not in usual or value != usual[name])
        ]
        if rows:
            made = table(("option of gptjax prepare", "value"), rows, f"How {corpus.name} was prepared")
            blocks.append(Folded(f"How the data {plain(corpus.name)} was prepared", (made,)))
    return blocks


def history_blocks(facts: RunFacts) -> tuple[Block, ...]:
    starts = [
        [
            number,
            start.time.replace("T", " ")[:16],
            start.step,
            (start.git_revision or "not recorded")[:12],
            start.config_hash,
        ]
        for number, start in enumerate(facts.starts, 1)
    ]
    blocks: list[Block] = []
    if starts:
        blocks.append(table(("start", "time (UTC)", "from step", "revision", "config"), starts, "Starts"))
    else:
        blocks.append(Paragraph("The run has no record of its starts."))
    events = events_of(facts.rows, facts.starts)
    if events:
        blocks.append(Bullets(tuple(plain(f"Step {event.step:,}: {event.what}.") for event in events[:MOST_EVENTS])))
        if len(events) > MOST_EVENTS:
            blocks.append(Paragraph(f"And {counted(len(events) - MOST_EVENTS, 'more event')} in metrics.jsonl."))
    else:
        blocks.append(Paragraph("No resumes, no spikes of loss or gradient norm, and no updates that were dropped."))
    return tuple(blocks)
