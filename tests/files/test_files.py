"""Files are written completely or not at all, and a failed write leaves nothing behind."""

import gc
import os
import resource
import signal
import warnings
from pathlib import Path

import pytest

from gptjax.errors import ConfigError
from gptjax.files import folder_aside, write_aside


def test_a_block_that_raises_leaves_the_old_file_unchanged(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a file left open
        with pytest.raises(KeyError), write_aside(path) as file:
            file.write(b"new")
            raise KeyError
        del file
        gc.collect()
    assert os.listdir(tmp_path) == ["a"] and path.read_text() == "old"


def test_a_full_disk_leaves_the_old_file_unchanged(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError), write_aside(path) as file:
            file.write(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == ["a"] and path.read_text() == "old"


def test_a_folder_is_made_as_a_whole_but_not_in_place_of_the_current_one(tmp_path, monkeypatch):
    with folder_aside(tmp_path / "made") as aside:
        (aside / "file").write_text("content")
        assert not (tmp_path / "made").exists()
    assert (tmp_path / "made" / "file").read_text() == "content"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in (".", str(tmp_path / "here")):
        with pytest.raises(ConfigError, match="is the current folder"), folder_aside(Path(name)):
            pass
    assert (tmp_path / "here").is_dir()
