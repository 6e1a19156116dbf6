"""A disk that has no room for some of the files of a command."""

import errno
import os

from orbax.checkpoint import v1 as ocp

from gptjax.files import AsideFile


def fill_disk(monkeypatch, name):
    """Leaves no room for files of this name, which are written aside, or for 'checkpoints'."""
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finish = AsideFile.finish

    def finish_or_fail(self):
        if self.path.name == name:
            raise error
        return finish(self)

    class Failed:
        def result(self):
            raise ValueError("an error of the storage library") from error

    monkeypatch.setattr(AsideFile, "finish", finish_or_fail)
    if name == "checkpoints":
        monkeypatch.setattr(ocp, "save_checkpointables_async", lambda *_, **__: Failed())
