"""What plans say beside what real steps take on this machine's processors.

  python experiments/plan/measure.py [memory | time] [CONFIG …]   # all take twelve minutes; writes measured.jsonl
  python experiments/plan/measure.py show                         # prints the tables of README.md from it

Each config is trained for a few steps in processes of its own (one_run.py). One config, which is not scored, sets the
speed of the machine: it takes turns with the others, since the speed of a shared machine changes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from configs_measured import CALIBRATION, CONFIGS

from gptjax.forecast.devices import CPU_BANDWIDTH
from gptjax.forecast.duration import Cases, step_time
from gptjax.forecast.hardware import Hardware
from gptjax.forecast.step import Needs

HERE = Path(__file__).parent
FILE = HERE / "measured.jsonl"
NUMBER = {"memory": "bytes", "time": "clock"}  # what one_run.py measures, and its first number
CLOCKS = ("clock", "processor")
MEMORY_GOAL, TIME_GOAL = 0.05, 0.15
BUSY = 0.7  # if its processors worked for a step for a smaller share of the time, other programs had the rest


def measure(kinds: Sequence[str], names: Sequence[str]) -> None:
    """Measures these configs, and keeps what is in the file of the others and of the other kind."""
    kept = {row["config"]: row for row in rows()} if FILE.exists() else {}
    before = one_run(CALIBRATION, "time") if "time" in kinds else {}
    for name in names:
        found = kept.setdefault(name, {})
        for what in kinds:
            if (what, name) == ("time", CALIBRATION):
                found |= before
                continue
            found |= one_run(name, what)
            if what == "time":
                after = one_run(CALIBRATION, "time")
                found["calibration"] = {of: (before[of] + after[of]) / 2 for of in CLOCKS}
                before = after
        FILE.write_text("".join(json.dumps(row) + "\n" for row in kept.values()))
        print(name, *(f"{what} {found[NUMBER[what]]:.4g}" for what in kinds), flush=True)


def one_run(name: str, what: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, str(HERE / "one_run.py"), name, what], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILE.read_text().splitlines()]


def total(needs: dict[str, Any]) -> int:
    """The bytes of one step."""
    return Needs.from_json(needs).memory.total


def predicted(row: dict[str, Any], peak: float) -> Cases:
    """Seconds of a step on processors whose fastest product has this rate."""
    bandwidth = CPU_BANDWIDTH
    here = Hardware(
        *("cpu", "cpu", "cpu", 0.0, bandwidth, bandwidth, bandwidth, 1, None, "this machine"), cores=row["cores"]
    )
    return step_time(Needs.from_json(row["needs"]), here, peak).step


def is_busy(row: dict[str, Any]) -> bool:
    """Whether other programs had much of the processors while a config was timed."""
    return row["processor"] < BUSY * row["clock"]


def head(*columns: str) -> None:
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def show_memory(found: list[dict[str, Any]]) -> None:
    head(
        *("config", "parameters, plan / counted", "FLOPs, plan / compiled", "memory, MiB"),
        *("compiled / measured", "formula / measured"),
    )
    near = []
    for row in found:
        compiled, formula = (total(row[each]) / row["bytes"] for each in ("needs", "formula"))
        near.append(abs(compiled - 1) <= MEMORY_GOAL)
        print(
            f"| {row['config']} | {row['parameters'] / row['counted_parameters']:.4f} | "
            f"{row['convention_flops'] / row['plain_flops']:.4f} | {row['bytes'] / 2**20:,.0f} | {compiled:.3f} | "
            f"{formula:.2f} |"
        )
    print(f"\n{sum(near)} of {len(near)} compiled plans are within {MEMORY_GOAL:.0%} of the measured memory")


def show_times(found: list[dict[str, Any]]) -> None:
    peak = max(row["peak"] for row in found)
    known = next(row for row in found if row["config"] == CALIBRATION)
    print(f"fastest product: {peak / 1e9:.0f} GFLOP/s\n")
    head(
        *("config", "clock, ms", "processors, ms", "predicted, ms (slow to fast)", "predicted / clock"),
        *("calibrated / clock", "calibrated / processors", "calibrated by the others / clock"),
    )
    near: dict[str, list[bool]] = {of: [] for of in (*CLOCKS, "others")}
    for row in found:
        seconds, busy = predicted(row, peak), is_busy(row)
        ratios = []
        for of in CLOCKS:
            if row is known or (busy and of == "clock"):
                ratios.append("")
                continue
            scale = row["calibration"][of] / predicted(known, peak).likely
            ratio = scale * seconds.likely / row[of]
            ratios.append(f"{ratio:.2f}")
            near[of].append(abs(ratio - 1) <= TIME_GOAL)
        by = "processor" if busy else "clock"
        comparable = [each for each in found if each is not row and not (by == "clock" and is_busy(each))]
        others = [each[by] / predicted(each, peak).likely for each in comparable]
        ratios.append(f"{(ratio := statistics.median(others) * seconds.likely / row[by]):.2f}{'*' * busy}")
        near["others"].append(abs(ratio - 1) <= TIME_GOAL)
        clock, of_clock = ("", "") if busy else (f"{1e3 * row['clock']:,.0f}", f"{seconds.likely / row['clock']:.2f}")
        print(
            f"| {row['config']} | {clock} | {1e3 * row['processor']:,.0f} | "
            f"{1e3 * seconds.likely:,.0f} ({1e3 * seconds.slow:,.0f} to {1e3 * seconds.fast:,.0f}) | "
            f"{of_clock} | {' | '.join(ratios)} |"
        )
    print(f"\nwithin {TIME_GOAL:.0%} after calibration: {', '.join(_scores(near))}")


def _scores(near: dict[str, list[bool]]) -> Iterator[str]:
    for of, each in near.items():
        yield f"{sum(each)} of {len(each)} by the {of}"


if __name__ == "__main__":
    given = sys.argv[1:]
    if unknown := set(given) - {*NUMBER, *CONFIGS, "show"}:
        sys.exit(f"{unknown.pop()!r}: expected memory, time, show, or the name of a config: {', '.join(CONFIGS)}")
    if given != ["show"]:
        kinds, names = ([each for each in given if each in known] for known in (NUMBER, CONFIGS))
        measure(kinds or list(NUMBER), names or list(CONFIGS))
    show_memory(rows())
    print()
    show_times(rows())
