"""Runs commands as they are typed, without starting Python and importing the libraries again for each call.

One process imports the libraries that most commands need. For each command it forks a process that imports the command
and then, for each call, forks again and executes what `python -m gptjax.COMMAND` would. This is for the many calls that
end before anything is computed; those that train or generate text run in a separate process, and so does --help, which
shows the name of the program.
"""

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TextIO

from waiting import PATIENCE

REPOSITORY = Path(__file__).parents[2]

SERVER = """
import ast, importlib, json, os, socket, sys

for library in sys.argv[1:]:
    importlib.import_module(library)
print("ready", flush=True)

def become_server(address, modules):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    lines = connection.makefile("rw", encoding="utf-8")
    module, *_ = [importlib.import_module(name) for name in modules]
    tree = ast.parse(open(module.__file__, encoding="utf-8").read())
    (main,) = [node for node in tree.body if ast.unparse(node).startswith("if __name__ == '__main__':")]
    main = compile(ast.Module(main.body, []), module.__file__, "exec")
    print("ready", file=lines, flush=True)
    for line in lines:
        pid = os.fork()
        if pid == 0:
            run(main, module, json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=lines, flush=True)
    os._exit(0)

def run(main, module, call):
    for descriptor, name in enumerate(["/dev/null", call["stdout"], call["stderr"]]):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), descriptor)
    os.environ.update(call["environment"])
    sys.argv = [module.__file__, *call["arguments"]]
    status = 0
    try:
        exec(main, module.__dict__)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

for line in sys.stdin:
    if os.fork() == 0:
        become_server(*json.loads(line))
"""
LIBRARIES = (
    *("jax", "flax.linen", "optax", "orbax.checkpoint", "grain", "ml_collections.config_flags"),
    *("pyarrow.parquet", "scipy.stats", "rich.progress", "tokenizers", "sentencepiece"),
)


@functools.cache
def _libraries() -> subprocess.Popen:
    """A process with the libraries; it ends with this one, which closes its input."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *LIBRARIES],
        cwd=REPOSITORY,
        env=os.environ
        | {"JAX_PLATFORMS": "cpu", "JAX_DEFAULT_MATMUL_PRECISION": "highest", "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@functools.cache
def _server(command: str, imported: tuple[str, ...] = ()) -> TextIO:
    """A connection with the process of a command. imported: further commands that it imports first."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as meeting:
        address = f"{folder}/server"
        meeting.bind(address)
        meeting.listen()
        meeting.settimeout(PATIENCE)
        libraries = _libraries()
        request = [address, [f"gptjax.{name}" for name in (command, *imported)]]
        libraries.stdin.write(json.dumps(request) + "\n")
        libraries.stdin.flush()
        connection, _ = meeting.accept()
    lines = connection.makefile("rw", encoding="utf-8")
    assert lines.readline() == "ready\n", f"gptjax.{command} cannot be imported"
    return lines


def run_command(
    command: str, *arguments: str | bytes, imported: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess:
    """`python -m gptjax.COMMAND ARGUMENTS` in the repository, without input. environment: variables added to ours."""
    server = _server(command, imported)
    with tempfile.TemporaryDirectory() as folder:
        request = {name: f"{folder}/{name}" for name in ("stdout", "stderr")}
        request["environment"] = environment
        request["arguments"] = [os.fsdecode(argument) for argument in arguments]
        server.write(json.dumps(request) + "\n")
        server.flush()
        status = int(server.readline())
        texts = [Path(request[name]).read_text(encoding="utf-8") for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(["gptjax", command, *arguments], status, *texts)


def typed_command(command: str, *arguments: str) -> subprocess.CompletedProcess:
    """The same in a separate process."""
    return subprocess.run(
        [sys.executable, "-m", f"gptjax.{command}", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
