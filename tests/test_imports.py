"""The rooms of the package import one another in one direction, and its files never in a circle. An import inside a
function, or for types alone, counts like any other."""

import ast
import functools
import graphlib
import re
from pathlib import Path

import pytest

from gptjax.command_line.commands import COMMANDS

PACKAGE = Path(__file__).parents[1] / "gptjax"

# From the top to the ground. A file imports from its own room and from the lines below its own, never from another room
# of its line or one above it. errors.py is the ground: all may import it, and it imports nothing. The package's own
# __init__.py stands on no line: it runs before all others, and imports what must happen before JAX is imported.
LINES = (
    {*COMMANDS, "__main__"},
    {"sweeping", "reporting", "roads"},
    {"runs"},
    {"interop", "forecast"},
    {"planning"},
    {"training"},
    {"evaluation", "serving"},
    {"corpus", "inference"},
    {"command_line"},
    {"conversation"},
    {"parallel", "tokenizer", "cluster", "scaling"},
    {"model", "data"},
    {"config"},
    {"settings", "display"},
    {"files"},
)
LINE_OF = {room: line for line, rooms in enumerate(LINES) for room in rooms} | {"errors": len(LINES)}

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


def module_of(path: Path) -> str:
    """gptjax/model/norm.py → gptjax.model.norm"""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


@functools.cache
def imported(path: Path) -> tuple[str, ...]:
    """The modules that a file imports. For `from a import b`: a.b if this is a module of the package, and else a."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [name if name in MODULES else str(node.module) for name in whole]
    return tuple(names)


def files_of(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]


def rooms() -> list[str]:
    return sorted({path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES.values()} - {"__init__"})


def folders() -> list[str]:
    """All rooms, and the rooms inside them: 'corpus', 'corpus/stages' …"""
    return sorted(path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*/__init__.py"))


@pytest.mark.parametrize("room", rooms())
def test_a_room_imports_only_from_rooms_below_it(room):
    wrong = []
    for path in files_of(room):
        for name in imported(path):
            other = name.split(".")[1] if name.startswith("gptjax.") else room
            if other != room and LINE_OF[other] <= LINE_OF[room]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


@pytest.mark.parametrize("room", sorted(WITHOUT))
def test_a_room_does_without_the_libraries_that_are_not_its_own(room):
    found = {(path.name, name) for path in files_of(room) for name in imported(path)}
    assert not [(file, name) for file, name in found if name.split(".")[0] in WITHOUT[room]]


def test_every_file_at_the_top_is_a_command_and_everything_else_is_in_a_room_on_a_line():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {*COMMANDS, "__init__", "__main__", "errors"}
    assert set(rooms()) == set(LINE_OF)


def test_no_files_import_one_another_in_a_circle():
    graph = {module: {*imported(path)} - {module} for module, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the files


@pytest.mark.parametrize("room", folders())
def test_the_map_of_a_room_names_all_of_its_files_and_inner_rooms(room):
    text = (PACKAGE / room / "__init__.py").read_text(encoding="utf-8").split('"""')[1]
    files = {path.name for path in (PACKAGE / room).glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"(?<![/\w])\w+\.py", text)) == files
    assert {path.parent.name for path in (PACKAGE / room).glob("*/__init__.py")} <= set(re.findall(r"(\w+)/", text))
