"""The pages of experiments/from_scratch are correct: links, named functions, commands with flags, and snippets."""

import argparse
import ast
import importlib
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from absl import flags as absl_flags

from gptjax.config import ConfigError, to_json, validate
from gptjax.config.user_code import call_in_file
from gptjax.model.families import validate_model
from gptjax.settings import Settings
from gptjax.sweeping import Sweep

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "experiments" / "from_scratch"
PAGES = sorted(FOLDER.glob("*.md"))
OF_PAGES = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(page: Path) -> list[list[str]]:
    """The words of every command of a page."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


COMMANDS = [pytest.param(words, id=f"{page.stem}-{i}") for page in PAGES for i, words in enumerate(commands(page))]


def names_in(path: Path) -> set[str]:
    """What a Python file defines on its top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = (node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign))
    targets = [t for node in assigned for t in (node.targets if isinstance(node, ast.Assign) else [node.target])]
    return defined | {target.id for target in targets if isinstance(target, ast.Name)}


def wrong_links(page: Path) -> list[str]:
    wrong = []
    for text, target in re.findall(r"\[([^]]+)\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        path = page.parent / target
        if "://" in target:
            continue
        name = re.fullmatch(r"`(\w+)`", text)
        if not path.exists() or (name and path.suffix == ".py" and name[1] not in names_in(path)):
            wrong.append(f"{text} → {target}")
    return wrong


@OF_PAGES
def test_links_have_targets_which_define_what_is_named(page):
    assert not wrong_links(page)


def test_a_name_that_a_file_does_not_define_is_found(tmp_path):
    (tmp_path / "code.py").write_text("def here(): pass\nX = 1\n")
    page = tmp_path / "page.md"
    page.write_text("[`here`](code.py) [`X`](code.py) [text](code.py) [`gone`](code.py) [file](no.py)")
    assert wrong_links(page) == ["`gone` → code.py", "file → no.py"]


def test_every_page_and_picture_is_in_the_index_and_small():
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert not [page.name for page in PAGES if page.name != "README.md" and f"({page.name})" not in index]
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = list(FOLDER.glob("*.png"))
    assert not [path.name for path in pictures if f"({path.name})" not in text or path.stat().st_size > 60_000]


class Parsed(Exception):
    """Raised by a script's parser after its flags, so that the script does not begin to work."""


def check_script(words: list[str], monkeypatch) -> None:
    """Parses the flags of a script with its own parser."""

    def parse(parser, *arguments):
        original(parser, *arguments)
        raise Parsed

    original = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(sys, "argv", words)
    code = Path(words[0]).read_text(encoding="utf-8")
    if "import cli\n" in code:
        return check_flags(importlib.import_module(Path(words[0]).stem), words[1:], monkeypatch)
    if "argparse" not in code:  # its main takes the words of the command
        (main,) = (node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef) and node.name == "main")
        assert len(words[1:]) == len(main.args.args)
        return None
    with pytest.raises(Parsed):
        runpy.run_path(words[0], run_name="__main__")


def check_flags(module, arguments: list[str], monkeypatch) -> None:
    """Parses the flags of a command, and checks the config and the sweep that they name."""
    monkeypatch.setattr(sys, "argv", ["command", *arguments])  # ml_collections looks there for overridden fields
    rest = module.flags.parse(sys.argv)[1:]
    config = module.flags.values["config"].value if "config" in module.flags.values else None
    if config is not None and "model" in config:
        validate(config)
        validate_model(config)
    if module.__name__ == "gptjax.sweep":
        assert call_in_file(rest[0], "get_sweep", Sweep).points
    elif module.__name__ != "gptjax.compare":
        assert rest == []


