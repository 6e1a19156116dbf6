"""A rehearsal of experiments/gpu_day, which must not fail in its half hour on a machine with a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import measure_training
import pytest
import report
import run
import slices
from slices import Slice

from gptjax.parallel.mesh import AbstractDevices

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "experiments" / "gpu_day"
FACTS = {"device": "rehearsal", "revision": "1"}
PART = """
import os, time
from worker import NotSupported

def measure(how):
    yield {"first": 1}
    if how == "hangs":
        time.sleep(600)
    if how == "dies":
        os.kill(os.getpid(), 9)
    if how == "raises":
        raise ValueError("it broke")
    raise NotSupported("no such kernel") if how == "refuses" else RuntimeError("RESOURCE_EXHAUSTED: 3 GiB")
"""


# --- One slice --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how, limit, status, reason",
    [
        ("raises", 60, "crashed", "exit status 1: ValueError: it broke"),
        ("dies", 60, "crashed", "exit status -9: nothing printed"),
        ("fills", 60, "out of memory", "out of memory: RESOURCE_EXHAUSTED: 3 GiB"),
        ("refuses", 60, "not supported", "no such kernel"),
        ("hangs", 60, "hung", None),
        ("hangs", 600, "cut", None),
    ],
)
def test_a_slice_that_fails_reports_the_reason_and_keeps_its_rows(tmp_path, monkeypatch, how, limit, status, reason):
    (tmp_path / "measure_trouble.py").write_text(PART)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    waited = run.wait

    def until_the_row(command, environment, output, seconds):
        """A clock that reaches the limit once the row is written, however busy the machine is."""
        if how != "hangs":
            return waited(command, environment, output, 120)
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        while "first" not in (Path(command[-1]).read_text() if Path(command[-1]).exists() else ""):
            assert process.poll() is None
        monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: process)
        return waited(command, environment, output, 0.0)

    monkeypatch.setattr(run, "wait", until_the_row)
    todo = Slice("s", "trouble", 1, limit, {"how": how})
    result = run.run_slice(todo, min(limit, 60), tmp_path / "log.txt", rehearse=True)
    assert (result["status"], result["rows"]) == (status, [{"first": 1}])
    assert result["reason"] == (reason or "not finished after 60 s")


# --- Which slice is next ----------------------------------------------------------------------------------------------


def result_of(name, status="done", **changes):
    return {"slice": name, "status": status, **FACTS, **changes}


@pytest.mark.parametrize(
    "results, seconds, expected",
    [
        ([], 100, "a"),
        ([], 50, "b"),  # one that fits into the time left
        ([], 5, None),
        ([result_of("a")], 100, "b"),
        ([result_of("a", device="another")], 100, "a"),
        ([result_of("a", "cut")], 100, "a"),
        ([result_of("a", "crashed")], 100, "b"),  # again, but last
        ([result_of("a", "hung"), result_of("b")], 100, "a"),
        ([result_of("a", "crashed"), result_of("a", "hung"), result_of("b", "out of memory")], 100, None),
        (
            [*2 * [result_of("a", "crashed", revision="0")], result_of("b", "not supported")],
            100,
            "a",
        ),  # fixed?
    ],
)
def test_the_next_slice_is_the_most_valuable_open_one(results, seconds, expected):
    found = run.next_slice([Slice("a", "p", 60, 90), Slice("b", "p", 20, 90)], results, FACTS, seconds)
    assert (found and found.name) == expected


def test_an_unfinished_line_of_a_killed_run_is_ignored(tmp_path):
    path = tmp_path / run.RESULTS
    run.append_line(path, result_of("a"))
    with open(path, "a") as file:
        file.write('{"slice": "b", "sta')
    run.append_line(path, result_of("c"))
    assert [result["slice"] for result in run.read_results([tmp_path, tmp_path / "missing"])] == ["a", "c"]


# --- The slices -------------------------------------------------------------------------------------------------------


def test_slices_have_unique_names_and_end_within_a_call():
    for listed in (slices.SLICES, slices.REHEARSAL):
        assert len({each.name for each in listed}) == len(listed)
        assert all(each.seconds < each.limit <= 300 for each in listed)
        assert all((FOLDER / f"measure_{each.part}.py").exists() for each in listed)
    rehearsed = {(each.part, each.options.get("side")) for each in slices.REHEARSAL}
    assert {(each.part, each.options.get("side")) for each in slices.SLICES} == rehearsed


def test_every_setting_of_training_is_a_valid_config_with_flash_attention():
    trained = [each for each in slices.SLICES if each.part == "training"]
    assert len(trained) > 16
    for each in trained:
        for setting in each.options["settings"]:
            devices = AbstractDevices("gpu", count=1)
            config = measure_training.make_plan(
                each.options["config"], each.options["length"], setting, devices, model={}
            ).config
            assert (config.model.attention, config.model.dtype) == ("cudnn", "bfloat16")
            assert config.training.batch_size == setting["rows"]


# --- The whole day ----------------------------------------------------------------------------------------------------


def rehearse(output, *flags):
    command = [sys.executable, str(FOLDER / "run.py"), "--rehearse", f"--output={output}", "--minutes=20", *flags]
    process = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()[-1]


EVERY = {each.name for each in slices.REHEARSAL}


@pytest.mark.slow
@pytest.mark.parametrize(
    "rehearsed",
    [{"training llama:1b, gptjax", "broken"}, pytest.param(EVERY - {"fp8"}, marks=pytest.mark.exhaustive)],
    ids=len,
)
def test_a_rehearsal_runs_every_slice_and_reports_it(tmp_path, monkeypatch, rehearsed):
    """Runs two slices that an earlier day has not done; `make test-exhaustive` runs nearly all."""
    earlier, output = tmp_path / "earlier", tmp_path / "day"
    for folder in (earlier, output):
        folder.mkdir()
    for name in EVERY - rehearsed:
        run.append_line(earlier / run.RESULTS, result_of(name))
    last = rehearse(output, f"--earlier={earlier}")
    results = {result["slice"]: result for result in run.read_results([output])}
    assert set(results) == rehearsed
    assert last == f"{len(EVERY) - 1} of {len(EVERY)} slices have a final result on rehearsal"
    statuses = {name: result["status"] for name, result in results.items()}
    assert statuses.pop("broken") == "crashed"
    assert statuses.pop("training gpt2:124m, torch", "done") in ("done", "not supported")
    assert set(statuses.values()) == {"done"}
    assert all(result["versions"]["jax"] and result["revision"] and result["when"] for result in results.values())
    for name in {"training gpt2:124m, gptjax", "training llama:1b, gptjax"} & rehearsed:
        (row,) = results[name]["rows"]
        assert 0 < row["tokens_per_second_least"] <= row["tokens_per_second"] <= row["tokens_per_second_most"]
        assert row["flops_per_second"]["causal"] < row["flops_per_second"]["full"]
    assert "shakespeare" not in results or results["shakespeare"]["rows"][0]["steps"] == 20
    assert "checks" not in results or {row["outcome"] for row in results["checks"]["rows"]} == {"passed"}
    assert "training.batch_size = -1" in results["broken"]["reason"]

    before = (output / run.RESULTS).read_text()
    rehearse(output, f"--earlier={earlier}")  # nothing is left to do, not even the broken one, after two tries
    assert (output / run.RESULTS).read_text() == before and before.count('"broken"') == 2

    monkeypatch.setattr(sys, "argv", ["report.py", str(output)])
    report.main()
    text = (output / "README.md").read_text()
    for part in {each.part for each in slices.REHEARSAL if each.name in rehearsed}:
        assert f"### {report.PARTS[part][0]}\n" in text
    assert "- broken: crashed. exit status 1: gptjax.errors.ConfigError: training.batch_size = -1" in text
    assert (output / "training.png").read_bytes().startswith(b"\x89PNG")
    assert rehearsed < EVERY - {"fp8"} or "cuDNN" in text


def test_the_report_shows_medians_and_extremes():
    row = {"config": "gpt2:124m", "length": 1024, "side": "gptjax", "rows": 64, "peak_bytes": 3 * 2**30}
    row |= {"tokens_per_second": 400_000.4, "tokens_per_second_least": 390_000.0, "tokens_per_second_most": 410_000.0}
    row |= {"flops_per_second": {"causal": 3.2e14, "full": 3.4e14}, "mfu": {"causal": 0.3236, "full": None}}
    cells = " | ".join(report.training(row | {"compile_seconds": 31.4}))
    assert cells == (
        "gpt2:124m @ 1024 | gptjax | rows 64 | 400,000 (390,000 to 410,000) | 320 · 340 | 32.4% · n/a | 3.0 | 31"
    )
    failed, done = result_of("s", "crashed", rows=[]), result_of("s", rows=[row])
    assert report.latest([done, failed]) == report.latest([failed, done]) == [done]
    assert json.loads(json.dumps(done)) == done
