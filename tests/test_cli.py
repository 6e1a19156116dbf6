"""A user's mistake ends in one line and exit code 2."""

from pathlib import Path

import pytest
from commands import run_command, typed_command

from gptjax import cli
from gptjax.config import ConfigError

REPOSITORY = Path(__file__).parent.parent


def train(*arguments, command="train"):
    return run_command(command, *arguments)


def test_run_command_is_the_command_as_it_is_typed():
    """What the tests here and elsewhere take for `python -m gptjax.train`."""
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
def test_mistakes_end_in_one_line(arguments, message):
    result = train(*arguments)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert message in result.stderr


def test_a_config_file_that_fails_says_why(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config():\n    return 1 / 0\n")
    result = train(f"--config={broken}", "--workdir=w")
    assert result.returncode == 2
    assert result.stderr == f"error: {broken}, line 2: ZeroDivisionError: division by zero\n"


def test_a_flag_that_is_no_number_is_refused():
    result = train("sweep.py", "--workdir=w", "--peak_tflops=nan", command="sweep")
    assert (result.returncode, result.stderr) == (2, "error: --peak_tflops=nan: must be a finite number\n")


def test_help_tells_the_flags_and_exits_with_0():
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
def test_escapes_are_pythons(text, value):
    assert cli.unescaped("--stop", text) == value


@pytest.mark.parametrize("text", ["\\", r"\d", r"\x4", r"\u12", r"\U00110000", r"\N{DASH}"])
def test_what_is_no_escape_is_refused(text):
    with pytest.raises(ConfigError, match=r"--stop = .*is not an escape"):
        cli.unescaped("--stop", text)
