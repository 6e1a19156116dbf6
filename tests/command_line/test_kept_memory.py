"""Freed memory is reused without page faults, and by steps that wait for each other."""

import os
import platform
import subprocess
import sys

import pytest

import gptjax

PROGRAM = """
import resource, sys
import numpy as np
from gptjax.command_line.kept_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(64 * 2**20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


AT_EXIT = """
import atexit, ctypes, os, threading
def report(path=os.environ["REPORT"].encode()):
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    file = ctypes.c_void_p(libc.fopen(path, b"w"))
    libc.malloc_info(0, file)
    libc.fclose(file)
atexit.register(report)
"""
of_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")


@of_glibc
def test_a_freed_block_of_memory_is_reused():
    def faults_of_a_second_block(mode):
        done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults_of_a_second_block("keep") < 10 < faults_of_a_second_block("leave")


IN_TURN = """
import sys
import jax, jax.numpy as jnp
from gptjax.command_line.runtime import run_in_turn
if sys.argv[1] == "in turn":
    run_in_turn()
x = jnp.ones((2000, 2000))
multiply = jax.jit(lambda x: jax.lax.fori_loop(0, 5, lambda _, y: y @ x / 2000, x)).lower(x).compile()
print(multiply(x).is_ready())
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize(("way", "ready"), [("in turn", True), ("ahead", False)])
def test_steps_on_processors_wait_for_the_ones_before_them(way, ready):
    done = subprocess.run([sys.executable, "-c", IN_TURN, way], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(ready)


@pytest.mark.exhaustive
def test_gptjax_train_runs_its_steps_in_turn(tmp_path):
    at_exit = "import atexit, jax\natexit.register(lambda: print(jax.config.values['jax_cpu_enable_async_dispatch']))"
    (tmp_path / "sitecustomize.py").write_text(at_exit)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    config = ["--config=configs/text_tiny.py", "--config.data.path=missing", f"--workdir={tmp_path}/run"]
    command = [sys.executable, "-m", "gptjax.train", *config]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "False\n") and "data.path" in done.stderr


@of_glibc
@pytest.mark.exhaustive
@pytest.mark.parametrize(("command", "heaps"), [("train", 1), ("plan", 2)])
def test_a_process_that_trains_has_one_heap_for_all_of_its_threads(command, heaps, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(AT_EXIT)
    folders = [str(tmp_path), os.getcwd()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "REPORT": str(tmp_path / "heaps.xml")}
    subprocess.run([sys.executable, "-m", f"gptjax.{command}", "--help"], env=environment, check=True)
    found = (tmp_path / "heaps.xml").read_text().count("<heap nr")
    assert found == 1 if heaps == 1 else found >= heaps


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        ("python -m gptjax.train --config=a", "train"),
        ("python -X dev -m gptjax train --config=a", "train"),
        ("python /bin/gptjax train", "train"),
        ("python -m gptjax", ""),
        ("python /bin/gptjax", ""),
        ("python -m pytest train", None),
        ("python train", None),
        ("python", None),
    ],
)
def test_the_command_is_known_before_anything_else_is_imported(typed, command):
    assert gptjax._command(typed.split()) == command
