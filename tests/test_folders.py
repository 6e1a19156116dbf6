import pytest

from gptjax.config import ConfigError
from gptjax.folders import alone_in, is_held


def test_two_processes_do_not_share_a_folder(tmp_path):
    folder = tmp_path / "made" / "here"
    assert not is_held(folder)
    with alone_in(folder, "--output"):
        assert is_held(folder)
        with pytest.raises(ConfigError, match=r"--workdir = .*here: another process is at work"):
            with alone_in(folder, "--workdir"):
                pass
    assert not is_held(folder)
    with alone_in(folder, "--output"):
        pass


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="must be a folder"), alone_in(path, "--workdir"):
            pass
