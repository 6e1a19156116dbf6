"""The licence that a project's manifest states: package.json, composer.json, Cargo.toml, pyproject.toml, setup.cfg."""

from __future__ import annotations

import configparser
import json
import tomllib
from collections.abc import Iterable
from typing import Any

from gptjax.corpus.formats import license_names, licenses

NAMES = ("package.json", "composer.json", "Cargo.toml", "pyproject.toml", "setup.cfg")


def of_manifest(name: str, text: str) -> str:
    """The SPDX expression of a manifest; UNKNOWN_TERMS for a statement that is not understood, '' if there is none."""
    try:
        if name.endswith(".json"):
            return _of_json(json.loads(text))
        if name.endswith(".toml"):
            return _of_toml(tomllib.loads(text))
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(text)
        metadata = parser["metadata"] if parser.has_section("metadata") else {}
        return _stated(metadata.get("license", ""), metadata.get("classifiers", "").splitlines())
    except (ValueError, RecursionError, configparser.Error):  # not a manifest after all
        return ""


def _of_json(manifest: Any) -> str:
    if not isinstance(manifest, dict):
        return ""
    stated = manifest.get("license") or manifest.get("licenses")  # the second is npm's old form
    choices = stated if isinstance(stated, list) else [stated]
    names = [_stated(one.get("type", "") if isinstance(one, dict) else one) for one in choices]
    return " OR ".join(sorted({f"({name})" if " " in name and len(names) > 1 else name for name in names if name}))


def _of_toml(manifest: dict[str, Any]) -> str:
    for place in (
        ("package",),
        ("workspace", "package"),
        ("project",),
        ("tool", "poetry"),
        ("tool", "flit", "metadata"),
    ):
        table: Any = manifest
        for key in place:
            table = table.get(key, {}) if isinstance(table, dict) else {}
        if not isinstance(table, dict):
            continue
        stated, classifiers = table.get("license", ""), table.get("classifiers", [])
        if isinstance(stated, dict):  # {text = "…"}; {file = "LICENSE"} and {workspace = true} point elsewhere
            stated = stated.get("text", "")
        if found := _stated(stated, classifiers if isinstance(classifiers, list) else []):
            return found
    return ""


def _stated(stated: Any, classifiers: Iterable[Any] = ()) -> str:
    if not isinstance(stated, str) or not stated.strip() or stated.lower().startswith("see license"):
        return license_names.of_classifiers(map(str, classifiers))
    stated = stated.strip()
    either = " OR ".join(part.strip() for part in stated.split("/"))  # Cargo's old way to offer a choice
    return (
        license_names.of_name(stated)
        or license_names.of_expression(stated)
        or license_names.of_expression(either)
        or licenses.of_text(stated)
        or license_names.UNKNOWN_TERMS
    )
