"""gptjax COMMAND: the list of commands, their help, and user errors in one sentence."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run_command

from gptjax.command_line.commands import COMMANDS

PACKAGE = Path(__file__).parents[1] / "gptjax"


def gptjax(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "gptjax", *arguments],
        cwd=PACKAGE.parent,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_exactly_the_commands_are_listed():
    files = {path.stem for path in PACKAGE.glob("*.py") if "cli.run(main, flags" in path.read_text()}
    assert files == set(COMMANDS)
    done = gptjax()
    assert done.returncode == 0 and done.stdout == gptjax("--help").stdout
    assert all(f"  {name} " in done.stdout and what in done.stdout for name, what in COMMANDS.items())


@pytest.mark.parametrize("arguments", [[], ["--version"]])
def test_closed_output_is_no_error(arguments):
    reader, unread = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "gptjax", *arguments]
    done = subprocess.run(command, cwd=PACKAGE.parent, stdout=unread, stderr=subprocess.PIPE, timeout=120)
    os.close(unread)
    assert (done.returncode, done.stderr) == (0, b"")


def test_versions_and_user_errors():
    assert re.match(r"gptjax \S+.*, jax \d+\.\d+.*, Python 3\.\d+", gptjax("--version").stdout)
    done = gptjax("trian", "--workdir=w")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: 'trian' is not a command; did you mean train? (gptjax --help lists them)\n"


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["prepare", "trace", "--workdir=w"], "'trace': trace is a separate command; did you mean "),
        (["train", "smaple"], "'smaple': sample is a separate command; did you mean "),
        (["--workdir=w", "train"], "error: --workdir=w: options follow the command; did you mean gptjax train --work"),
    ],
)
def test_a_command_in_another_place_is_recognised(arguments, said):
    done = gptjax(*arguments)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr and done.stderr.count("\n") == 1


STARTS = """
import os, signal, sys, threading, time
sys.orig_argv[1:] = {typed}
import gptjax
if {in_main}:
    from gptjax.command_line import cli
    def main(argv):
        threading.Thread(target=time.sleep, args=(300,)).start()  # as libraries' threads, which a shutdown waits for
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    cli.run(main)
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize(
    "typed, in_main, status, said",
    [
        (["-m", "gptjax.train"], False, -signal.SIGINT, ""),
        (["/bin/gptjax", "train"], False, -signal.SIGINT, ""),
        (["-m", "gptjax", "train"], True, 130, "interrupted\n"),
        (["-m", "mine"], False, -signal.SIGINT, "KeyboardInterrupt"),  # another program that imports gptjax
    ],
)
def test_ctrl_c_at_any_moment_of_the_start_prints_no_traceback(typed, in_main, status, said):
    code = STARTS.format(typed=typed, in_main=in_main)
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == status
    assert said in done.stderr if typed[1] == "mine" else done.stderr == said


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_help_lists_the_flag_of_the_run_first_and_no_path_of_this_machine(name):
    done = run_command("__main__", name, "--help", imported=tuple(COMMANDS), COLUMNS="100")
    assert done.returncode == 0, done.stderr
    listed = re.findall(r"^  --(?:\[no\])?(\w+)", done.stdout.partition("Flags:")[2], re.MULTILINE)
    first = {
        "prepare": ["input", "output", "config"],
        "compare": ["plot"],
        "plan": ["config", "hardware", "price", "json", "plot", "hours"],
        "import": ["input", "output"],
    }.get(name, ["workdir"])
    assert listed[: len(first)] == first and len(set(listed)) == len(listed) >= 3
    assert ("\n\nWhat to train" in done.stdout) == (name == "plan")  # a group of flags
    assert str(PACKAGE.parent) not in done.stdout and sys.prefix not in done.stdout
    assert max(map(len, done.stdout.partition("Flags:")[2].splitlines())) <= 100


@pytest.mark.parametrize(
    ("name", "arguments"),
    [(name, []) for name in ("sample", "evaluate", "classify", "adapter", "trace", "export")]
    + [("serve", ["--host=0.0.0.0"]), ("chat", ["--top_p=3"]), ("report", ["--license=mit"])],
)
def test_a_missing_run_is_the_first_mistake_that_a_command_names(name, arguments):
    done = run_command("__main__", name, "--workdir=nowhere", *arguments, imported=tuple(COMMANDS))
    said = "error: --workdir=nowhere: must be the folder of a run; there is no such folder\n"
    assert done.returncode == 2 and done.stderr.endswith(said) and done.stderr.count("error:") == 1


def test_a_command_behaves_like_its_module():
    done = gptjax("train", "--config=configs/text_tiny.py", "--workdir=w", "--config.data.path=nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --config.data.path='nowhere': no such folder ("), done.stderr
    assert done.stderr.count("\n") == 1
