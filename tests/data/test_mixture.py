import pytest

from gptjax.config import ConfigError
from gptjax.data.mixture import parse_mixture


def test_folders_and_weights_are_parsed(tmp_path):
    assert parse_mixture("data/books") == [("data/books", None)]
    assert parse_mixture("data/web=0.7, data/code=3e-1") == [("data/web", 0.7), ("data/code", 0.3)]
    assert parse_mixture("a,b") == [("a", None), ("b", None)]
    assert parse_mixture("lr=3=2,b=1") == [("lr=3", 2.0), ("b", 1.0)]
    odd = tmp_path / "a=1,b"
    odd.mkdir()
    assert parse_mixture(str(odd)) == [(str(odd), None)]


@pytest.mark.parametrize(
    "path, message",
    [
        ("", "name a folder"),
        ("a=0.5,b", "'b' has no weight, but others have"),
        ("a=x,b=1", "weight 'x' of 'a' is not a positive number"),
        ("a=0,b=1", "weight '0' of 'a' is not a positive number"),
        ("a=nan", "weight 'nan' of 'a' is not a positive number"),
        ("a,,b", "a part does not name a folder"),
        ("=1", "a part does not name a folder"),
        ("a=1,a=2", "names a folder twice"),
    ],
)
def test_invalid_mixtures_are_refused(path, message):
    with pytest.raises(ConfigError, match=rf"data\.path = '{path}': .*{message}" if path else message):
        parse_mixture(path)
