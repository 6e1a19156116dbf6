"""A user's mistake ends with one line and exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import run_command, typed_command

from gptjax.command_line import cli
from gptjax.config import ConfigError

REPOSITORY = Path(__file__).parents[2]


def train(*arguments, command="train"):
    return run_command(command, *arguments)


def test_run_command_equals_the_command_as_typed():
    """The command line that tests use for `python -m gptjax.train`."""
    arguments = ["--config=configs/nothing.py", "--workdir=w"]
    typed, found = typed_command("train", *arguments), run_command("train", *arguments)
    assert (found.returncode, found.stdout, found.stderr) == (typed.returncode, typed.stdout, typed.stderr)


TINY = "--config=configs/stdlib_tiny.py"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--config is missing"),
        ([TINY], "--workdir is missing"),
        ([TINY, "--workdir=w", "--config.model.wdith=3"], "unknown field; did you mean model.width?"),
        ([TINY, "--workdir=w", "--config.model.width=wide"], "--config.model.width=wide"),
        (["--config=configs/nothing.py", "--workdir=w"], "there is no file configs/nothing.py"),
        (["--config=configs/gpt2.py:13b", "--workdir=w"], "expected one of 124m, 350m, 774m, 1558m"),
        ([TINY, "--workdir=w", "--config.data.path=nowhere"], "'nowhere'"),
        ([TINY, "--workdir=w", "--confg.seed=1"], "--confg.seed: unknown flag; did you mean --config.seed?"),
        ([TINY, "--workdir=w", "again"], "unexpected argument 'again'"),
        ([TINY, "--workdir=w", "--num_processes=2"], "missing: --coordinator, --process_id"),
    ],
)
def test_user_errors_end_in_one_line(arguments, message):
    result = train(*arguments)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert message in result.stderr


def test_an_error_in_a_config_file_is_reported(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config():\n    return 1 / 0\n")
    result = train(f"--config={broken}", "--workdir=w")
    assert result.returncode == 2
    assert result.stderr == f"error: {broken}, line 2: ZeroDivisionError: division by zero\n"


def test_a_flag_that_is_not_a_number_is_refused():
    result = train("sweep.py", "--workdir=w", "--peak_tflops=nan", command="sweep")
    assert (result.returncode, result.stderr) == (2, "error: --peak_tflops=nan: must be a finite number\n")


def test_help_lists_the_flags_and_exits_with_0():
    result = typed_command("train", "--help")
    assert result.returncode == 0
    assert all(flag in result.stdout for flag in ("--config", "--workdir", "--coordinator"))


@pytest.mark.parametrize(
    "text, value",
    [
        (r"\n\t\\\x41\u00e9\101é", "\n\t\\A\u00e9Aé"),
        (r"\\newcommand '\'' \"", "\\newcommand ''' \""),
        ("plain – text\n", "plain – text\n"),
    ],
)
def test_escapes_are_those_of_python(text, value):
    assert cli.unescaped("--stop", text) == value


@pytest.mark.parametrize("text", ["\\", r"\d", r"\x4", r"\u12", r"\U00110000", r"\N{DASH}"])
def test_invalid_escapes_are_refused(text):
    with pytest.raises(ConfigError, match=r"--stop=.*is not an escape"):
        cli.unescaped("--stop", text)


TOGETHER = """
import importlib, sys
from gptjax.command_line import cli
from gptjax.command_line.commands import COMMANDS

modules = {name: importlib.import_module(f"gptjax.{name}") for name in COMMANDS}
for line in sys.stdin.read().splitlines():
    name, *arguments = line.split()
    sys.argv = [name, *arguments]
    try:
        cli.run(modules[name].main, modules[name].flags)
    except SystemExit as end:
        print(f"exit {end.code}", file=sys.stderr, flush=True)
"""


def test_commands_run_one_after_another_in_one_process(tmp_path):
    """Each has its own flags: values from an earlier start are forgotten."""
    starts = [
        f"train {TINY} --config.model.width=96 --workdir={tmp_path}/w --config.data.path=x",
        f"train {TINY} --config.model.num_heads=7",
        f"prepare --input={tmp_path}/nothing --output={tmp_path}/o --workers=1",
        f"sample --workdir={tmp_path}/none --seed=3 --prompt=a",
        "compare --help",
        "train",
    ]
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER], input="\n".join(starts), text=True, capture_output=True, cwd=REPOSITORY
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 11, done.stderr
    assert [line for line in lines if line.startswith("exit")] == ["exit 2"] * 4 + ["exit 0", "exit 2"]
    for line, message in zip(
        [line for line in lines if line.startswith("error")],
        ["--config.data.path='x'", "--workdir is missing", "nothing", "none", "--config is missing"],
    ):
        assert message in line
    assert "Flags:\n  --plot=…" in done.stdout and "RUN" in done.stdout.partition("Flags:")[0]
