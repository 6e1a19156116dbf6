"""A corpus prepared by job arrays of a real Slurm."""

import hashlib
import json
import sys

import pytest
from killed_runs import REPOSITORY

pytestmark = pytest.mark.slurm


def test_job_arrays_prepare_the_same_bytes(slurm, tmp_path):
    def prepare(folder, *options):
        source = REPOSITORY / "gptjax/corpus"
        command = [sys.executable, "-m", "gptjax.prepare", f"--input={source}", f"--output={folder}"]
        slurm.run(*command, "--tokenizer=byte", *options, PYTHONPATH=str(REPOSITORY))
        files = [*folder.glob("*.bin"), *folder.glob("*.npy")]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    here = prepare(tmp_path / "here")
    there = prepare(
        tmp_path / "there", "--executor=slurm", "--workers=2", "--submitit=slurm_partition=low,timeout_min=30"
    )
    assert here == there and any(name.endswith(".bin") for name in here)
    logs = list((tmp_path / "there").rglob("*.out"))
    assert logs or json.loads((tmp_path / "there/manifest.json").read_text())
