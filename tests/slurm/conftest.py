"""One Slurm cluster for all tests of this folder, and the runs that are trained on it."""

import pytest
from killed_runs import Runs
from slurm_cluster import Cluster, obstacle


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    reason = obstacle()
    if reason:
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def runs(slurm, tmp_path_factory):
    """A prepared corpus and a config of 40 short steps."""
    return Runs(tmp_path_factory.mktemp("runs"), steps=40)
