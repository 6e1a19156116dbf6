"""Commands to launch: Python programs that the tests write."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Scripted:
    """A command with a folder of its own, which is its program's argument."""

    name: str
    workdir: Path
    script: str

    @property
    def command(self):
        return [sys.executable, "-c", self.script, str(self.workdir)]


@pytest.fixture
def scripted(tmp_path):
    """(program, number) → as many commands that execute the program."""
    return lambda script, count=1: [Scripted(f"seed={i}", tmp_path / f"seed={i}", script) for i in range(count)]
