"""How a run went: its starts, the settings that changed between them, and what stands out in its metrics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gptjax.display.formatting import counted
from gptjax.training.records.history import FILE_NAME
from gptjax.training.records.writers import read_metrics

SPIKE = 6.0  # standard deviations above the running mean from which a value is told
MOST_EVENTS = 20


@dataclasses.dataclass(frozen=True)
class Start:
    """One start of a run.

    Attributes:
      step: the step that it went on from.
      time: in ISO 8601, UTC.
      changes: field → (before, now), of the settings that differ from those of the start before.
      hardware: the devices (`training.hardware.described`); None: a run of an older version.
    """

    step: int
    time: str
    version: str | None
    git_revision: str | None
    config_hash: str
    changes: Mapping[str, tuple[Any, Any]]
    hardware: Mapping[str, Any] | None
    companions: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Event:
    """Something worth knowing that happened in training; `what` is a sentence without a full stop."""

    step: int
    what: str


def read_starts(folder: Path) -> tuple[Start, ...]:
    """The starts that history.jsonl records; an empty tuple if it is missing. Damaged lines are left out."""
    path = folder / FILE_NAME
    found = []
    for row in read_metrics(path) if path.exists() else []:
        changes = row.get("changes")
        pairs = changes.items() if isinstance(changes, dict) else ()
        hardware, companions = row.get("hardware"), row.get("companions")
        found.append(
            Start(
                step=row["step"],
                time=str(row.get("time", "")),
                version=_text(row.get("version")),
                git_revision=_text(row.get("git_revision")),
                config_hash=str(row.get("config", "")),
                changes={
                    field: (pair[0], pair[1]) for field, pair in pairs if isinstance(pair, list) and len(pair) == 2
                },
                hardware=_checked(hardware) if isinstance(hardware, dict) else None,
                companions=companions if isinstance(companions, dict) else {},
            )
        )
    return tuple(found)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _checked(hardware: Mapping[str, Any]) -> dict[str, Any]:
    """What `training.hardware.described` records, without values of other types."""
    kinds: dict[str, type | tuple[type, ...]] = {"platform": str, "kind": str, "peak": str, "peak_flops": (int, float)}
    kinds |= dict.fromkeys(("devices", "cores", "processes"), int)
    return {
        name: value
        for name, kind in kinds.items()
        if isinstance(value := hardware.get(name), kind) and (not isinstance(value, int | float) or 0 < value < 1e30)
    }


def events_of(rows: Sequence[Mapping[str, Any]], starts: Sequence[Start]) -> list[Event]:
    """Resumes with their changed settings, spikes, updates that were dropped and values that were not finite, by
    step."""
    found = []
    for number, start in enumerate(starts):
        if number:
            changed = "; ".join(f"{field}: {_shown(a)} → {_shown(b)}" for field, (a, b) in start.changes.items())
            found.append(Event(start.step, "resumed" + (f" with changed settings ({changed})" if changed else "")))
    for row in rows:
        if isinstance(skipped := row.get("train/skipped"), int | float) and skipped > 0:
            found.append(Event(row["step"], f"{counted(int(skipped), 'update')} dropped since the row before"))
        for name in ("loss", "gradient_norm"):
            zscore, value = row.get(f"train/{name}_zscore"), row.get(f"train/{name}")
            words = name.replace("_", " ")
            if isinstance(value, float) and not math.isfinite(value):
                found.append(Event(row["step"], f"the {words} was not finite"))
            elif isinstance(zscore, int | float) and zscore >= SPIKE:
                how = f"{zscore:.1f} standard deviations" if math.isfinite(zscore) else "beyond any measure"
                found.append(Event(row["step"], f"a spike of the {words}, {how} above its running mean"))
    return sorted(found, key=lambda event: event.step)


def _shown(value: Any) -> str:
    return "not set" if value is None else value if isinstance(value, str) and value else repr(value)
