"""Runs commands as they are typed, without starting Python and importing the libraries again for each call.

One process per command imports it and then, for each call, forks and executes what `python -m gptjax.COMMAND` would.
This is for the many calls that end before anything is computed; those that train or generate text run in a separate
process, and so does --help, which shows the name of the program.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

SERVER = """
import ast, importlib, json, os, sys

module = importlib.import_module(sys.argv[1])
for further in sys.argv[2:]:
    importlib.import_module(further)
tree = ast.parse(open(module.__file__, encoding="utf-8").read())
(main,) = [node for node in tree.body if ast.unparse(node).startswith("if __name__ == '__main__':")]
main = compile(ast.Module(main.body, []), module.__file__, "exec")
print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    pid = os.fork()
    if pid == 0:
        for descriptor, name in enumerate(["/dev/null", request["stdout"], request["stderr"]]):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), descriptor)
        os.environ.update(request["environment"])
        sys.argv = [module.__file__, *request["arguments"]]
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
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@functools.cache
def _server(command: str, imported: tuple[str, ...] = ()) -> subprocess.Popen:
    """A process that ends with this one, which closes its input. imported: further commands that it imports first."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *(f"gptjax.{name}" for name in (command, *imported))],
        cwd=REPOSITORY,
        env=os.environ
        | {"JAX_PLATFORMS": "cpu", "JAX_DEFAULT_MATMUL_PRECISION": "highest", "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def run_command(
    command: str, *arguments: str | bytes, imported: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess:
    """`python -m gptjax.COMMAND ARGUMENTS` in the repository, without input. environment: variables added to ours."""
    server = _server(command, imported)
    with tempfile.TemporaryDirectory() as folder:
        request = {name: f"{folder}/{name}" for name in ("stdout", "stderr")}
        request["environment"] = environment
        request["arguments"] = [os.fsdecode(argument) for argument in arguments]
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
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
