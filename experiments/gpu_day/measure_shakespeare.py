"""Trains character-level Shakespeare at the GPU setting with a user's commands; stops when the time is up."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from worker import NotSupported

ROOT = Path(__file__).parents[2]
TEXT = ROOT / ".gpu_day" / "input.txt"  # wheels.py puts it there
SECONDS = 180  # seconds of training, after which a signal makes it save and end


def measure(text: str = str(TEXT), settings: tuple[str, ...] = ()) -> Iterator[dict]:
    """text: the path of the text, or 'written' for random words."""
    with tempfile.TemporaryDirectory() as folder:
        if text == "written":
            text = str(Path(folder) / "input.txt")
            words = random.Random(0).choices(["so", "much", "depends", "upon", "a", "red", "wheel", "barrow"], k=4000)
            Path(text).write_text("\n\n".join(" ".join(words[i : i + 20]) for i in range(0, 4000, 20)))
        if not Path(text).exists():
            raise NotSupported(f"the text is missing: {text}")
        prepared, workdir = Path(folder) / "data", Path(folder) / "run"
        run("gptjax.prepare", f"--input={text}", f"--output={prepared}", "--tokenizer=char",
            "--split_by=tail", "--validation_fraction=0.1")  # fmt: skip
        started = time.perf_counter()
        run("gptjax.train", "--config=configs/shakespeare_char.py:gpu", f"--config.data.path={prepared}",
            f"--workdir={workdir}", *(f"--config.{setting}" for setting in settings), seconds=SECONDS)  # fmt: skip
        rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        yield summary(rows) | {"seconds": time.perf_counter() - started}


def run(module: str, *flags: str, seconds: float | None = None) -> None:
    process = subprocess.Popen([sys.executable, "-m", module, *flags], cwd=ROOT, env=os.environ)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # it saves
        status = process.wait(60)
    if status:
        raise RuntimeError(f"{module} ended with exit status {status}")


def summary(rows: list[dict]) -> dict:
    scores = {row["step"]: row["validation/loss"] for row in rows if "validation/loss" in row}
    rates = sorted(row["tokens_per_second"] for row in rows if "tokens_per_second" in row)
    best = min(scores, key=scores.get) if scores else None
    return {
        "steps": max(row["step"] for row in rows),
        "best_validation_loss": scores.get(best),
        "best_step": best,
        "tokens_per_second": rates[len(rates) // 2] if rates else None,
    }
