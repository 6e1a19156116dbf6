"""The console shows every setting, aligned lines within 120 columns, dashes for missing values, and the remaining time
without compiling."""

import contextlib
import io
import math
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from gptjax.config import default, flatten
from gptjax.data.facts import DataFacts
from gptjax.parallel.mesh import AbstractDevices
from gptjax.planning import plan
from gptjax.runs.shown_settings import ALWAYS_SHOWN, IN_FACTS, derived_facts, print_settings
from gptjax.training.hardware import Memory, Peak
from gptjax.training.metrics import Throughput
from gptjax.training.records.console import HEADER_EVERY, TrainingView, make_console, print_summary, run_summary

METRICS = {
    "train/loss": jnp.float32(3.25),
    "train/gradient_norm": np.float32(0.8123),
    "learning_rate": 9.8e-4,
    "tokens_per_second": 20_212.0,
    "step_milliseconds": 812.44,
    "mfu": 0.412,
    "data_wait_fraction": 0.0012,
    "device_memory_bytes": 3.1 * 2**30,
}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def log_console(**options):
    return Console(file=io.StringIO(), width=120, highlight=False, **options)


def lines_of(console):
    return console.file.getvalue().splitlines()


def make_view(console, clock=None, **options):
    return TrainingView(console, **(dict(total_steps=2000, clock=clock or Clock()) | options))


def test_a_line_has_every_metric_under_its_name():
    console = log_console()
    with make_view(console) as view:
        view.log(250, METRICS)
    header, line = lines_of(console)
    names = ["step", "done", "loss", "valid", "grad", "lr", "ms/step", "tok/s", "causal MFU", "wait", "memory", "left"]
    ends = [header.index(name) + len(name) for name in names]
    cells = [line[start:end].strip() for start, end in zip([0, *ends], ends)]
    assert cells == [
        *("250/2000", "12.5%", "3.2500", "–", "0.812", "9.80e-04"),
        *("812.4", "20.2k", "41.2%", "0.1%", "3.1 GiB", "0:00"),
    ]
    assert len(header) == len(line) <= 110


def test_wide_values_stay_within_120_columns():
    console = log_console()
    with make_view(console, total_steps=1_000_000, convention="full") as view:
        wide = {"train/loss": 1234.56789, "train/gradient_norm": 1.23e-12, "step_milliseconds": 123456.7}
        view.log(999_999, METRICS | wide | {"validation/loss": math.inf, "tokens_per_second": 1.234e8})
    assert max(map(len, lines_of(console))) <= 120


def test_unknown_metrics_are_shown_as_dashes():
    console = log_console()
    with make_view(console) as view:
        view.log(10, METRICS | {"mfu": None, "train/loss": math.nan, "device_memory_bytes": None})
    assert "nan" in lines_of(console)[1] and lines_of(console)[1].count("n/a") == 2


def test_the_validation_loss_is_repeated_in_following_lines():
    console = log_console()
    with make_view(console) as view:
        view.validated(
            250, {"validation/loss": 3.125, "validation/bits_per_byte": 1.1, "validation/perplexity": 22.76}, best=True
        )
        view.log(260, METRICS)
    validation, _, line = lines_of(console)
    assert validation == "› validation at step 250: loss 3.1250, perplexity 22.76, 1.1000 bits per byte, best so far"
    assert " 3.1250 " in line


def test_only_outliers_and_dropped_updates_are_named():
    console = log_console()
    with make_view(console) as view:
        view.log(10, METRICS | {"train/loss_zscore": 5.25, "train/gradient_norm_zscore": 0.3, "train/skipped": 1.0})
        view.log(20, METRICS | {"train/loss_zscore": -9.0, "train/skipped": 0.0})
    assert lines_of(console)[2] == "  loss +5.2σ  skipped" and "σ" not in lines_of(console)[3]


def test_the_header_is_repeated_and_a_log_gets_only_lines():
    console = log_console()
    with make_view(console) as view:
        for step in range(1, 2 * HEADER_EVERY + 1):
            view.advance(step)
            view.log(step, METRICS)
            with view.busy("evaluating"):
                pass
    shown = lines_of(console)
    assert len(shown) == 2 * HEADER_EVERY + 2
    assert [i for i, line in enumerate(shown) if "loss" in line] == [0, HEADER_EVERY + 1]
    assert "\x1b" not in console.file.getvalue()


