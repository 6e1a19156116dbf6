"""The model card of the Hugging Face hub: README.md, whose front matter the hub reads (hub-docs, modelcard.md).

  write_card(folder, run)                                                  of a run's own folder
  write_card(folder, run, library_name="transformers", loading=[Code(…)])  of an export

The front matter holds only what is known: a language that was determined, a licence that the author states, a base
model with a name on the hub, and scores that were measured.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gptjax.config import ConfigError
from gptjax.display.formatting import counted
from gptjax.files import write_aside
from gptjax.reporting.cost_section import cost_blocks
from gptjax.reporting.data_section import data_blocks
from gptjax.reporting.document import Block, Document, Note, Paragraph, Sample, Section, Tiles
from gptjax.reporting.evaluation_section import evaluation_blocks
from gptjax.reporting.facts import ON_HUB, RunFacts, gather
from gptjax.reporting.kinds import FAMILIES, kind_of
from gptjax.reporting.markdown import blocks_text, markdown
from gptjax.reporting.privacy import names_of_machine, without_names
from gptjax.reporting.samples import sample_blocks
from gptjax.reporting.sections import load_blocks, model_blocks
from gptjax.reporting.settings import reproduce_blocks, settings_blocks
from gptjax.reporting.summary import evaluated_tasks, languages_of, lead, limits

FILE = "README.md"
UNKNOWN_LICENSE = "unknown"  # the hub's word for a licence that nobody states
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}")


def write_card(
    folder: Path,
    run: Path,
    *,
    license: str | None = None,
    library_name: str = "gptjax",
    loading: Sequence[Block] = (),
    base_model: str | None = None,
    about: str = "",
    made: str = "",
    step: int | None = None,
) -> Path:
    """Writes the card of a run into a folder, atomically, and returns its path.

    Args:
      license: the hub's identifier of the licence that the author gives the model; None: none is stated.
      library_name: which library loads the folder.
      loading: how it is loaded, shown before the ways of gptjax.
      base_model: the name on the hub of the model that the run started from.
      about: a paragraph of the author's, shown first.
      made: by what and when the card is written.
      step: that of the checkpoint to describe; None: the best one.

    Raises:
      ConfigError: the folder is not a run's, or `license` or `base_model` is not as the hub writes them.
    """
    facts = gather(run, step=step)
    text = card(facts, license, library_name, loading, base_model, about, made=made)
    with write_aside(folder / FILE) as file:
        file.write(text.encode())
    return folder / FILE


def card(
    facts: RunFacts,
    license: str | None = None,
    library_name: str = "gptjax",
    loading: Sequence[Block] = (),
    base_model: str | None = None,
    about: str = "",
    samples: Sequence[Sample] | None = None,
    rule: str = "",
    made: str = "",
    words: Sequence[str] = (),
) -> str:
    """The text of the card. words: further words that must not appear, such as hosts."""
    check_names(license, base_model)
    top: list[Block] = []
    tiles: list[Block] = []
    for block in lead(facts):
        (tiles if isinstance(block, Tiles) else top).append(block)
    said = Paragraph(f"Licence of the model: {license}.") if license else Note("The author has not stated a licence.")
    document = Document(
        "Model card",
        facts.name,
        "",
        (*([Paragraph(about)] if about else []), *top, *tiles, said),
        (
            Section("load", "How to load it", (*loading, *load_blocks(facts))),
            Section("limits", "Intended use and limits", limits(facts)),
            Section("quality", "Evaluation", evaluation_blocks(facts)),
            Section("samples", "Samples", sample_blocks(facts.config, facts.run.folder, samples, rule)),
            Section("model", "Model and tokenizer", model_blocks(facts)),
            Section("data", "Training data", data_blocks(facts)),
            Section("settings", "Training settings", settings_blocks(facts)),
            Section("cost", "Hardware, time, energy and cost", cost_blocks(facts)),
            Section("reproduce", "How to reproduce it", reproduce_blocks(facts)),
        ),
        made,
    )
    names = names_of_machine([facts.run.folder], words)
    document = without_names(document, names)
    head = without_names(front_matter(facts, license, library_name, base_model), names)
    parts = [f"---\n{head}---", f"# {blocks_text([Paragraph(document.title)])}", blocks_text(document.lead)]
    parts += [markdown(document.sections), blocks_text([Paragraph(document.made)] if document.made else [])]
    return "\n\n".join(filter(None, parts)) + "\n"


def check_names(license: str | None, base_model: str | None) -> None:
    """Raises ConfigError unless both are as the hub writes them."""
    if license is not None and not _LICENSE.fullmatch(license):
        raise ConfigError(
            f"--license={license!r}: must be an identifier of the Hugging Face hub in lower case, such as apache-2.0, "
            "mit, cc-by-4.0 or other"
        )
    if base_model is not None and not ON_HUB.fullmatch(base_model):
        raise ConfigError(f"--base_model={base_model!r}: must be the name of a model on the hub: OWNER/NAME")


def front_matter(
    facts: RunFacts, license: str | None = None, library_name: str = "gptjax", base_model: str | None = None
) -> str:
    """The fields that the hub reads, as YAML."""
    kind = kind_of(facts.config)
    languages = [name for name in languages_of(facts) if _LANGUAGE.fullmatch(name)]
    family = facts.config.model.family
    tags = ["gptjax", "jax", family.replace("_", "-") if family in FAMILIES else "", facts.config.training.objective]
    if facts.config.training.objective == "instruction":
        tags.append("conversational")
    if facts.config.model.lora_rank:
        tags.append("lora")
    fields: dict[str, Any] = {
        "license": license or UNKNOWN_LICENSE,
        "language": languages,
        "library_name": library_name,
        "pipeline_tag": kind.pipeline_tag if kind.pipeline_tag != "other" else None,
        "tags": [tag for tag in dict.fromkeys(tags) if tag and ":" not in tag],
        "datasets": _datasets(facts),
        "base_model": base_model or facts.base_model,
        "model-index": _model_index(facts),
    }
    return yaml({name: value for name, value in fields.items() if value})


def _datasets(facts: RunFacts) -> list[str]:
    """Names on the hub of the sources that were read from there."""
    found = []
    for corpus in facts.corpora:
        for source in (corpus.manifest or {}).get("sources", []):
            path = str(source.get("path", ""))
            if match := re.match(r"hf://datasets/([\w.-]+/[\w.-]+)", path):
                found.append(match[1])
    return list(dict.fromkeys(found))


def _model_index(facts: RunFacts) -> list[dict[str, Any]]:
    """Every finite score of every evaluated task, and of the validation data, in the hub's form."""
    kind = kind_of(facts.config)
    task = {"type": kind.pipeline_tag if kind.pipeline_tag != "other" else "text-generation"}
    results = []
    for section, name, result in evaluated_tasks(facts):
        metrics = [
            {"type": metric, "name": section.how(metric).words, "value": section.how(metric).scale * score["value"]}
            for metric in section.metrics(result)
            if (score := result["scores"].get(metric)) and _finite(score["value"])
        ]
        if metrics:
            items = f"{result['items']:,} of {counted(result.get('of', result['items']), 'item')}"
            whole = result["items"] == result.get("of", result["items"])  # a part is not a result of the benchmark
            of_hub = result.get("hub", {}).get("dataset", name) if whole else name
            dataset = {"type": of_hub, "name": f"{section.title(name)} ({items})"}
            results.append({"task": task, "dataset": dataset, "metrics": metrics})
    best = facts.run.best(facts.judged_by)
    if best is not None:
        metric = {"type": facts.judged_by.title, "name": facts.judged_by.words, "value": best}
        dataset = {"type": "held-out", "name": "held-out part of the training data"}
        results.append({"task": task, "dataset": dataset, "metrics": [metric]})
    return [{"name": facts.name, "results": results}] if results else []


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def yaml(value: Mapping[str, Any], indent: int = 0) -> str:
    """Nested dicts and lists of texts and numbers as YAML. Texts are quoted as in JSON, which YAML reads the same."""
    lines = []
    for name, each in value.items():
        lines += _yaml_lines(f"{name}:", each, indent)
    return "".join(f"{line}\n" for line in lines)


def _yaml_lines(head: str, value: Any, indent: int) -> list[str]:
    space = "  " * indent
    if isinstance(value, Mapping):
        return [f"{space}{head}", *yaml(value, indent + 1).split("\n")[:-1]]
    if isinstance(value, list):
        lines = [f"{space}{head}"]
        for item in value:
            if isinstance(item, Mapping):
                first, *rest = yaml(item, indent + 1).split("\n")[:-1]
                lines += [f"{space}- {first.strip()}", *rest]
            else:
                lines.append(f"{space}- {_scalar(item)}")
        return lines
    return [f"{space}{head} {_scalar(value)}"]


def _scalar(value: Any) -> str:
    """As JSON, but with escapes for the characters that YAML reads as ends of lines or refuses."""
    text = re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", json.dumps(value, ensure_ascii=False))
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda found: f"\\u{ord(found[0]):04x}", text)
