"""Commands to launch, which are Python programs that the tests write."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Scripted:
    """A command with its own folder, which is its program's argument."""

    name: str
    workdir: Path
    script: str

    @property
    def command(self):
        return [sys.executable, "-c", self.script, str(self.workdir)]


@pytest.fixture
def scripted(tmp_path):
    """(program, number) → that number of commands that execute the program."""
    return lambda script, count=1: [Scripted(f"seed={i}", tmp_path / f"seed={i}", script) for i in range(count)]