def test_the_remaining_time_follows_the_speed_since_compiling_and_resuming():
    clock = Clock()
    with make_view(log_console(), clock, total_steps=1000, start_step=400) as view:
        assert view.seconds_left() is None
        clock.now = 60.0
        view.compiled(60.0)
        clock.now = 80.0
        view.advance(440)
        assert view.seconds_left() == pytest.approx(20 / 40 * 560)


def test_terminal_shows_a_status_line_and_clears_it():
    console = Console(file=io.StringIO(), force_terminal=True, width=110, highlight=False, legacy_windows=False)
    with make_view(console, total_steps=100) as view:
        view.advance(50)
        with view.busy("evaluating"):
            view._progress.refresh()
        view.log(50, METRICS)
        view.note("checkpoint [50] saved")
    written = console.file.getvalue()
    assert "50/100" in written and "evaluating" in written and "checkpoint [50] saved" in written
    assert "\x1b[2K" in written  # the status line is erased


def test_consoles_of_other_processes_are_silent_and_logs_are_wide(monkeypatch):
    assert not make_console().quiet
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert make_console().quiet


def planned():
    config = default()
    config.model.update(num_layers=12, width=768, num_heads=12, bias="all", norm="layernorm", feedforward="gelu")
    config.model.update(position="learned", max_positions=1024)
    config.data.sequence_length = 1024
    config.training.update(batch_size=512, duration="1000 steps")
    config.mesh.update(data=2, fsdp=4)
    config.optimizer.update(name="muon", rules=(("embedding", "freeze", True), ("positions", "learning_rate", 0.5)))
    return plan(config, DataFacts(50257), AbstractDevices("gpu", 8, "NVIDIA H200"))


def facts():
    return derived_facts(planned())


def test_settings_show_the_config_and_derived_facts():
    console, made = log_console(), planned()
    print_settings(console, made.config, derived_facts(made))
    shown = console.file.getvalue()
    flat, usual = flatten(made.config), flatten(default())
    differs = {field for field in flat if flat[field] != usual[field]} - IN_FACTS
    for field in differs | ALWAYS_SHOWN:
        assert re.search(rf"\b{field.rpartition('.')[2]} ", shown), field
    hidden = flat.keys() - differs - ALWAYS_SHOWN
    assert f"and {len(hidden)} fields that are at their defaults or follow below (config.json has all)" in shown
    assert "rope_theta" not in shown and len(hidden) > 50
    for text in (
        "seed",
        "124,439,808",
        "524M (4.2 per parameter)",
        "8 × NVIDIA H200",
        "data 2 × fsdp 4",
        "721M per token",
    ):
        assert text in shown
    assert (
        "6N + 6·L·N_heads·H·T - 2·N_frozen" in shown
        and "6N + 12·L·N_heads·H·T" in shown
        and "of 8 × 989 TFLOP/s" in shown
    )
    assert "muon, 84.9M" in shown and "rate × 0.5" in shown and "no gradient changes them: embedding" in shown
    assert max(map(len, lines_of(console))) <= 120 and len(lines_of(console)) <= 40


def test_the_formula_of_the_flops_of_a_family_is_shown():
    config = default()
    config.model.update(family="bag_of_tokens:BagFamily", width=16, num_heads=2)
    shown = derived_facts(plan(config, DataFacts(100), AbstractDevices("gpu", 1, "NVIDIA H200")))
    assert shown["run"]["FLOPs, causal"].endswith("(6·D·V)")


WIDE = METRICS | {"train/loss": 1234.56789, "train/gradient_norm": 1.23e-12, "step_milliseconds": 123456.7}
SCORES = {"validation/loss": 1234.5678, "validation/bits_per_byte": 412.3456, "validation/perplexity": math.inf}


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("width", [80, 100, 140])
def test_at_any_width_no_line_wraps_and_no_value_is_split_into_letters(width, is_terminal):
    console = Console(
        file=io.StringIO(), width=width, force_terminal=is_terminal, color_system=None, legacy_windows=False
    )
    config = default().unlock()
    config.data.path = "data/" + "x" * 50
    print_settings(console, config, facts())
    settings = lines_of(console)
    assert max(map(len, settings)) <= width
    for setting in (
        r"num_layers +6",
        r"learning_rate +0\.001",
        r"batch_size +32",
        r"devices +8 × NVIDIA",
    ):
        assert any(re.search(rf"\b{setting}\b", line) for line in settings), setting
    assert len(settings) < {80: 75, 100: 55, 140: 45}[width]  # values split into letters take hundreds of lines

    lines = Console(file=io.StringIO(), width=width, color_system=None)
    with make_view(lines, total_steps=1_000_000) as view:
        for step, row in (
            (10, METRICS),
            (20, WIDE),
            (999_990, WIDE | {"train/loss_zscore": 9.0, "train/skipped": 1.0}),
        ):
            view.log(step, row)
            view.validated(step, SCORES, best=True)
    shown = lines_of(lines)
    assert max(map(len, shown)) <= width, shown
    headers = [line for line in shown if line.lstrip().startswith("step")]
    assert all(("memory" in line) == (width >= 140) and "loss" in line for line in headers)
    assert any("σ" in line for line in shown) and any("skipped" in line for line in shown)


