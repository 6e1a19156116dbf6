"""Paths as users type them. A path that cannot be written to is refused before anything is computed."""

import os

import pytest

from gptjax.config import ConfigError
from gptjax.config.user_code import load_config
from gptjax.data.mixture import parse_mixture
from gptjax.files.paths import local_path, output_file, output_folder, run_folder
from gptjax.tokenizer import ByteTokenizer, load
from gptjax.training.checkpoints.loading import saved_config, saved_steps


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_home_is_expanded_wherever_a_path_is_read(home):
    (home / "data").mkdir()
    ByteTokenizer().save(home / "data")
    (home / "mine.py").write_text("from gptjax.config import default as get_config\n")
    assert run_folder("~/runs/a", "--workdir") == home / "runs" / "a"
    assert parse_mixture("~/data") == [(f"{home}/data", None)]
    assert parse_mixture("~/data=2,~/more=1") == [(f"{home}/data", 2.0), (f"{home}/more", 1.0)]
    assert load("~/data").kind == "byte"
    assert load_config("~/mine.py").seed == 0
    assert saved_steps("~/data") == []
    with pytest.raises(ConfigError, match=r"config\.json"):
        saved_config("~/data")


@pytest.mark.parametrize("file, kind", [("manifest.json", "prepared data"), (".git", "a git working tree")])
def test_a_run_is_refused_in_a_folder_with_another_purpose(home, file, kind):
    (home / "other").mkdir()
    (home / "other" / file).write_text("")
    with pytest.raises(ConfigError, match=rf"--workdir=other: is .*{kind} \(it holds {file}\)"):
        run_folder("other", "--workdir")


REFUSED = {
    "gs://bucket/run": "on a file system that is mounted here",
    "s3://bucket/run": "on a file system that is mounted here",
    "": "must name a path",
    " ": "must name a path",
    "~nobody-of-this-name/run": "there is no user",
    "a\x1bb": "control characters",
    "runs\\mine": "backslash",
    "file/run": "there is a file of that name",
    "file": "there is a file of that name",
    "gone/run": "leads nowhere",
    "circle/run": "cannot be written to",
    "x" * 300: "cannot be written to",
}
REFUSED_TO_RUNS = {"a[b": r"'\['", "a*": "'\\*'", "gs:/b": "ends in ':'", "a\udcff": "udcff"}


@pytest.mark.parametrize("text", [*REFUSED, *REFUSED_TO_RUNS], ids=ascii)
def test_a_path_that_cannot_be_written_to_is_refused(home, text):
    (home / "file").write_text("")
    (home / "gone").symlink_to("nowhere")
    (home / "circle").symlink_to("circle")
    with pytest.raises(ConfigError, match=f"^--workdir=(?s:.*){(REFUSED | REFUSED_TO_RUNS)[text]}"):
        run_folder(text, "--workdir")
    if text in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[text]):
            output_folder(text, "--output")
    assert sorted(os.listdir(home)) == ["circle", "file", "gone"]  # nothing was created


@pytest.mark.parametrize("text", ["runs/new", "é ü", "a:b", "a%20b", "~name", "."])
def test_other_names_are_accepted(home, text):
    (home / "~name").mkdir()
    assert run_folder(text, "--workdir") == local_path(text, "--workdir")


def test_folders_without_write_permission_are_refused(home, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not bind a superuser
    for check in (run_folder, output_folder, output_file):
        with pytest.raises(ConfigError, match="no permission to write in"):
            check("a", "--flag")
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.X_OK)  # nor may it be opened
    with pytest.raises(ConfigError, match="no permission to write in"):
        run_folder("a", "--flag")


def test_an_output_file_needs_a_folder(home):
    (home / "there.json").write_text("")
    assert output_file("new.json", "--json") == local_path("new.json", "--json")
    assert output_file("there.json", "--json").name == "there.json"
    for text, message in (("none/new.json", "must be in a folder that exists"), (".", "must be a file")):
        with pytest.raises(ConfigError, match=message):
            output_file(text, "--json")


@pytest.mark.parametrize("read", [parse_mixture, load, saved_config, saved_steps], ids=lambda f: f.__name__)
def test_paths_to_read_must_be_local(read):
    with pytest.raises(ConfigError, match="gs://bucket/x: must be a path on this machine"):
        read("gs://bucket/x")
