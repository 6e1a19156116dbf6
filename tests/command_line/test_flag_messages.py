"""An invalid flag ends in one sentence: the flag as typed, its value, and what is allowed."""

import ast
import contextlib
import importlib
import io
import sys
from pathlib import Path
from unittest import mock

import pytest
from commands import REPOSITORY, run_command

import gptjax
from gptjax.command_line import cli
from gptjax.command_line.commands import COMMANDS
from gptjax.config import default, flatten

TINY = f"--config={REPOSITORY}/configs/stdlib_tiny.py"
WRONG = {  # kind of flag → values that it cannot have
    "integer": ["many", "", "1.5", "1e3", "-1e9"],
    "float": ["hot", "", "1,5", "nan", "-inf"],
    "enum": ["no such choice", ""],
    "bool": ["maybe", ""],
    "list": ['"a'],
}


def refused(command, *arguments):
    """The error with which a command ends."""
    result = run_command(command, *arguments)
    return sentence_of(result.returncode, result.stdout, result.stderr)


def refused_here(command, *arguments):
    """The same, parsed in this process, for the hundreds of flags and fields."""
    module, out, err = importlib.import_module(f"gptjax.{command}"), io.StringIO(), io.StringIO()
    argv = [command, *arguments]  # --config.FIELD is looked for in sys.argv
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.object(sys, "argv", argv):
        with pytest.raises(SystemExit) as ended:
            cli._parse_flags(module.main, module.flags, 0, argv)
    return sentence_of(ended.value.code, out.getvalue(), err.getvalue())


def sentence_of(status, out, err):
    assert (status, out) == (2, ""), err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    return err.removeprefix("error: ").rstrip("\n")


def flags_of(command):
    """(kind, name) of every flag that a command's source defines."""
    source = (Path(gptjax.__file__).parent / f"{command}.py").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("flags.DEFINE_"):
            yield ast.unparse(node.func).removeprefix("flags.DEFINE_"), node.args[0].value


ALL_FLAGS = [(command, kind, name) for command in COMMANDS for kind, name in flags_of(command)]


@pytest.mark.parametrize("command, kind, name", [each for each in ALL_FLAGS if each[1] in WRONG])
def test_every_flag_of_every_command_refuses_values_of_another_kind(command, kind, name):
    for value in WRONG[kind]:
        sentence = refused_here(command, f"--{name}={value}")
        assert sentence.startswith(f"--{name}={value}: must be "), sentence
        assert not any(word in sentence for word in ("literal", "convert", "flag ", "(see", "('")), sentence


def test_every_kind_of_flag_is_covered():
    assert {kind for _, kind, _ in ALL_FLAGS} == {*WRONG, "string", "multi_string"}  # these accept any text
    assert len(ALL_FLAGS) > 50


@pytest.mark.parametrize(
    "command, arguments, sentence",
    [
        ("sample", ["--max_new_tokens=many"], "--max_new_tokens=many: must be a positive integer"),
        ("sample", ["--temperature=hot"], "--temperature=hot: must be a number"),
        ("sample", ["--stream=maybe"], "--stream=maybe: must be true or false"),
        (
            "sample",
            ["--weights=int4"],
            "--weights=int4: must be one of float32, bfloat16, int8; did you mean int8?",
        ),
        ("prepare", ["--workers=-1"], "--workers=-1: must be a non-negative integer"),
        ("train", ["--flagfile=nowhere"], "--flagfile: cannot be read (No such file or directory)"),
        ("sample", ["--workdir"], "--workdir: its value is missing; write --workdir=VALUE"),
        (
            "train",
            ["--config", "--workdir=w"],
            "--config: its value is missing; write --config=VALUE, or --config=--workdir=w if that is its value",
        ),
        ("sample", ["--nostream=1"], "--nostream=1: --nostream takes no value; write --nostream or --stream=1"),
    ],
)
def test_the_message_says_what_is_allowed(command, arguments, sentence):
    assert refused(command, *arguments) == refused_here(command, *arguments) == sentence


@pytest.mark.parametrize(
    "kind, value, allowed",
    [
        (int, "wide", "an integer"),
        (int, "", "an integer"),
        (int, "1.5", "an integer"),
        (float, "fast", "a number"),
        (bool, "maybe", "true or false"),
        (tuple, "(1,", "a tuple as Python writes it"),
    ],
)
def test_the_message_for_a_config_field_says_what_is_allowed(kind, value, allowed):
    fields = [field for field, default_value in flatten(default()).items() if type(default_value) is kind]
    assert fields
    for field in fields:
        sentence = refused_here("train", TINY, "--workdir=w", f"--config.{field}={value}")
        assert sentence.startswith(f"--config.{field}={value}: must be {allowed}"), sentence


@pytest.mark.parametrize(
    "command, argument, sentence",
    [
        ("train", "--config.model.width=wide", "--config.model.width=wide: must be an integer (at least 1)"),
        ("train", "--config.model.width", "--config.model.width: its value is missing; write"),
        ("train", "--config.model.tied_embeddings=maybe", "--config.model.tied_embeddings=maybe: must be true or"),
        ("train", "--noconfig.model.tied_embeddings=1", "--noconfig.model.tied_embeddings=1: --noconfig.model.tied_em"),
        ("train", "--noconfig.model.wdith", "--config.model.wdith: unknown field; did you mean model.width?"),
        ("train", "--config.model=3", "--config.model: is a section; name one of its fields, such as --config.model."),
        ("train", "--confg.model.width=3", "--confg.model.width: unknown flag; did you mean --config.model.width?"),
        ("train", "--confg.seed=3", "--confg.seed: unknown flag; did you mean --config.seed?"),
        ("train", "--model.width=3", "--model.width: unknown flag; did you mean --config.model.width?"),
        ("train", "--batch_size=3", "--batch_size: unknown flag; did you mean --config.training.batch_size?"),
        ("train", "--confg=configs/stdlib_tiny.py", "--confg: unknown flag; did you mean --config?"),
        ("train", "--wrkdir=w", "--wrkdir: unknown flag; did you mean --workdir?"),
        ("train", "--zebra=w", "--zebra: unknown flag (--help lists all)"),
        ("sample", "--nosteam", "--nosteam: unknown flag; did you mean --nostream?"),
        ("sample", "--config.seed=3", "--config.seed: unknown flag"),
        ("prepare", "--tokenizer.name=bpe", "--tokenizer.name: unknown flag; did you mean --config.tokenizer.name?"),
    ],
)
def test_the_most_similar_flag_or_field_is_suggested(command, argument, sentence):
    config = [TINY, "--workdir=w"] if command == "train" else []
    assert refused(command, *config, argument).startswith(sentence)


def test_after_two_dashes_nothing_is_a_flag():
    assert refused("compare", "--", "--wrkdir=w").startswith("RUN = --wrkdir=w: ")
