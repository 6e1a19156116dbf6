"""Cards of tasks: a short TOML file says where a task's data is, how a row becomes a prompt, and what is measured.

    kind = "multiple_choice"
    about = "Which of four endings continues a description of everyday events."
    file = "hellaswag/hellaswag_val_full.txt.bz2"
    reader = "hellaswag"
    prompt = "{context}"
    choices = ["{endings}"]
    answer = "{label}"

`CardSettings` lists every key with its meaning. The project's cards are in configs/tasks; any other card can be given
by its path.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, Literal

import xxhash

import gptjax
from gptjax.config import check_fields, check_values, suggestion
from gptjax.errors import ConfigError
from gptjax.evaluation.tasks import template
from gptjax.evaluation.tasks.kinds import KINDS
from gptjax.evaluation.tasks.readers import READERS
from gptjax.settings import Count, Natural, Section, Seed, UpToOne, allowed_values, freeze_section, thaw

SUFFIX = ".toml"


@dataclasses.dataclass(frozen=True)
class HubSettings(Section):
    dataset: str = ""  # id of the data set on the Hugging Face hub; with it, the score is also written for the hub
    task_id: str = ""  # id of the task in that data set's eval.yaml


@dataclasses.dataclass(frozen=True)
class CardSettings(Section):
    kind: Literal["", "multiple_choice", "schema", "continuation", "generation"] = ""  # what is asked (kinds.py)
    about: str = ""  # one sentence for people: what the task asks
    source: str = ""  # where to get the data, and its licence
    # the data: a path below the folder of --task_data or beside the card; ZIP!NAME is a file in a zip archive; if it
    # has a *, each file that matches is a member of the task
    file: str = ""
    reader: str = "jsonl"  # the format of the data (readers.py)
    columns: tuple[str, ...] = ()  # tsv: names of the columns, from the first
    strip: bool = True  # drop white space around each value of a row
    prompt: str = ""  # template of the prompt
    contexts: tuple[str, ...] = ()  # schema: templates of the prompts to compare; "{options}": each of a list
    delimiter: str = " "  # between a prompt and what follows it
    choices: tuple[str, ...] = ()  # multiple_choice: templates of the choices; "{choices}" alone: each of a list
    continuation: str = ""  # schema, continuation: template of what follows the prompt
    # multiple_choice, schema: template of the right choice: its number from 0, a letter from A, or one of `labels`
    answer: str = ""
    labels: tuple[str, ...] = ()  # what `answer` calls the choices, in their order
    references: tuple[str, ...] = ()  # generation: templates of the right answers; "{answers}" alone: each of a list
    max_new_tokens: Count = 64  # generation: tokens to write, at most
    stop: tuple[str, ...] = ("\n",)  # generation: texts that end an answer
    metrics: tuple[str, ...] = ()  # metrics to report, the most important first; none: the kind's (metrics.py)
    few_shot: Natural = 0  # solved examples before each prompt
    few_shot_file: str = ""  # their file; {member} is what * matched; "": the other items of the item's own file
    few_shot_order: Literal["random", "first"] = "random"  # drawn for each item by `seed`, or the first of their file
    example: str = ""  # template of an example's answer; "": the right choice, continuation or first reference
    separator: str = "\n\n"  # text after each example
    seed: Seed = 0  # decides the few-shot examples, and the items that --limit keeps
    baseline: UpToOne = 0.0  # accuracy of guessing
    group: str = ""  # field of a row that names its member
    average: Literal["items", "members"] = "items"  # with members: the task's score is the mean of these
    contamination: str = ""  # name of the set in the corpus's contamination report; "": the task's name
    hub: HubSettings = HubSettings()


@dataclasses.dataclass(frozen=True)
class Card:
    """A card that has been read and checked.

    Attributes:
      name: the file's name without .toml.
      folder: the folder that it is in.
      hash: a hash of the settings.
    """

    name: str
    folder: Path
    settings: CardSettings
    hash: str

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics to report, the most important first."""
        return self.settings.metrics or KINDS[self.settings.kind].metrics


