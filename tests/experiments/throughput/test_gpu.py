"""experiments/throughput/gpu.py, which will have one short call on a machine with a GPU: it must not break there."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "experiments" / "throughput" / "gpu.py"


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_throughput", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def table_of_speeds(speeds):
    """A measure that knows the tokens a second of some settings; the others run out of memory."""

    def measure(variant):
        key = (variant.side, variant.rows, variant.chunk)
        if key not in speeds:
            return {"variant": variant, "error": "out of memory"}
        return {"variant": variant, "tokens_per_second": speeds[key]}

    return measure


def test_a_search_keeps_what_is_faster_and_survives_what_fails(gpu):
    begin = gpu.Variant("gpt2:124m", 1024, rows=64, chunk=8)
    changes = ({"chunk": 0}, {"rows": 128}, {"rows": 96}, {"chunk": 8})
    speeds = {("gptjax", 64, 8): 1.0, ("gptjax", 64, 0): 2.0, ("gptjax", 96, 0): 3.0, ("gptjax", 96, 8): 2.5}
    speeds |= {("torch", 96, 16384): 1.0, ("torch", 64, 16384): 1.0}
    tried = [(r["variant"].side, r["variant"].rows, r["variant"].chunk, "error" in r)
             for r in gpu.search(begin, changes, table_of_speeds(speeds))]  # fmt: skip
    assert tried == [
        ("gptjax", 64, 8, False),
        ("gptjax", 64, 0, False),
        ("gptjax", 128, 0, True),
        ("gptjax", 96, 0, False),
        ("gptjax", 96, 8, False),
        ("torch", 128, 16384, True),
        ("torch", 96, 16384, False),
    ]


def test_a_search_goes_on_when_its_first_setting_fails(gpu):
    begin = gpu.Variant("gpt2:124m", 1024, rows=64, chunk=8)
    results = list(gpu.search(begin, ({"rows": 32},), table_of_speeds({("gptjax", 32, 8): 1.0})))
    assert [("error" in r, r["variant"].rows) for r in results] == [(True, 64), (False, 32), (True, 64), (True, 32)]


def test_every_setting_of_the_searches_is_a_valid_config(gpu):
    for begin, changes in gpu.SEARCHES.values():
        for change in ({}, *changes):
            variant = dataclasses.replace(begin, **change)
            config = gpu.make_config(variant, "gpu", smoke=False)
            assert config.model.attention == "cudnn" and config.model.dtype == "bfloat16"
            assert config.training.batch_size == variant.rows and config.data.sequence_length == variant.length


def test_a_variant_that_breaks_is_a_row_with_its_reason(gpu):
    variant = gpu.Variant("gpt2:124m", 32, rows=-1)
    result = gpu.in_a_process(variant, "smoke", deadline=float("inf"))
    assert "training.batch_size = -1: must be at least 1" in result["error"]
    assert result["error"] in gpu.row("shape", result, "smoke")


def test_when_the_time_is_up_nothing_more_is_started(gpu):
    result = gpu.in_a_process(gpu.Variant("gpt2:124m", 32, 2), "smoke", deadline=0.0)
    assert "time was up" in result["error"]


@pytest.mark.slow
def test_the_whole_script_runs_on_small_models(tmp_path):
    command = [sys.executable, str(SCRIPT), "--smoke", f"--output={tmp_path}"]
    process = subprocess.run(
        command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=600
    )
    assert process.returncode == 0, process.stderr
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    ours = [result for result in results if result["variant"]["side"] == "gptjax"]
    assert len(ours) == 3 and not any("error" in result for result in ours)
    assert all(len(result["seconds_per_step"]) == 3 and result["tokens_per_second"] > 0 for result in ours)
    theirs = results[-1]
    assert "error" not in theirs or theirs["error"].startswith("PyTorch is not here")
    assert (tmp_path / "table.md").read_text() == process.stdout
