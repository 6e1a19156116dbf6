"""The rooms of the package import one another in one direction, also where a function imports late."""

import ast
import functools
from pathlib import Path

import pytest

from gptjax.__main__ import COMMANDS

PACKAGE = Path(__file__).parents[1] / "gptjax"

# From the top to the ground. A module imports from its own room and from the lines below its own, never from its own
# line or one above it. Modules of the package that stand on no line are the ground and may be imported by all.
LINES = (
    {*COMMANDS},
    {"trained_model", "training_run", "chat_terminal"},
    {"sweeping", "reporting", "roads"},
    {"interop", "forecast"},
    {"training, planning"},  # one room: a plan is made of the parts of training, and training follows its plan
    {"evaluation", "serving"},
    {"corpus", "inference"},
    {"cli, flag_messages, command_help, __main__"},
    {"command_flags"},
    {"conversation"},
    {"parallel", "tokenizer", "cluster", "scaling"},
    {"model", "data"},
)
LINE_OF = {room: line for line, rooms in enumerate(LINES) for names in rooms for room in names.split(", ")}
ROOM_OF = {room: names for rooms in LINES for names in rooms for room in names.split(", ")}

# Libraries that a room does without, so that it can be read, tested and run without them.
WITHOUT = {
    "model": {"optax", "orbax", "grain"},
    "data": {"jax", "flax", "optax", "orbax"},
    "corpus": {"jax", "flax", "optax", "orbax", "grain"},
    "conversation": {"jax", "flax", "optax", "orbax", "grain"},
    "tokenizer": {"jax", "flax", "optax", "orbax", "grain"},
    "inference": {"optax", "orbax"},
    "serving": {"optax", "orbax"},
}


@functools.cache
def imported(path: Path) -> tuple[str, ...]:
    """The names of the modules that a file imports, each as it is written: gptjax.model.norm, jax.numpy, …"""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "gptjax":
            names += [f"gptjax.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return tuple(names)


def files_of(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]


def rooms() -> list[str]:
    return sorted({path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")})


@pytest.mark.parametrize("room", rooms())
def test_a_room_imports_only_from_rooms_below_it(room):
    line = LINE_OF.get(room, len(LINES))
    own = ROOM_OF.get(room, room)
    wrong = []
    for path in files_of(room):
        for name in imported(path):
            other = name.split(".")[1] if name.startswith("gptjax.") else room
            on_ground = other not in LINE_OF
            if ROOM_OF.get(other, other) != own and not on_ground and LINE_OF[other] <= line:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


@pytest.mark.parametrize("room", sorted(WITHOUT))
def test_a_room_does_without_the_libraries_that_are_not_its_own(room):
    found = {(path.name, name) for path in files_of(room) for name in imported(path)}
    assert not [(file, name) for file, name in found if name.split(".")[0] in WITHOUT[room]]


def test_every_folder_of_the_package_stands_on_a_line_and_every_name_on_a_line_exists():
    folders = {path.parent.name for path in PACKAGE.glob("*/*.py")}
    assert folders <= set(LINE_OF) <= set(rooms())