@pytest.fixture
def started_runs(tmp_path, monkeypatch):
    """The project's files, and a folder for each run that a config of the pages goes on from."""
    for folder in ("configs", "experiments"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    settings = replace(Settings().model, num_kv_heads=6, head_width=64, vocab_size=300, max_positions=256)
    for name in {name for page in PAGES for name in re.findall(r"\.py:(runs/\w+)", page.read_text(encoding="utf-8"))}:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(to_json(replace(Settings(), model=settings)))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("words", COMMANDS)
def test_commands_exist_and_take_their_flags(words, monkeypatch, started_runs):
    assert words[0] == "python"
    if words[1] == "-m":
        check_flags(importlib.import_module(words[2]), words[3:], monkeypatch)
    else:
        check_script(words[1:], monkeypatch)


def test_a_flag_that_a_command_does_not_have_is_found(monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in (
        ["experiments/from_scratch/windows.py", "--lenght=4"],
        ["experiments/from_scratch/sizes.py", "--x=1"],
    ):
        with pytest.raises((SystemExit, absl_flags.Error)):
            check_script(words, monkeypatch)
    with pytest.raises((AttributeError, absl_flags.Error)):
        train = importlib.import_module("gptjax.train")
        check_flags(train, ["--config=configs/gpt2.py:124m", "--config.model.widht=3"], monkeypatch)
    with pytest.raises(ConfigError):
        check_flags(train, ["--config=configs/gpt2.py:124m", "--config.model.norm=none"], monkeypatch)


@OF_PAGES
def test_snippets_run_as_written(page):
    names: dict = {}
    for snippet in blocks(page, "python"):
        exec(snippet, names)  # trusted text


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder in which the commands of the pages can be typed, with small files in place of the book's data."""
    for name in ("from_scratch", "classification"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(FOLDER.with_name(name), tmp_path / "experiments" / name, ignore=ignored)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name in ("the-verdict.txt", "stories.txt"):
        shutil.copy(ROOT / "LICENSE", tmp_path / name)
    messages = [f"ham\tsee you at {i}\nspam\twin {i} pounds now\n" for i in range(60)]
    (tmp_path / "SMSSpamCollection").write_text("".join(messages))
    rows = [
        {
            "instruction": f"Add one to {i}.",
            "input": "",
            "output": f"{i + 1}.",
            "chosen": f"{i + 1}.",
            "rejected": "I do not know.",
        }
        for i in range(60)
    ]
    for name in ("instruction-data.json", "instruction-data-with-preference.json"):
        (tmp_path / name).write_text(json.dumps(rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("script", ["tokenizer.py", "windows.py", "gpt.py"])
def test_cheap_commands_run(script, workplace, monkeypatch, capsys):
    every = [words for page in PAGES for words in commands(page) if words[1].endswith(f"/{script}")]
    assert every
    monkeypatch.setattr(sys, "argv", every[0][1:])
    runpy.run_path(every[0][1], run_name="__main__")
    wanted = {"tokenizer.py": "'Jack gave it up'", "windows.py": "windows of 4 tokens", "gpt.py": "124,439,808"}
    assert wanted[script] in capsys.readouterr().out


SHORT = {  # flags that make a command short
    "gptjax.train": ("--config.training.duration=6 steps", "--config.checkpoint.every=3 steps"),
    "gptjax.sweep": ("--dry_run",),
    "gptjax.sample": ("--max_new_tokens=8",),
    "kv_cache.py": ("--layers=1", "--width=64", "--new=8"),
    "pretraining.py": ("--epochs=1", "--width=64", "--layers=1", "--length=64"),
}
EVERY = (  # of training, where a config evaluates and samples once per epoch
    "--config.evaluation.every=3 steps",
    "--config.evaluation.sample_every=",
)
SMALL = ("--config.model.num_layers=2", "--config.model.width=64", "--config.model.num_heads=2")


@pytest.mark.exhaustive
def test_every_command_of_the_pages_runs_in_order(workplace):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for page in PAGES:
        for _, *words in commands(page):
            name = words[1] if words[0] == "-m" else Path(words[0]).name
            more = SHORT.get(name, ()) + (EVERY if name == "gptjax.train" else ())
            more += SMALL if any(word.endswith(":124m") for word in words) and name == "gptjax.train" else ()
            done = subprocess.run([sys.executable, *words, *more], env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{page.name}: {shlex.join([*words, *more])}\n{done.stdout}\n{done.stderr}"
