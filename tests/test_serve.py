"""The serve command: what is wrong is said in one sentence, before a model is loaded."""

import io
import socket
from types import SimpleNamespace

import pytest
from commands import run_command

from gptjax import serve as serve_command
from gptjax.display.terminal import Console


@pytest.fixture
def run(tmp_path):
    """A folder that looks like a run until its config is read."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "empty").write_text("\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--host=0.0.0.0",), "--host=0.0.0.0: other machines can reach this address, so clients need a token"),
        (("--host=no.such.host.invalid", "--token=x"), "must be an address of this machine"),
        (("--token=two words",), "--token: must be 1 to 1000 letters"),
        (("--token_file=RUN/nowhere",), "must be a file; there is none"),
        (("--token_file=RUN/empty",), "must be 1 to 1000 letters"),
        (("--token=a", "--token_file=RUN/empty"), "must not be given together with --token"),
        (("--cors_origin=example.com",), "must be * or an origin"),
        (("--num_slots=0",), "--num_slots=0"),
        (("--port=70000",), "--port=70000"),
        (("--prot=80",), "did you mean --port"),
    ],
)
def test_a_wrong_flag_is_answered_in_one_sentence(run, arguments, message):
    done = run_command("serve", f"--workdir={run}", *[each.replace("RUN", str(run)) for each in arguments])
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_a_missing_run_and_a_taken_port_are_said_before_anything_is_loaded(run):
    assert "--workdir is missing" in run_command("serve").stderr
    assert "there is no such folder" in run_command("serve", "--workdir=nowhere").stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_command("serve", f"--workdir={run}", f"--port={port}")
    assert done.returncode == 2 and f"--port={port}: is in use by another program" in done.stderr


def test_generators_are_made_for_as_many_rows_as_there_are_slots(monkeypatch):
    """With few, the matrices are stored for few rows."""
    made = []

    def generator(adapter=None, **options):
        made.append((adapter, options["batch_size"]))
        return SimpleNamespace(weights="float32")

    model = SimpleNamespace(adapters=lambda names: {"polite": "its parameters"}, fingerprint={}, metadata={"step": 1})
    vars(model).update(num_parameters=1, generator=generator)
    monkeypatch.setattr(serve_command, "load_trained_model", lambda *_: model)
    given = dict(WORKDIR="w", NAME="", CHECKPOINT="latest", EMA=False, OWN_FUNCTIONS=False, MESH="", ADAPTER=None)
    for name, value in (given | dict(WEIGHTS=None, NUM_SLOTS=3)).items():
        monkeypatch.setattr(serve_command, name, SimpleNamespace(value=value))
    serve_command.load_generators(Console(file=io.StringIO()))
    assert made == [(None, 3), ("its parameters", 3)]
