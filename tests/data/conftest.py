import pytest
from prepared_folders import write_prepared

from gptjax.config import default


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The test's own cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gptjax"


@pytest.fixture
def prepared(tmp_path):
    """A function (name, **arguments of write_prepared) → folder."""
    return lambda name="data", **content: write_prepared(tmp_path / name, **content)


@pytest.fixture
def data_config():
    def make(path, **fields):
        config = default().data
        config.path = str(path)
        config.update(fields)
        return config

    return make
