"""Reads the documents of a source, for tests of readers."""

import os

from gptjax.corpus.sources import Skipped, kind_named, read_piece


def documents(kind, *paths, **options):
    """(documents, what was skipped)."""
    module, skipped = kind_named(kind), Skipped()
    options = {**module.OPTIONS, **options}
    pieces = module.find(",".join(map(str, paths)), options)
    return [document for piece in pieces for document in read_piece(kind, piece, options, skipped)], skipped


def write(folder, files):
    """Writes files, path → text or bytes."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def close_to_listing(monkeypatch, name: str) -> None:
    """Makes folders of that name impossible to list."""
    listed = os.scandir

    def scandir(path):
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
