"""The folder of frozen parameters that a checkpoint's metadata name."""

from pathlib import Path

import pytest

from gptjax.training.checkpoints.frozen_parameters import Frozen, folder_of


def test_only_a_folder_beside_the_checkpoint_is_read():
    shared = Frozen({"params/a": {"shape": [2], "dtype": "float32", "checksum": 5}}).folder
    assert folder_of(Path("run/checkpoints/5"), {"frozen": {"folder": shared}}) == Path("run/checkpoints") / shared
    assert folder_of(Path("run/checkpoints/5"), {}) is None
    for name in ("../frozen-1", "/frozen-1", "frozen-1/../../..", "4", ".."):
        with pytest.raises(ValueError, match="not a folder beside it"):
            folder_of(Path("run/checkpoints/5"), {"frozen": {"folder": name}})
