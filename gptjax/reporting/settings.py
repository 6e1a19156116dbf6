"""The settings of a run in a report, and how the run is made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gptjax.config import default, flatten
from gptjax.corpus.config import default as usual_corpus
from gptjax.corpus.config import plain as plain_value
from gptjax.reporting.document import Block, Code, Facts, Folded, Paragraph, plain
from gptjax.reporting.facts import ORIGINS, RunFacts
from gptjax.reporting.tables import table
from gptjax.settings import Settings

NAMES_FOLDERS = ("data.path", *(f"training.{field}" for field in ORIGINS))


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
