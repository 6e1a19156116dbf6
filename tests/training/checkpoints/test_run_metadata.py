"""The code version recorded in a checkpoint."""

import subprocess

import pytest

from gptjax.training.checkpoints.run_metadata import git_revision


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package inside a repository that may or may not track it."""
    folder = tmp_path / "repository" / "lib" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (tmp_path / "repository" / "other.txt").write_text("")
    git(tmp_path, "init", "-q", "repository")
    commit(tmp_path / "repository", "other.txt")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))  # as in a git hook of another repository
    git_revision.cache_clear()
    yield folder
    git_revision.cache_clear()


def git(folder, *command):
    settings = ["-c", "user.name=n", "-c", "user.email=e@x"]
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", "-C", str(folder), *settings, *command], env=environment, check=True, capture_output=True
    )
    return done.stdout.decode().strip()


def commit(repository, *paths):
    git(repository, "add", *paths)
    git(repository, "commit", "-q", "-m", "m")


def test_a_package_in_a_repository_that_does_not_track_it_has_no_revision(package):
    assert git_revision(package) is None


def test_the_revision_is_that_of_the_packages_files_and_marks_changes(package):
    repository = package.parents[1]
    commit(repository, "lib")
    revision = git(repository, "rev-parse", "HEAD")
    (repository / "other.txt").write_text("not of the package")
    assert git_revision(package) == revision
    (package / "new.py").write_text("")
    git_revision.cache_clear()
    assert git_revision(package) == f"{revision}-dirty"


def test_without_a_repository_there_is_no_revision(tmp_path):
    assert git_revision(tmp_path) is None
