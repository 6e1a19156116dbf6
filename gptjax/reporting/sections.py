"""The facts of one run as a document."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from gptjax.config import ConfigError
from gptjax.display.formatting import count_text, counted
from gptjax.reporting.cost_section import cost_blocks
from gptjax.reporting.data_section import data_blocks
from gptjax.reporting.document import Block, Bullets, Code, Document, Facts, Paragraph, Sample, Section, plain
from gptjax.reporting.evaluation_section import evaluation_blocks
from gptjax.reporting.facts import ORIGINS, RunFacts
from gptjax.reporting.history import MOST_EVENTS, events_of
from gptjax.reporting.kinds import family_words, kind_of
from gptjax.reporting.samples import sample_blocks
from gptjax.reporting.settings import reproduce_blocks, settings_blocks
from gptjax.reporting.summary import lead, limits
from gptjax.reporting.tables import shown, table
from gptjax.reporting.training_section import training_blocks
from gptjax.runs.comparison import read_runs
from gptjax.runs.comparison import table as comparison_table


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
        Section("cost", "Hardware, time, energy and cost", cost_blocks(facts)),
        Section("data", "Training data", data_blocks(facts)),
        Section("limits", "Intended use and limits", limits(facts)),
        Section("load", "How to load it", (*loading, *load_blocks(facts))),
        Section("settings", "Settings", settings_blocks(facts)),
        Section("reproduce", "How to reproduce it", reproduce_blocks(facts)),
        Section("history", "History of the run", history_blocks(facts)),
    )
    top = (Paragraph(plain(about)),) if about else ()
    return Document("Model report", plain(facts.name), subtitle(facts), (*top, *lead(facts)), sections, made)


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
    return (Facts(tuple((plain(name), plain(value), plain(remark)) for name, value, remark in rows)), *_origins(facts))


def _origins(facts: RunFacts) -> list[Block]:
    """What the runs that this run started from or learned from record of themselves, if they are still here."""
    blocks: list[Block] = []
    for field, name in facts.origins.items():
        try:
            origin = read_runs([Path(facts.config.training[field])])
            blocks.append(
                dataclasses.replace(shown(comparison_table(origin)), caption=f"{ORIGINS[field]}: {plain(name)}")
            )
        except (ConfigError, OSError):
            blocks.append(Paragraph(f"The folder of {plain(name)}, {ORIGINS[field]}, cannot be read here any more."))
    return blocks


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
        "from gptjax.runs.trained_model import load_trained_model\n\n"
        f'model = load_trained_model("{name}", {python_which})  # model.params, model.config, model.tokenizer'
    )
    if kind.writes and facts.config.training.objective != "instruction":  # whose prompts need the chat template
        python += '\nprint(model.generator().generate(["…"], max_new_tokens=100)[0].text)'
    return (Paragraph("With gptjax, where `RUN` is the run's folder:"), Code("\n".join(lines)), Code(python))


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
