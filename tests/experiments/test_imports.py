"""Scripts outside the package, which run seldom, can import what they need from it."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SELDOM_RUN = ("experiments/**/*.py", "examples/**/*.py", "tests/parity/*.py", "tests/slurm/*.py", "tests/gpu/*.py")
FILES = sorted(str(path.relative_to(ROOT)) for pattern in SELDOM_RUN for path in ROOT.glob(pattern))


def exists(module: str, name: str) -> bool:
    if hasattr(importlib.import_module(module), name):
        return True
    try:
        return bool(importlib.import_module(f"{module}.{name}"))
    except ImportError:
        return False


@pytest.mark.parametrize("file", FILES)
def test_imported_names_exist_in_the_package(file):
    nodes = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gptjax")]
    missing = [f"{node.module}.{a.name}" for node in imports for a in node.names if not exists(node.module, a.name)]
    assert not missing


def test_scripts_are_found():
    assert len(FILES) > 50
