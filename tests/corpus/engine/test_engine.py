"""The engine writes the same bytes with any number of workers and whatever is killed, and no file is half-written."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from waiting import until

from gptjax.config import ConfigError, RunError
from gptjax.corpus.engine import Stage, run_stage
from gptjax.corpus.engine.local import LocalProcesses

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[3]
INPUTS = [{"letter": letter, "count": 1000 + i} for i, letter in enumerate("abcdefgh")]


def write(task, folder):
    """Writes two files; misbehaves at first if the options name a task and a way."""
    if task.number == task.options.get("bad_task", -1):
        strikes = Path(task.options["strikes"])
        with open(strikes, "a") as file:
            file.write("x")
        (folder / "half").write_bytes(b"half")
        if strikes.stat().st_size <= task.options["times"]:
            misbehave(task.options["way"], folder)
        (folder / "half").unlink()
    (folder / "text").write_bytes(task.inputs["letter"].encode() * task.inputs["count"])
    (folder / "number").write_bytes(bytes([task.number]))
    return {"bytes": task.inputs["count"]}


def misbehave(way, folder):
    if way == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "raises":
        raise ValueError("a shard that cannot be processed")
    if way == "mistake":
        raise ConfigError("sources: no such thing")
    if way == "slow":
        time.sleep(1200)
    if way == "disk full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        try:
            (folder / "big").write_bytes(bytes(2000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def bad(tmp_path, task, way, times=1):
    return Stage(
        "write", write, options={"bad_task": task, "way": way, "times": times, "strikes": f"{tmp_path}/strikes"}
    )


def contents(work):
    """File → bytes; in markers the stage's key, which differs with the options, is left out."""
    found = {}
    for path in sorted(work.glob("*/*")):
        if path.suffix == ".json":
            marker = json.loads(path.read_text())
            files = {name: (entry["size"], entry["hash"]) for name, entry in marker["files"].items()}
            found[path.name] = (files, marker["report"])
        else:
            found[path.name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    work = tmp_path_factory.mktemp("unbroken")
    with LocalProcesses(1) as executor:
        run_stage(Stage("write", write), INPUTS, work, executor)
    return contents(work)


@pytest.fixture(scope="module")
def processes():
    with LocalProcesses(3) as executor:
        yield executor


def test_results_are_in_order_and_name_the_written_files(tmp_path, processes):
    told = []
    results = run_stage(Stage("write", write), INPUTS, tmp_path, processes, lambda i, result: told.append(i))
    assert [result["report"]["bytes"] for result in results] == [task["count"] for task in INPUTS]
    assert sorted(told) == list(range(8))
    for i, result in enumerate(results):
        assert (tmp_path / result["files"]["text"]["name"]).read_bytes() == b"abcdefgh"[i : i + 1] * (1000 + i)


def test_any_number_of_workers_gives_the_same_bytes(tmp_path, processes, unbroken):
    run_stage(Stage("write", write), INPUTS, tmp_path, processes)
    assert contents(tmp_path) == unbroken and len(unbroken) == 3 * 8


@pytest.mark.parametrize("way", ["killed", "raises"])
def test_a_task_that_fails_twice_succeeds_at_the_third_attempt(tmp_path, processes, unbroken, way):
    run_stage(bad(tmp_path, 2, way, times=2), INPUTS, tmp_path / "work", processes)
    assert contents(tmp_path / "work") == unbroken


@pytest.mark.parametrize("way, reason", [("killed", "its worker died"), ("raises", "ValueError: a shard")])
def test_a_task_that_keeps_failing_does_not_stop_the_others(tmp_path, processes, unbroken, way, reason):
    stage = bad(tmp_path, 5, way, times=3)
    with pytest.raises(RunError, match=f"write: 1 of 8 tasks failed 3 times each, .*; task 5: {reason}"):
        run_stage(stage, INPUTS, tmp_path / "work", processes)
    left = contents(tmp_path / "work")
    assert reason.encode() in left.pop("part-00005.failed")
    assert left == {name: value for name, value in unbroken.items() if "00005" not in name}
    run_stage(stage, INPUTS, tmp_path / "work", processes)  # the fourth attempt is the next run's first
    assert contents(tmp_path / "work") == unbroken


def test_finished_tasks_run_again_only_for_other_inputs_options_or_version(tmp_path, processes):
    def paths():
        return {path: path.stat().st_ino for path in tmp_path.glob("*/*")}

    run_stage(Stage("write", write), INPUTS, tmp_path, processes)
    before = paths()
    run_stage(Stage("write", write), INPUTS, tmp_path, processes)
    assert paths() == before

    changed = [*INPUTS[:3], {"letter": "z", "count": 7}, *INPUTS[4:]]
    results = run_stage(Stage("write", write), changed, tmp_path, processes)
    assert (tmp_path / results[3]["files"]["text"]["name"]).read_bytes() == b"z" * 7
    assert {path.name[:10] for path, inode in paths().items() if before.get(path) != inode} == {"part-00003"}

    for stage in (Stage("write", write, version=2), Stage("write", write, options={"more": 1})):
        assert run_stage(stage, INPUTS[:1], tmp_path, processes)[0]["files"]["text"]["name"] not in map(str, before)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("harm", ["missing", "truncated", "marker cut"])
def test_files_that_differ_from_the_marker_are_made_again(tmp_path, processes, unbroken, harm):
    run_stage(Stage("write", write), INPUTS, tmp_path, processes)
    (text,) = tmp_path.glob("*/part-00004.text")
    if harm == "missing":
        text.unlink()
    elif harm == "truncated":
        os.truncate(text, 10)
    else:
        os.truncate(text.with_name("part-00004.json"), 10)
    run_stage(Stage("write", write), INPUTS, tmp_path, processes)
    assert contents(tmp_path) == unbroken


@pytest.mark.parametrize("way, error", [("disk full", OSError), ("mistake", ConfigError)])
def test_an_error_that_every_task_would_meet_ends_the_run(tmp_path, processes, unbroken, way, error):
    stage = bad(tmp_path, 1, way)
    with pytest.raises(error, match="write: .*File too large" if way == "disk full" else "sources: no such thing"):
        run_stage(stage, INPUTS, tmp_path / "work", processes)
    assert (tmp_path / "strikes").read_text() == "x", "it is tried only once"
    assert not list((tmp_path / "work").glob("*/part-00001*"))
    run_stage(stage, INPUTS, tmp_path / "work", processes)
    assert contents(tmp_path / "work") == unbroken


DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = [{repository!r}, {repository!r} + "/tests/support"]
from tests.corpus.engine.test_engine import *
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where pytest itself is in the background
    with LocalProcesses(2) as executor:
        run_stage(bad(Path({folder!r}), 6, "slow"), INPUTS, Path({folder!r}) / "work", executor)
"""


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_a_killed_driver_and_the_same_call_continues(tmp_path, processes, unbroken, by):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(repository=str(REPOSITORY), folder=str(tmp_path)))
    driver = subprocess.Popen([sys.executable, script], stderr=subprocess.DEVNULL)
    work = tmp_path / "work"
    until(lambda: len(list(work.glob("*/*.json"))) == 7 and len(list(work.glob("*/*.attempt"))) == 1)
    (attempt,) = work.glob("*/*.attempt")
    workers = {int(pid) for pid in os.listdir("/proc") if pid.isdigit() and parent_of(pid) == driver.pid}
    driver.send_signal(by)
    driver.wait()
    assert attempt.is_dir(), "the worker's unfinished files are in its own folder"
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers))

    run_stage(bad(tmp_path, 6, "slow"), INPUTS, work, processes)
    assert contents(work) == unbroken


def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


@pytest.fixture
def importable(monkeypatch):
    """Workers that are not children of this process can import this file, and gptjax if it is not installed."""
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests/support'}")


def test_ray_replaces_a_killed_worker(tmp_path, unbroken, importable):
    pytest.importorskip("ray")
    from gptjax.cluster.ray_tasks import RayTasks

    with RayTasks(2) as executor:
        run_stage(bad(tmp_path, 2, "killed", times=1), INPUTS, tmp_path / "work", executor)
        assert contents(tmp_path / "work") == unbroken
        with pytest.raises(RunError, match=r"1 of 8 tasks failed 3 times each, .* task 1: ValueError"):
            run_stage(bad(tmp_path, 1, "raises", times=9), INPUTS, tmp_path / "again", executor)


def test_a_ray_that_does_not_start_is_reported_in_one_sentence(monkeypatch):
    ray = pytest.importorskip("ray")
    from gptjax.cluster.ray_tasks import RayTasks

    def fail(**_):
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(RunError, match=r"--executor=ray: Ray did not start: .* timed out"):
        RayTasks(2)


@pytest.mark.parametrize("kind", ["local", "debug"])
def test_tasks_run_as_submitit_jobs(tmp_path, unbroken, kind, monkeypatch, importable):
    submitit = pytest.importorskip("submitit")
    from gptjax.cluster import job_tasks

    monkeypatch.setattr(job_tasks, "MOST_JOBS", 3)
    # Seconds that submitit waits for the result of a killed job, since a slow file system might show it late.
    monkeypatch.setattr(submitit.core.core.Job, "_results_timeout_s", 0)
    way = "killed" if kind == "local" else "raises"
    with job_tasks.JobTasks(kind, tmp_path / "jobs", 0, {"timeout_min": 5}) as executor:
        run_stage(bad(tmp_path, 2, way, times=1), INPUTS, tmp_path / "work", executor)
    assert contents(tmp_path / "work") == unbroken


def test_a_missing_slurm_is_reported_in_one_sentence(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    from gptjax.cluster.job_tasks import JobTasks

    with pytest.raises(ConfigError, match=r"--executor=slurm: .*slurm"):
        JobTasks("slurm", tmp_path, 0, {})


def test_the_key_of_a_stage_depends_on_name_version_options_and_inputs_alone():
    """These keys are on disk: folders that were prepared earlier keep their finished tasks."""
    options = {"mend": True, "language": True, "personal": []}
    inputs = {"documents": {"name": "a", "size": 1, "hash": "b"}}
    for function in (write, misbehave):
        stage = Stage("clean", function, 2, options)
        assert stage.folder == "clean-7bd18500" and stage.key == "7bd18500d1923f45e08df40b4669330f"
        assert stage.task_key(inputs) == "0165bff0a5aef467789a328de409dcd2"
    assert len({Stage(*of).key for of in (("a", write, 1), ("b", write, 1), ("a", write, 2))}) == 3
