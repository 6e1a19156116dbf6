"""Texts that a model wrote, chosen by a rule that is stated beside them, never by looking at them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptjax.config import ConfigError, default
from gptjax.conversation import Message, Renderer, template_of
from gptjax.conversation.messages import USER
from gptjax.data.mixture import parse_mixture
from gptjax.data.prepared import pairs_name
from gptjax.inference.completion import FINISH_REASONS, Completion
from gptjax.inference.generate import Generator
from gptjax.reporting.document import Block, Note, Paragraph, Sample
from gptjax.reporting.kinds import kind_of
from gptjax.settings import Settings
from gptjax.training.checkpoints.loading import load_for_inference, load_tokenizers

FOLDER = "samples"
TEMPERATURE, TOP_P = 0.8, 0.95  # as in training
MOST_CHARACTERS = 4_000  # of a text that is shown
MOST_OF_TRAINING = 3
QUESTIONS = (
    *("What can you do?", "Name three animals.", "Write one sentence about the sea.", "What is two plus three?"),
    *("Give me one tip for learning a language.", "What is the capital of France?", "Explain rain to a child."),
    *("Write a title for a story about a lost key.",),
)


def sample_blocks(config: Settings, run: Path, texts: Sequence[Sample] | None, rule: str = "") -> tuple[Block, ...]:
    """Generated texts with their rule, or those that training wrote into the run's folder."""
    if not kind_of(config).writes:
        return ()
    if texts is None:
        texts, rule = of_training(run), RULE_OF_TRAINING
    if not texts:
        return (Note("There are no samples: training wrote none (evaluation.sample_every), and none were generated."),)
    return (Paragraph(rule), *(dataclasses.replace(text, text=_cut(text.text)) for text in texts))


RULE_OF_TRAINING = (
    "Training wrote these texts by itself, each from the same prompt and the same seed; shown are the first, the "
    "middle and the last of them, whatever they say."
)


def of_training(run: Path) -> list[Sample]:
    """The first, the middle and the last text of the folder `samples`."""
    found = sorted(path for path in (run / FOLDER).glob("step_*.txt") if re.fullmatch(r"step_\d+\.txt", path.name))
    places = sorted({0, len(found) // 2, len(found) - 1}) if found else []
    texts = []
    for path in [found[place] for place in places][:MOST_OF_TRAINING]:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        texts.append(Sample("", text, f"step {int(path.stem.removeprefix('step_')):,}"))
    return texts


def generated(run: Path, count: int, prompts: Sequence[str] | None, max_new_tokens: int) -> tuple[list[Sample], str]:
    """Samples of the best checkpoint (of the newest one, if none has a score), and the rule by which they were chosen.

    Args:
      count: how many.
      prompts: the first `count` of them are continued with seed 0; None: those of `usual_prompts`.

    Raises:
      ConfigError: the run has no checkpoint, its model does not write, or a prompt does not fit.
    """
    try:
        params, config, metadata = load_for_inference(run, "best")
        which = "best"
    except ConfigError:
        params, config, metadata = load_for_inference(run, "latest")
        which = "newest"
    own, of_sources = load_tokenizers(run, metadata)
    fingerprint = metadata["fingerprint"]
    begin_id = fingerprint.get("begin_id")
    template = fingerprint.get("template")
    renderer = Renderer(template_of(template, "template"), own) if template else None
    generator = Generator(
        params,
        config,
        own,
        source_tokenizer=of_sources,
        begin_id=begin_id,
        end_id=renderer.end_id if renderer else None,
        objective=config.training.objective,
    )
    if prompts is not None:
        given = list(prompts[:count])
        chosen = f"The first {len(given)} prompts of a list that was given, each with seed 0"
    else:
        given, chosen = usual_prompts(config, count, is_chat=renderer is not None)
    same = len(set(given)) == 1 < len(given)
    seeds = list(range(count)) if same else [0] * len(given)
    asked: list[Any] = list(given)
    if renderer:
        asked = [[generator.begin_id, *renderer.prompt([Message(USER, prompt)]).tolist()] for prompt in given]
    completions = generator.generate(
        asked, seeds=seeds, max_new_tokens=max_new_tokens, temperature=TEMPERATURE, top_p=TOP_P
    )
    separator = "\n\n" if renderer else generator.separator
    texts = [
        Sample(prompt + separator, completion.text, f"seed {seed}; {_end(completion)}")
        for prompt, seed, completion in zip(given, seeds, completions)
    ]
    rule = (
        f"{chosen}, by the {which} checkpoint (step {metadata['step']:,}), temperature {TEMPERATURE}, top-p {TOP_P}. "
        "None was left out."
    )
    return texts, rule


def usual_prompts(config: Settings, count: int, is_chat: bool) -> tuple[list[str], str]:
    """Prompts if none are given, and how they were chosen.

    A run on conversations is asked QUESTIONS; one on pairs the first held-out sources of its data; any other continues
    the prompt of its config (evaluation.sample_prompt), with the seeds 0, 1, …
    """
    if config.evaluation.sample_prompt == default().evaluation.sample_prompt:
        if is_chat:
            asked = list(QUESTIONS[:count])
            return asked, f"The first {len(asked)} questions of a fixed list, each with seed 0"
        if sources := held_out_sources(config.data.path, count):
            return sources, f"The sources of the first {len(sources)} held-out pairs of the data, each with seed 0"
    how = f"The prompt of the run's config with the seeds 0 to {count - 1}"
    return [config.evaluation.sample_prompt] * count, how


def held_out_sources(path: str, count: int) -> list[str]:
    """The sources of the first held-out pairs of a prepared folder; an empty list if it has no pairs."""
    try:
        with open(Path(parse_mixture(path)[0][0]) / pairs_name("validation"), encoding="utf-8") as file:
            return [str(json.loads(line)["source"]) for line, _ in zip(file, range(count))]
    except (ConfigError, OSError, ValueError, KeyError, TypeError):
        return []


def _end(completion: Completion) -> str:
    if completion.finish_reason == "max_new_tokens":
        return f"cut after {len(completion.tokens)} tokens"
    return f"ended by {FINISH_REASONS[completion.finish_reason]}"


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + " […]"
