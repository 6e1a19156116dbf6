"""Names of a machine are replaced, and nothing else is."""

import getpass
import socket

import pytest

from gptjax.reporting.document import Bullets, Figure, Folded, Paragraph, Sample
from gptjax.reporting.privacy import names_of_machine, without_names


@pytest.fixture
def names(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-07.uni.example")
    monkeypatch.setattr(getpass, "getuser", lambda: "alovelace")
    monkeypatch.setenv("HOME", "/home/alovelace")
    return names_of_machine([tmp_path / "runs" / "mine"], ["Project Thunder"])


@pytest.mark.parametrize(
    "text, left",
    [
        ("at /home/alovelace/runs/mine, see", "at mine, see"),
        ("'/scratch/a b'", "'a b'"),
        ("path=/data/web=0.7,/data/code=0.3", "path=web=0.7,code=0.3"),
        ("~/secret/books and ~bob/x", "books and x"),
        (r"C:\Users\ada\run", "run"),
        ("file:///srv/x/y.txt", "y.txt"),
        ("on gpu-07.uni.example by alovelace", "on host by user"),
        ("on GPU-07", "on host"),
        ("node3.cluster.internal and 10.0.0.7:8080", "host and host"),
        ("Project Thunder", "…"),
        ("https://example.org/a/b/c", "https://example.org/a/b/c"),
        ("model/decoder.py, and/or, 3/4/5, 1.2.3", "model/decoder.py, and/or, 3/4/5, 1.2.3"),
        ("alovelaces gpu-07b", "alovelaces gpu-07b"),
    ],
)
def test_a_text_loses_the_names_of_the_machine_and_nothing_else(names, text, left):
    assert names.removed(text) == left


def test_a_model_may_write_paths_but_not_those_of_the_run(names, tmp_path):
    text = f"#!/usr/bin/env at {tmp_path}/runs/mine/samples by alovelace"
    assert names.removed(text, verbatim=True) == "#!/usr/bin/env at mine/samples by user"


def test_every_string_of_a_block_is_reached(names):
    secret = "alovelace at /srv/data/x"
    svg = f'<svg><text x="1">{secret}</text></svg>'
    block = Folded(
        secret, (Paragraph(secret), Bullets((secret,)), Figure(svg, secret, secret), Sample(secret, secret, secret))
    )
    left = str(without_names(block, names))
    assert "alovelace" not in left and left.count("user at") == 9


@pytest.mark.parametrize("user", ["root", "ubuntu", "me"])
def test_a_user_whose_name_is_an_ordinary_word_is_not_replaced(monkeypatch, user):
    monkeypatch.setattr(getpass, "getuser", lambda: user)
    assert names_of_machine().removed(f"the {user} of it") == f"the {user} of it"