def shipped() -> dict[str, Path]:
    """Name → file of the cards in configs/tasks."""
    folder = Path(gptjax.__file__).parents[1] / "configs" / "tasks"
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def find(name: str, option: str) -> Path:
    """The file of a card, given by its path or by the name of one of the project's cards.

    Raises:
      ConfigError: there is no such file or task.
    """
    cards = shipped()
    if name in cards:
        return cards[name]
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.suffix == SUFFIX or "/" in name:
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise ConfigError(f"{option}: {name}: must be the card of a task, a TOML file; {what}")
    raise ConfigError(f"{option}: there is no task {name!r}{suggestion(name, cards)}; tasks: {', '.join(cards)}")


def read(path: Path, **changes: Any) -> Card:
    """Reads and checks a card.

    Args:
      changes: settings that replace the card's, such as few_shot=0.

    Raises:
      ConfigError: the file cannot be read, or a key or a value is wrong.
    """
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    config = thaw(CardSettings())
    _fill_in(config, given | changes, path)
    try:
        check_fields(config, thaw(CardSettings()))
        check_values(config, allowed_values(CardSettings))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    settings = freeze_section(CardSettings, config)
    if problem := _problem(settings):
        raise ConfigError(f"{path}: {problem}")
    return Card(path.stem, path.parent, settings, xxhash.xxh3_64_hexdigest(repr(settings).encode()))


def _fill_in(config: Any, given: dict, path: Path, prefix: str = "") -> None:
    """Sets the fields of a config to the values in a card."""
    for key, value in given.items():
        if key not in config:
            raise ConfigError(f"{path}: {prefix}{key}: there is no such key{suggestion(key, config.keys())}")
        if isinstance(value, dict) and hasattr(config[key], "items"):
            _fill_in(config[key], value, path, f"{key}.")
            continue
        is_number = isinstance(config[key], float) and type(value) is int
        value = tuple(value) if isinstance(value, list) else float(value) if is_number else value
        if hasattr(config[key], "items"):
            raise ConfigError(f"{path}: {prefix}{key} = {_shown(value)}: must be a table, [{prefix}{key}]")
        if type(value) is not type(config[key]):
            wanted = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
            what = wanted.get(type(config[key]), "a list of texts")
            raise ConfigError(f"{path}: {prefix}{key} = {_shown(value)}: must be {what}")
        if isinstance(value, tuple) and not all(isinstance(each, str) for each in value):
            raise ConfigError(f"{path}: {prefix}{key} = {_shown(value)}: must be a list of texts")
        config[key] = value


def _shown(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)


def _problem(card: CardSettings) -> str:
    """Why a card cannot work (the first reason found); '' if it can."""
    if not card.kind:
        return f"kind: is missing; it must be one of {', '.join(KINDS)}"
    if not card.file:
        return "file: is missing; it must name the data"
    if card.reader not in READERS:
        return f"reader = {card.reader!r}: must be one of {', '.join(READERS)}{suggestion(card.reader, READERS)}"
    kind = KINDS[card.kind]
    for key in kind.needs:
        if not card[key]:
            return f"{key}: is missing; kind {card.kind!r} needs it"
    for key in ("choices", "contexts", "continuation", "references"):
        if card[key] and key not in kind.needs:
            return f"{key}: kind {card.kind!r} does not use it"
    if wrong := [metric for metric in card.metrics if metric not in kind.allowed]:
        return f"metrics: kind {card.kind!r} has no {wrong[0]!r}{suggestion(wrong[0], kind.allowed)}; it has " + (
            ", ".join(kind.allowed)
        )
    if not (card.metrics or kind.metrics):
        return f"metrics: is missing; choose from {', '.join(kind.allowed)}"
    for key in ("prompt", "continuation", "answer", "example", "choices", "contexts", "references"):
        for each in card[key] if isinstance(card[key], tuple) else (card[key],):
            if wrong_template := template.check(each):
                return f"{key} = {each!r}: {wrong_template}"
    if card.group and not template.is_field(card.group):
        return f"group = {card.group!r}: must be the name of a field, without braces, such as category"
    if card.file.count("*") > 1:
        return f"file = {card.file!r}: may have one *"
    if card.few_shot_file == card.file:
        return (
            "few_shot_file: is the file of the items, and an item must not be its own example; leave it out, then the "
            "examples are other items"
        )
    if card.few_shot_order == "first" and not card.few_shot_file:
        return "few_shot_order = 'first': needs few_shot_file, since an item must not be its own example"
    if bool(card.hub.dataset) != bool(card.hub.task_id):
        return "hub: needs both dataset and task_id"
    return ""
