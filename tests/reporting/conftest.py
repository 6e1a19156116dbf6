"""A run that is reported on: with everything, and with secrets and markup wherever data can have them."""

import pytest
from reported_runs import write_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("machine")
    write_run(folder / "runs" / "mine", folder / "inhouse7" / "books")
    return folder / "runs" / "mine"
