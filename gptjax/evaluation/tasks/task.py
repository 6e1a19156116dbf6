"""A task and its items, read and checked before anything is computed."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from gptjax.errors import ConfigError
from gptjax.evaluation.requests import Generated, Scored
from gptjax.evaluation.tasks.card import Card, CardSettings
from gptjax.evaluation.tasks.kinds import KINDS, Item, Unusable, WrongAnswer
from gptjax.evaluation.tasks.readers import IN_ZIP, members_in, read_rows
from gptjax.evaluation.tasks.template import MissingField, fill

DATA_OPTION = "--task_data=FOLDER"


@dataclass
class Task:
    """A card and its items.

    Attributes:
      items: the items to evaluate, in the order of the files.
      total: the number of items before --limit.
      skipped: reason → number of rows left out.
      examples: member → the few-shot examples to draw from. If these are the items themselves, they are in the same
        order.
      file_hash: a hash of all data files.
    """

    card: Card
    items: list[Item]
    total: int
    skipped: dict[str, int]
    examples: dict[str, list[Item]] = field(repr=False)
    file_hash: str = ""

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def is_generated(self) -> bool:
        return self.card.settings.kind == "generation"

    def requests(self, item: Item) -> Sequence[Scored | Generated]:
        """The requests for an item, with its few-shot examples in the prompt."""
        card = self.card.settings
        before = "".join(f"{example.example}{card.separator}" for example in self.few_shot(item))
        return KINDS[card.kind].requests(card, item, before)

    def few_shot(self, item: Item) -> list[Item]:
        """The examples of an item, which depend only on the card's seed and the item; an item is never its own
        example."""
        card, pool = self.card.settings, self.examples.get(item.member, [])
        if not card.few_shot or card.few_shot_order == "first":
            return pool[: card.few_shot]
        seed = int.from_bytes(_key(card.seed, "examples", item.id)[:8], "big")
        chosen = random.Random(seed).sample(range(len(pool)), _examples_needed(card))
        return [pool[number] for number in chosen if pool[number].id != item.id][: card.few_shot]

    def prompts_hash(self) -> str:
        """A hash of all requests to the model, in order."""
        digest = xxhash.xxh3_64()
        for item in self.items:
            for request in self.requests(item):
                digest.update(repr(request).encode())
        return digest.hexdigest()


def load(card: Card, data: Sequence[Path], limit: int = 0, data_option: str = DATA_OPTION) -> Task:
    """Reads a task's files and makes its items.

    Args:
      data: the folders of --task_data.
      limit: the number of items, chosen by the card's seed; a larger limit includes the items of a smaller one. 0: all.
      data_option: the flag or field that names the folders of data, for messages.

    Raises:
      ConfigError: a file is missing or cannot be read, a row lacks a field or its answer is wrong, or too few rows are
        left.
    """
    settings, skipped = card.settings, Counter[str]()
    digest = xxhash.xxh3_64()
    items: list[Item] = []
    examples: dict[str, list[Item]] = {}
    for member, place in places(card, settings.file, data, data_option).items():
        found = list(_items(card, place, member, skipped, digest))
        items += found
        if settings.few_shot_file and settings.few_shot:
            (here,) = places(card, settings.few_shot_file.replace("{member}", member), data, data_option).values()
            pool = list(_items(card, here, member, Counter(), digest, id_prefix="example "))
            groups = {item.member for item in found}
            examples |= {group: [one for one in pool if one.member == group] or pool for group in groups}
    if not items:
        raise ConfigError(f"{card.name}: no row of {settings.file} is usable ({_reasons(skipped)})")
    if not settings.few_shot_file:
        for item in items:
            examples.setdefault(item.member, []).append(item)
    for member, pool in examples.items():
        if len(pool) < _examples_needed(settings):
            where = f" of {member}" if member else ""
            raise ConfigError(
                f"{card.name}: few_shot = {settings.few_shot}: there are too few rows{where} for it ({len(pool)})"
            )
    total = len(items)
    if 0 < limit < total:
        by_key = sorted(items, key=lambda item: _key(settings.seed, "limit", item.id))
        chosen = {item.id for item in by_key[:limit]}
        items = [item for item in items if item.id in chosen]
    return Task(card, items, total, dict(skipped), examples, digest.hexdigest())


def _examples_needed(card: CardSettings) -> int:
    """The number of rows that a draw of few-shot examples needs: one more if the item itself may be among them."""
    return card.few_shot + (card.few_shot > 0 and not card.few_shot_file)


def _key(seed: int, purpose: str, item_id: str) -> bytes:
    """A random number that depends only on its arguments, not on the machine or the number of items."""
    return hashlib.sha256(f"{seed} {purpose} {item_id}".encode()).digest()


def _reasons(skipped: Counter[str]) -> str:
    return ", ".join(f"{count:,} with {reason}" for reason, count in skipped.items())


def is_at_hand(card: Card, data: Sequence[Path]) -> bool:
    """Whether the task's data exist."""
    return bool(_found(card, card.settings.file, data))


def places(card: Card, file: str, data: Sequence[Path], data_option: str = DATA_OPTION) -> dict[str, str]:
    """Member → the place of its file.

    Raises:
      ConfigError: there is no such file.
    """
    if found := _found(card, file, data):
        return found
    looked = ", ".join(str(folder) for folder in (*data, card.folder))
    how = f"; {card.settings.source}" if card.settings.source else ""
    raise ConfigError(f"{card.name}: there is no {file} in {looked} ({data_option} names the folder of the data){how}")


def _found(card: Card, file: str, data: Sequence[Path]) -> dict[str, str]:
    """The file in the first folder that has it: those of --task_data, the folders in them, or the card's own."""
    on_disk, mark, name = file.partition(IN_ZIP)
    for folder in (*data, *(inner for one in data for inner in _folders_in(one)), card.folder):
        path = folder / Path(on_disk).expanduser()
        if "*" in on_disk or path.is_file():
            if found := members_in(f"{path}{mark}{name}"):
                return found
    return {}


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_dir())


def _items(
    card: Card, place: str, member: str, skipped: Counter[str], digest: xxhash.xxh3_64, id_prefix: str = ""
) -> Iterator[Item]:
    """The items of one file. Also counts the rows that are left out, and adds the file to the hash."""
    settings = card.settings
    rows, file_hash = read_rows(place, settings.reader, settings.columns)
    digest.update(file_hash.encode())
    label = id_prefix + (member or Path(place.rpartition(IN_ZIP)[2]).name)
    for row in rows:
        values = _stripped(row.values) if settings.strip else row.values
        try:
            parts = KINDS[settings.kind].parts(settings, values)
            _check_unicode(parts)
            group = fill(f"{{{settings.group}}}", values) if settings.group else member
        except Unusable as error:
            skipped[str(error)] += 1
        except (MissingField, WrongAnswer) as error:
            raise ConfigError(f"{place}, row {row.number}: {error}") from None
        else:
            yield Item(f"{label}:{row.number}", row.number, group, row.known_as, **parts)


def _check_unicode(parts: dict[str, Any]) -> None:
    """Raises Unusable for unpaired surrogates, which JSON can contain but no tokenizer accepts."""
    try:
        for text in (
            *parts["prompts"],
            *parts.get("continuations", ()),
            *parts.get("references", ()),
            parts["example"],
        ):
            text.encode()
    except UnicodeEncodeError:
        raise Unusable("text that is not Unicode") from None


def _stripped(value: Any) -> Any:
    """JSON without white space around each of its texts."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return [_stripped(each) for each in value]
    return {key: _stripped(each) for key, each in value.items()} if isinstance(value, dict) else value
