"""Runs the tests that need a GPU (tests/gpu), one row per test."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def measure(only: str = "") -> Iterator[dict]:
    """only: part of the names of the tests to run."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "tests/gpu", f"--junitxml={report}", "-p", "no:cacheprovider"]
        environment = {
            **os.environ,
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }  # for the processes that tests start
        status = subprocess.run([*command, *(["-k", only] if only else [])], cwd=ROOT, env=environment).returncode
        if status > 1 or not report.exists():  # status 1 means that tests failed, which the rows report
            raise RuntimeError(f"pytest ended with exit status {status}")
        for case in ElementTree.parse(report).iter("testcase"):
            row = {"test": case.get("name"), "outcome": "passed", "seconds": float(case.get("time"))}
            for child in case:
                if child.tag in ("failure", "error", "skipped"):
                    row |= {"outcome": child.tag, "reason": (child.get("message") or "").splitlines()[:1]}
            yield row
