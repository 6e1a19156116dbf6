"""Runs a GPU day with one command: the next unfinished slices, the most valuable first, until the time is up.

  python experiments/gpu_day/run.py --output=FOLDER --minutes=9

FOLDER/results.jsonl gets a line for every slice as soon as it has ended, FOLDER/log.txt the slices' output. A slice is
not repeated if results.jsonl there, or in a folder named by --earlier, has its final result on this kind of device. A
slice that crashes, hangs or runs out of memory does not affect the others. README.md beside this file says how to spend
the day.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from slices import REHEARSAL, SLICES, Slice
from worker import NOT_SUPPORTED, OUT_OF_MEMORY

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = "results.jsonl"
FINAL = ("done", "out of memory", "not supported")
TRIES = 2  # how often a slice that crashes or hangs is tried
KILL_AHEAD = 5.0  # seconds kept at the end, so that the last line is still written


# --- What there is to do ---------------------------------------------------------------------------------------------


def next_slice(slices: Iterable[Slice], results: Iterable[dict], facts: dict, seconds: float) -> Slice | None:
    """The first slice without a final result on this device that fits into the time left; failed ones come last.

    facts: the device and the revision; what failed at another revision may have been fixed.
    """
    here = [result for result in results if result["device"] == facts["device"]]
    ended = {result["slice"] for result in here if result["status"] in FINAL}
    failed = [result for result in here if result["status"] in ("crashed", "hung")]
    tries = Counter(result["slice"] for result in failed if result["revision"] == facts["revision"])
    open_slices = [s for s in slices if s.name not in ended and tries[s.name] < TRIES and s.seconds <= seconds]
    return min(open_slices, key=lambda s: tries[s.name], default=None)  # of equals the first


def read_results(folders: Iterable[Path]) -> list[dict]:
    """Reads all complete lines; a line that a killed run left unfinished is ignored."""
    results = []
    for folder in folders:
        path = folder / RESULTS
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                results.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return results


def append_line(path: Path, result: dict) -> None:
    with open(path, "ab+") as file:
        size = file.tell()
        if size:
            file.seek(size - 1)
            if file.read() != b"\n":  # the previous writer was killed in the middle of a line
                file.write(b"\n")
        file.write(json.dumps(result).encode() + b"\n")


# --- One slice -------------------------------------------------------------------------------------------------------


def run_slice(todo: Slice, limit: float, log: Path, rehearse: bool) -> dict:
    """The slice's result: how it ended, why, and its rows; never raises for what the slice does."""
    flags = [setting.get("xla_flags", "") for setting in todo.options.get("settings", ()) if isinstance(setting, dict)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "XLA_FLAGS": " ".join(filter(None, [os.environ.get("XLA_FLAGS"), *flags])),
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.94",
    }
    if rehearse:
        environment |= {"GPU_DAY_REHEARSAL": "1", "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    elif todo.options.get("side") == "torch":
        environment["JAX_PLATFORMS"] = "cpu"  # JAX only builds the config; PyTorch uses the GPU
    else:
        environment["JAX_PLATFORMS"] = "cuda,cpu"  # without a GPU this is an error, instead of a measurement of the CPU
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        # PyTorch's compiler must find neither files of a killed slice nor a cache that would make it skip what is
        # timed.
        environment |= {"TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "inductor")}
        command = [sys.executable, str(HERE / "worker.py"), todo.part, json.dumps(todo.options), str(rows)]
        with open(log, "a+b") as output:
            output.write(f"\n=== {todo.name}\n".encode())
            output.flush()
            begin = output.tell()
            status = wait(command, environment, output, limit)
            output.seek(begin)
            printed = output.read().decode(errors="replace")
        lines = rows.read_text().splitlines() if rows.exists() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:  # it ended in the middle of a line
            continue
    ended = {0: "done", OUT_OF_MEMORY: "out of memory", NOT_SUPPORTED: "not supported", None: "hung"}
    result = {"slice": todo.name, "part": todo.part, "status": ended.get(status, "crashed")}
    if status is None and limit < todo.limit:
        result["status"] = "cut"
    if result["status"] != "done":
        result["reason"] = reason(printed, status) if status is not None else f"not finished after {limit:.0f} s"
    result["seconds"] = time.monotonic() - started
    result["versions"] = found[0]["versions"] if found else {}
    return result | {"rows": found[1:]}


def wait(command: list[str], environment: dict, output, limit: float) -> int | None:
    """Returns the exit status, or None if the process and all that it started had to be killed."""
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def reason(printed: str, status: int) -> str:
    """Returns the line of the output that says what happened."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "error" in line]
    if status in (OUT_OF_MEMORY, NOT_SUPPORTED) and lines:
        return lines[-1][:300]
    return (f"exit status {status}: " + (errors or lines or ["nothing printed"])[-1])[:300]


# --- Where and with what ---------------------------------------------------------------------------------------------


def device_name() -> str:
    """Returns the driver's name of the GPU, without loading a library that would occupy the GPU."""
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        listed = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return "none"
    return listed[0].strip() if listed else "none"


def revision() -> str:
    """Returns the revision of the checkout, or the one that wheels.py noted if there is no repository."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        noted = ROOT / ".gpu_day" / "revision"
        return noted.read_text().strip() if noted.exists() else "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the folder of results; created if missing")
    parser.add_argument("--minutes", type=float, default=9.0, help="minutes until the end, including the last slice")
    parser.add_argument("--earlier", type=Path, nargs="*", default=[HERE / "results"], help="folders with results")
    parser.add_argument("--only", default="", help="only slices whose names contain this")
    parser.add_argument("--list", action="store_true", help="show the slices in their order and end")
    parser.add_argument("--rehearse", action="store_true", help="run small models on the CPU (figures mean nothing)")
    arguments = parser.parse_args()
    deadline = time.monotonic() + 60 * arguments.minutes
    slices = [s for s in (REHEARSAL if arguments.rehearse else SLICES) if arguments.only in s.name]
    if arguments.list:
        print(*(f"{each.seconds:5d} s  {each.name}" for each in slices), sep="\n")
        return
    device = "rehearsal" if arguments.rehearse else device_name()
    if device == "none":
        sys.exit("nvidia-smi finds no NVIDIA GPU; --rehearse runs small models on the CPU")
    arguments.output.mkdir(parents=True, exist_ok=True)
    results = read_results([*arguments.earlier, arguments.output])
    facts = {"device": device, "revision": revision()}
    while True:
        left = deadline - time.monotonic() - KILL_AHEAD
        todo = next_slice(slices, results, facts, left)
        if todo is None:
            break
        result = run_slice(todo, min(todo.limit, left), arguments.output / "log.txt", arguments.rehearse)
        result |= facts | {"when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
        append_line(arguments.output / RESULTS, result)
        results.append(result)
        print(f"{result['seconds']:5.0f} s  {todo.name}: {result['status']} {result.get('reason', '')}", flush=True)
    names = {result["slice"] for result in results if result["device"] == device and result["status"] in FINAL}
    print(f"{len(names & {s.name for s in slices})} of {len(slices)} slices have a final result on {device}")


if __name__ == "__main__":
    main()
