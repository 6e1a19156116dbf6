"""The history of a run: each start that trains adds a line to history.jsonl, which never changes afterwards.

`config.json` has the current settings; history.jsonl has the step of each change and the previous value.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from gptjax.config import hash_of, to_json
from gptjax.display.differences import differences
from gptjax.files import append_line, write_aside
from gptjax.settings import Settings
from gptjax.training.checkpoints.run_metadata import git_revision, own_code, version
from gptjax.training.records.writers import read_metrics

FILE_NAME = "history.jsonl"
CONFIG = "config.json"
CODE = "own_code"


def record_start(workdir: Path, config: Settings, step: int, **facts: Any) -> None:
    """Records a start from `step` with every setting that differs from config.json, then rewrites config.json.

    facts: further JSON values of the row, such as the identity of the data and the devices.
    """
    earlier = _settings(workdir / CONFIG)
    changes = {} if earlier is None else differences(earlier, json.loads(to_json(config)))
    row = {
        "step": step,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "version": version("gptjax"),
        "git_revision": git_revision(),
        "config": hash_of(config),
        CODE: own_code(config),
        **facts,
        "changes": {field: list(values) for field, values in changes.items()},
    }
    append_line(workdir / FILE_NAME, json.dumps(row, ensure_ascii=False))
    with write_aside(workdir / CONFIG) as file:
        file.write(to_json(config).encode())


def code_over_time(workdir: Path) -> dict[str, str]:
    """'module:function' → hash of its file ('a → b' where it changed), for the user's functions that a run has used."""
    path = workdir / FILE_NAME
    found: dict[str, list[str]] = {}
    for row in read_metrics(path) if path.exists() else []:
        for name, code in row.get(CODE, {}).items():
            hashes = found.setdefault(name, [])
            if code not in hashes[-1:]:
                hashes.append(code)
    return {name: " → ".join(hashes) for name, hashes in found.items()}


def _settings(path: Path) -> dict | None:
    """The contents of a config.json; None if it cannot be read."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return saved if isinstance(saved, dict) else None
