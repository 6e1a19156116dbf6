"""What plans say beside what real steps take on this machine's processors.

  python experiments/plan/measure.py [memory | time] [CONFIG …]   # all take fifteen minutes; writes measured.jsonl
  python experiments/plan/measure.py show                         # prints the tables of README.md from it

Each config is trained for a few steps in processes of its own (one_run.py). One config, which is not scored, sets the
speed of the machine: it takes turns with the others, since the speed of a shared machine changes. For the same reason
readings of times are added to those in the file, and their medians count; delete the file to start anew.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from configs_measured import CALIBRATION, CONFIGS

from gptjax.forecast.devices import CPU_BANDWIDTH
from gptjax.forecast.duration import Cases, step_time
from gptjax.forecast.hardware import Hardware
from gptjax.forecast.step import Needs

HERE = Path(__file__).parent
FILE = HERE / "measured.jsonl"
NUMBER: dict[str, Callable[[dict[str, Any]], float]] = {  # what one_run.py measures, and its first number
    "memory": lambda row: row["bytes"],
    "time": lambda row: row["readings"][-1]["clock"],
}
CLOCKS = ("clock", "processor")
READING = (*CLOCKS, "fastest", "steps", "peak", "loss")  # what differs between processes that time the same program
MEMORY_GOAL, TIME_GOAL = 0.05, 0.15
BUSY = 0.7  # if its processors worked for a step for a smaller share of the time, other programs had the rest
TRIES = 3  # runs of one config, until other programs leave it the processors


def measure(kinds: Sequence[str], names: Sequence[str]) -> None:
    """Measures these configs, and keeps what is in the file: all of the others, and earlier readings of times."""
    kept = {row["config"]: row for row in rows()} if FILE.exists() else {}
    before = timed(CALIBRATION) if "time" in kinds else {}
    for name in names:
        found = kept.setdefault(name, {})
        if "memory" in kinds:
            found |= one_run(name, "memory")
        if "time" in kinds:
            new = dict(before) if name == CALIBRATION else timed(name)
            reading = {each: new.pop(each) for each in READING}
            if name != CALIBRATION:
                after = timed(CALIBRATION)
                reading["calibration"] = {of: (before[of] + after[of]) / 2 for of in CLOCKS}
                before = after
            found |= new
            found.setdefault("readings", []).append(reading)
        FILE.write_text("".join(json.dumps(row) + "\n" for row in kept.values()))
        print(name, *(f"{what} {number(found):.4g}" for what, number in NUMBER.items() if what in kinds), flush=True)


def timed(name: str) -> dict[str, Any]:
    """One reading of a config's time, when no other program uses the processors."""
    for _ in range(TRIES):
        found = one_run(name, "time")
        if found["processor"] >= BUSY * found["clock"]:
            return found
        print(f"{name}: other programs had {1 - found['processor'] / found['clock']:.0%} of the processors; again")
    sys.exit(f"other programs have used the processors for {TRIES} runs: measure times on a quiet machine")


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


def median(row: dict[str, Any], of: str) -> float:
    return statistics.median(reading[of] for reading in row["readings"])


def head(*columns: str) -> None:
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def show_memory(found: list[dict[str, Any]]) -> None:
    head(
        *("config", "parameters, plan / counted", "FLOPs, plan / compiled", "memory measured, MiB"),
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
    peak = statistics.median(median(row, "peak") for row in found)
    likely = {row["config"]: predicted(row, peak).likely for row in found}
    peaks = [reading["peak"] / 1e9 for row in found for reading in row["readings"]]
    print(f"fastest product of a process: {peak / 1e9:.0f} GFLOP/s ({min(peaks):.0f} to {max(peaks):.0f})\n")
    by_others = calibrated_by_others({row["config"]: median(row, "clock") for row in found}, likely)
    head(
        *("config", "clock, ms", "processors, ms", "predicted, ms (slow to fast)", "predicted / clock"),
        *("calibrated / clock", "calibrated / processors", "calibrated by the others / clock"),
    )
    near: dict[str, list[bool]] = {of: [] for of in (*CLOCKS, "others")}
    for row in found:
        seconds, ratios = predicted(row, peak), []
        for of in CLOCKS:
            if row["config"] == CALIBRATION:
                ratios.append("")
                continue
            relative = statistics.median(each["calibration"][of] / each[of] for each in row["readings"])
            ratios.append(f"{(ratio := relative * seconds.likely / likely[CALIBRATION]):.2f}")
            near[of].append(abs(ratio - 1) <= TIME_GOAL)
        ratios.append(f"{(ratio := by_others[row['config']]):.2f}")
        near["others"].append(abs(ratio - 1) <= TIME_GOAL)
        clocks = [1e3 * reading["clock"] for reading in row["readings"]]
        print(
            f"| {row['config']} | {statistics.median(clocks):,.0f} ({min(clocks):,.0f} to {max(clocks):,.0f}) | "
            f"{1e3 * median(row, 'processor'):,.0f} | "
            f"{1e3 * seconds.likely:,.0f} ({1e3 * seconds.slow:,.0f} to {1e3 * seconds.fast:,.0f}) | "
            f"{seconds.likely / median(row, 'clock'):.2f} | {' | '.join(ratios)} |"
        )
    print(f"\nwithin {TIME_GOAL:.0%} after calibration: {', '.join(_scores(near))}")
    for number in range(min(len(row["readings"]) for row in found)):
        alone = calibrated_by_others({row["config"]: row["readings"][number]["clock"] for row in found}, likely)
        count = sum(abs(ratio - 1) <= TIME_GOAL for ratio in alone.values())
        print(f"reading {number + 1} alone: {count} of {len(found)} by the others")


def calibrated_by_others(clock: dict[str, float], likely: dict[str, float]) -> dict[str, float]:
    """For each config, its predicted time times the median of measured / predicted of all others, divided by its own
    measured time."""
    slower = {name: seconds / likely[name] for name, seconds in clock.items()}
    others = {name: [each for other, each in slower.items() if other != name] for name in slower}
    return {name: statistics.median(others[name]) / slower[name] for name in slower}


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
    for show, first in ((show_memory, "bytes"), (show_times, "readings")):
        if all(first in row for row in rows()):
            show(rows())
            print()