def summed_up(steps, clock):
    throughput = Throughput(1000, clock=clock)
    with throughput.pause("compile"):
        clock.now += 20
    throughput.count(steps)
    clock.now += 2
    throughput.lap()
    with throughput.pause("checkpoint"):
        clock.now += 0.01
    scored = {"validation/loss": 3.1, "validation/bits_per_byte": 1.12} if steps else {}
    return run_summary(
        throughput,
        step=steps,
        tokens=steps * 1000,
        mfu=0.41 if steps else math.nan,
        peak=Peak(1e11, "of measured matmul peak, 100 GFLOP/s ± 3%"),
        convention="causal",
        memory=Memory(2**30, 2**31, None, "host"),
        train_loss=3.0 if steps else None,
        validation=scored,
        best=3.05 if steps else None,
    )


@pytest.mark.parametrize("steps", [0, 1, 123])
@pytest.mark.parametrize("width", [80, 100, 140, None])
def test_the_summary_has_a_line_for_each_result_however_early_a_run_ends(width, steps):
    console = log_console() if width is None else Console(file=io.StringIO(), width=width, color_system=None)
    summary = summed_up(steps, Clock())
    print_summary(console, f"stopped by SIGINT at step {steps}, checkpoint saved", summary)
    blank, title, *lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert (blank, title) == ("", f"stopped by SIGINT at step {steps}, checkpoint saved")
    assert len(lines) == len(summary)
    for line, (name, value) in zip(lines, summary.items()):
        assert line.startswith(f"{name} ") and line.endswith(f" {value}") and len(line) <= (width or 120)
    assert not re.search(r"\bnan\b|n/a|inf", console.file.getvalue())
    assert ("speed" in summary) == ("waiting for data" in summary) == (steps > 0)
    assert summary["time"] == "0:22 (training 0:02, compile 0:20)"


TERMINAL = """
import jax
from gptjax.config import default
from gptjax.training.records.console import TrainingView, make_console
from gptjax.runs.shown_settings import print_settings
console = make_console()
print_settings(console, default(), {})
with TrainingView(console, 1000) as view:
    for step in (10, 20):
        view.log(step, {"train/loss": 3.0, "learning_rate": 1e-3, "tokens_per_second": 1e4, "device_memory_bytes": 2e9})
"""


@pytest.mark.parametrize("columns", [80, 140])
def test_a_real_terminal_gives_its_width(columns):
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (50, columns))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL], stdout=follower, stderr=follower, env=environment | {"TERM": "xterm"}
    )
    os.close(follower)
    received = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while data := os.read(leader, 65536):
            received += data
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", received.decode()).replace("\r", "\n")
    lines = [line.rstrip() for line in text.split("\n")]
    assert columns - 40 < max(map(len, lines)) <= columns
    (header,) = [line for line in lines if line.lstrip().startswith("step")]
    assert ("memory" in header) == (columns == 140) and "tok/s" in header


def test_summary_accounts_for_the_time():
    clock = Clock()
    throughput = Throughput(1000, clock=clock)
    with throughput.pause("compile"):
        clock.now += 20
    throughput.count(50)
    clock.now += 100
    throughput.lap()
    summary = run_summary(
        throughput,
        step=50,
        tokens=50_000,
        mfu=0.41,
        peak=Peak(1e14, "of 100 TFLOP/s"),
        convention="causal",
        memory=Memory(2**30, 2**31, None, "device"),
        train_loss=3.0,
        validation={"validation/loss": 3.1, "validation/bits_per_byte": 1.12},
        best=3.05,
    )
    console = log_console()
    print_summary(console, "finished", summary)
    assert summary["time"] == "2:00 (training 1:40, compile 0:20)"
    assert summary["speed"] == "500 tokens/s, 2000.0 ms per step"
    assert summary["utilization"] == "41.0% of 100 TFLOP/s (causal FLOPs)"
    assert summary["validation loss"] == "3.1000 (best 3.0500)"
    assert all(text in console.file.getvalue() for text in ["finished", *summary, *summary.values()])
