"""The top of a report: what the model is, how good it is, what it cost, and what it must not be used for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gptjax.display.formatting import count_text, counted, duration_text
from gptjax.evaluation.compare import SECTIONS
from gptjax.evaluation.results import score_text
from gptjax.evaluation.scores import BITS_PER_BYTE
from gptjax.reporting.corpus import source_name
from gptjax.reporting.document import Block, Bullets, Note, Paragraph, Tiles, plain
from gptjax.reporting.effort import Effort
from gptjax.reporting.facts import ORIGINS, RunFacts
from gptjax.reporting.kinds import family_words, kind_of

SMALL = 1_000_000_000  # parameters below which a model is called small in the limits
MOST_TILES = 8


def lead(facts: RunFacts) -> tuple[Block, ...]:
    """Answers what it is, how good it is, what it cost, and what it must not be used for."""
    blocks: list[Block] = [Paragraph(" ".join(sentences(facts))), Tiles(tiles(facts))]
    blocks.append(Note(must_not(facts)))
    blocks += [Note(sentence) for sentence in facts.missing]
    return tuple(blocks)


def sentences(facts: RunFacts) -> list[str]:
    """What the model is and how it was made, in two or three sentences."""
    kind, size = kind_of(facts.config), facts.size
    with_size = f" with {count_text(size.parameters.total)} parameters" if size else ""
    found = [f"`{plain(facts.name)}` is a {family_words(facts.config)}{with_size} that {kind.does}."]
    if facts.checkpoint and facts.checkpoint.imported and not facts.rows:
        return [*found, f"Its parameters were imported ({plain(facts.checkpoint.imported)}); it was not trained here."]
    tokens = facts.run.last("tokens")
    amount = f" in {count_text(tokens)} tokens of training" if isinstance(tokens, int | float) else ""
    data = ", ".join(f"`{plain(corpus.name)}`" for corpus in facts.corpora)
    found.append(f"It {kind.learned}{amount}" + (f" on the prepared data {data}." if data else "."))
    if rank := facts.config.model.lora_rank:
        found.append(f"Adapters of rank {rank} (LoRA) learned; the other parameters stayed as they were.")
    for field, name in facts.origins.items():
        found.append(f"{ORIGINS[field].capitalize()} is `{plain(name)}`.")
    if facts.is_running:
        found.append("The run is still training; this report shows it as it was when the report was written.")
    elif facts.run.total_steps and facts.rows and facts.run.step < facts.run.total_steps:
        found.append(f"The run stopped at step {facts.run.step:,} of {facts.run.total_steps:,}.")
    return found


def tiles(facts: RunFacts) -> tuple[tuple[str, str, str], ...]:
    """The figures that a reader looks for first; those that are unknown are left out."""
    found: list[tuple[str, str, str]] = []
    if facts.size:
        active = facts.size.parameters.active
        remark = f"{count_text(active)} used per token" if active != facts.size.parameters.total else ""
        found.append(("parameters", count_text(facts.size.parameters.total), remark))
    if isinstance(tokens := facts.run.last("tokens"), int | float):
        found.append(("tokens trained on", count_text(tokens), counted(facts.run.step, "step")))
    cost = _of_effort(facts.effort)
    quality = [*_scores(facts), *_of_labels(facts), *_of_tasks(facts)]
    found += quality[: max(MOST_TILES - len(found) - len(cost), 1)]
    return tuple([*found, *cost][:MOST_TILES])


def _scores(facts: RunFacts) -> list[tuple[str, str, str]]:
    score = facts.judged_by
    best, of_checkpoint = facts.run.best(score), facts.checkpoint.step if facts.checkpoint else None
    own = [row[score.name] for row in facts.rows if row["step"] == of_checkpoint and row.get(score.name) is not None]
    if best is None:
        return []
    if own and math.isfinite(own[-1]):  # the described checkpoint may not be the best
        best = own[-1]
    step = next((row["step"] for row in facts.rows[::-1] if row.get(score.name) == best), None)
    remark = f"at step {step:,}" if step is not None else "best"
    name = score.words.partition(" (")[0]
    unit = score.words.partition(" (")[2].removesuffix(")")
    found = [(name, f"{best:.4f}", f"{unit}; {remark}" if unit else remark)]
    of_step = next((row.get(BITS_PER_BYTE.name) for row in facts.rows if row["step"] == step), None)
    if isinstance(of_step, float) and math.isfinite(of_step):
        found.append((BITS_PER_BYTE.title, f"{of_step:.4f}", "on held-out text, same step"))
    return found


def _of_labels(facts: RunFacts) -> list[tuple[str, str, str]]:
    """The accuracy of a classifier that `gptjax classify` scored."""
    if facts.confusion is None:
        return []
    accuracy, (low, high) = facts.confusion["accuracy"], facts.confusion["accuracy_95"]
    texts = counted(int(facts.confusion["texts"]), "text")
    remark = f"of {texts}, split {plain(facts.confusion['split'])}; 95 %: {low:.3f} to {high:.3f}"
    return [("accuracy", f"{accuracy:.4f}", remark)]


def _of_tasks(facts: RunFacts) -> list[tuple[str, str, str]]:
    """The first score of each evaluated task."""
    found = []
    for section, task, result in evaluated_tasks(facts):
        metric = section.metrics(result)[0]
        how = section.how(metric)
        value, _, error = score_text(result["scores"].get(metric), how).partition(" ± ")
        guessing = section.guessing(result)
        remarks = [how.words, f"±\u00a0{error}" if error else ""]
        if guessing is not None:
            remarks.append(f"guessing\u00a0{how.scale * guessing:g}" + (f"\u00a0{how.unit}" if how.unit else ""))
        found.append((plain(section.title(task)), value, ", ".join(filter(None, remarks))))
    return found


def evaluated_tasks(facts: RunFacts) -> list[tuple[Any, str, Mapping[str, Any]]]:
    """(section, task, result) of every task with scores."""
    return (
        []
        if facts.evaluated is None
        else [
            (section, task, result)
            for section in SECTIONS
            for task, result in section.tasks(facts.evaluated).items()
            if result.get("scores")
        ]
    )


def _of_effort(effort: Effort) -> list[tuple[str, str, str]]:
    found = []
    if effort.seconds is not None:
        on = devices_text(effort)
        found.append(("time", duration_text(effort.seconds), f"measured{f', on {on}' if on else ''}"))
    if effort.kilowatt_hours is not None:
        found.append(("energy", energy_text(effort.kilowatt_hours), "estimate of the devices alone"))
    if effort.cost is not None:
        found.append(("cost", effort.cost, "estimate, from the given price"))
    if len(found) < 2 and effort.flops is not None:
        found.append(("training FLOPs", flops_text(effort.flops, digits=1), "counted by formula"))
    return found


def devices_text(effort: Effort) -> str:
    """'8 × NVIDIA H100 80GB HBM3', '2 cores of AMD EPYC'; '' if unknown."""
    hardware = effort.hardware
    if not hardware:
        return ""
    kind = plain(hardware.get("kind") or "devices of an unknown kind")
    if hardware.get("platform") == "cpu":
        machines, number = hardware.get("processes") or 1, hardware.get("cores")
        cores = f"{counted(number, 'core')} of {kind}" if isinstance(number, int) else kind
        return f"{machines} processes, each with {cores}" if machines != 1 else cores
    return f"{hardware.get('devices')} × {kind}"


def flops_text(number: float | None, digits: int = 2) -> str:
    """11000000000000 → '1.10 × 10¹³'. digits: after the decimal point."""
    if number is None or not number > 0 or not math.isfinite(number):
        return "–"
    power = math.floor(math.log10(number))
    raised = str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{number / 10**power:.{digits}f}\u00a0×\u00a010{raised}"


def energy_text(kilowatt_hours: float) -> str:
    return f"{1e3 * kilowatt_hours:.3g} Wh" if kilowatt_hours < 1 else f"{kilowatt_hours:.3g} kWh"


def must_not(facts: RunFacts) -> str:
    """One sentence on what the model must not be used for."""
    what = "labels" if facts.config.training.objective == "classification" else "text"
    return (
        f"Not for decisions about people, for medical, legal or financial advice, or for publishing its {what} as "
        "facts: its output may be wrong, biased or offensive, and nothing was done to make it safe."
    )


def limits(facts: RunFacts) -> tuple[Block, ...]:
    """What the model cannot do, as far as it follows from how it was made."""
    model, data = facts.config.model, facts.config.data
    found = []
    if facts.size and facts.size.parameters.total < SMALL and kind_of(facts.config).writes:
        found.append(
            f"Size: with {count_text(facts.size.parameters.total)} parameters it knows few facts, and what it says of "
            "the world is often wrong."
        )
    if isinstance(tokens := facts.run.last("tokens"), int | float) and not facts.origins.get("init_from"):
        per = f", {tokens / facts.size.parameters.total:.2g} per parameter" if facts.size else ""
        found.append(f"Training: it has seen {count_text(tokens)} tokens{per}.")
    found += _repetition(facts)
    found.append(f"Data: it can only be as good as its training texts ({_data_text(facts)}), whose errors it repeats.")
    positions = model.max_positions or data.sequence_length
    found.append(
        f"Context: it was trained on {data.sequence_length:,} tokens at a time, and reads at most {positions:,}."
    )
    found.append(_languages(facts))
    if facts.tokenizer and not facts.tokenizer.lossless:
        found.append("Tokenizer: decoding its tokens does not restore every text.")
    if kind_of(facts.config).writes:
        found.append(
            "Safety: nothing was done to prevent harmful, biased or private text, and nobody checked its samples."
        )
    if facts.results is None and facts.confusion is None:
        found.append("Evaluation: beyond its validation data it has not been evaluated on any task.")
    return (Paragraph(kind_of(facts.config).use), Bullets(tuple(found)))


def _repetition(facts: RunFacts) -> list[str]:
    tokens = facts.run.last("tokens")
    sizes = [corpus.recorded.get("tokens") for corpus in facts.corpora if corpus.recorded]
    known = [size for size in sizes if isinstance(size, int) and size > 0]
    if not isinstance(tokens, int | float) or len(known) != len(facts.corpora) or not known:
        return []
    epochs = tokens / sum(known)
    return (
        [f"Repetition: its {count_text(sum(known))} training tokens were read {epochs:.2g} times."]
        if epochs > 1
        else []
    )


def _data_text(facts: RunFacts) -> str:
    names = [source_name(source) for corpus in facts.corpora for source in (corpus.manifest or {}).get("sources", [])]
    if names:
        return ", ".join(dict.fromkeys(names))
    return ", ".join(plain(corpus.name) for corpus in facts.corpora) or "not known here"


def _languages(facts: RunFacts) -> str:
    found = languages_of(facts)
    if not found:
        return "Languages: those of its data were not determined, and it knows no others."
    return f"Languages: its data is {', '.join(found)}; it knows no others."


def languages_of(facts: RunFacts, least: float = 0.01) -> dict[str, float]:
    """Language → its share of the bytes of the data, largest first, of those with at least the share `least`."""
    total: dict[str, float] = {}
    for corpus in facts.corpora:
        for source in (corpus.manifest or {}).get("sources", []):
            for language, counts in source.get("languages", {}).items():
                total[language] = total.get(language, 0) + counts[1]
            if source.get("language") and not source.get("languages"):
                total[source["language"]] = total.get(source["language"], 0) + 1
    everything = sum(total.values())
    shares = {language: size / everything for language, size in total.items() if language and everything}
    return {plain(name): share for name, share in sorted(shares.items(), key=lambda one: -one[1]) if share >= least}
