import contextlib
import errno
import fcntl

import pytest

from gptjax.config import ConfigError
from gptjax.files.folders import alone_in, is_held, removed_if_useless


def test_two_processes_do_not_share_a_folder(tmp_path):
    folder = tmp_path / "made" / "here"
    assert not is_held(folder)
    with alone_in(folder, "--output"):
        assert is_held(folder)
        with pytest.raises(ConfigError, match=r"--workdir=.*here: another process is using"):
            with alone_in(folder, "--workdir"):
                pass
    assert not is_held(folder)
    with alone_in(folder, "--output"):
        pass


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="must be a folder"), alone_in(path, "--workdir"):
            pass


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch, caplog):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level("WARNING", logger="absl"), alone_in(tmp_path, "--workdir"):
        assert "has no locks (No locks available)" in caplog.text


def test_the_target_of_a_linked_lock_file_is_not_emptied(tmp_path):
    (tmp_path / "precious").write_text("all of it")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with alone_in(tmp_path / "run", "--workdir"):
        assert (tmp_path / "precious").read_text() == "all of it"


def test_a_folder_of_a_failed_command_is_removed_if_useless(tmp_path):
    def fail(folder, *files):
        with pytest.raises(KeyboardInterrupt), removed_if_useless(folder, lambda made: (made / "useful").exists()):
            with alone_in(folder, "--output"):
                for name in files:
                    (folder / name).write_text("")
                raise KeyboardInterrupt

    fail(tmp_path / "new" / "out" / "work", "report")
    assert not list(tmp_path.iterdir())
    fail(tmp_path / "new" / "out" / "work", "useful")
    assert (tmp_path / "new" / "out" / "work" / "useful").exists()
    fail(tmp_path / "new" / "out" / "other", "report")
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == ["work"], "what was there stays"
    (tmp_path / "mine").mkdir()
    fail(tmp_path / "mine", "report")
    assert (tmp_path / "mine" / "report").exists(), "a folder that was there is not touched"


def test_a_folder_in_use_by_another_process_is_not_removed(tmp_path):
    with contextlib.ExitStack() as other:
        with pytest.raises(OSError), removed_if_useless(tmp_path / "out", lambda made: False):
            other.enter_context(alone_in(tmp_path / "out", "--output"))
            raise OSError
        assert (tmp_path / "out").exists()
