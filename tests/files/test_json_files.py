"""A damaged JSON file is reported in one sentence: the file, the problem, and what to do."""

import json

import pytest

from gptjax.config import default, from_json, to_json
from gptjax.errors import ConfigError
from gptjax.files.json_files import parsed

WHOLE = json.dumps({"a": {"b": [1, -2.5, 1e-30, "text", None]}, "c": True, "d": False}, indent=1)


@pytest.mark.parametrize(
    "data, problem",
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"{", "is cut off in line 1: it is not whole JSON"),
        (b'{"a": "tex', "is cut off in line 1: it is not whole JSON"),
        (b'{"a": 1,\n "b" 2}', "is not JSON at line 2, column 6"),
        (b"<html>", "is not JSON at line 1, column 1"),
        (b'{"a": "\xff"}', "is not UTF-8 text (byte 8 is 0xff)"),
        (b"\x80\x04pickle", "is not UTF-8 text (byte 1 is 0x80)"),
        (b"[1, 2]", "must hold a JSON object, and holds [1, 2]"),
        (b"null", "must hold a JSON object, and holds null"),
        (b"[" * 100_000, "is not JSON that can be read: it is nested too deeply, or a number in it is too long"),
        (
            b'{"a": ' + b"9" * 5000 + b"}",
            "is not JSON that can be read: it is nested too deeply, or a number in it is too",
        ),
    ],
)
def test_the_problem_is_named(data, problem):
    with pytest.raises(ConfigError) as caught:
        parsed(data, "f.json", "do this")
    message = str(caught.value)
    assert message.startswith(f"f.json {problem}") and message.endswith("; do this")
    assert "Error" not in message and "\n" not in message


def test_a_file_that_is_cut_off_anywhere_is_refused():
    assert parsed(WHOLE, "f.json", "") == parsed(WHOLE.encode(), "f.json", "") == json.loads(WHOLE)
    for length in range(len(WHOLE)):
        with pytest.raises(ConfigError, match=r"^f\.json is cut off" if length else r"^f\.json is empty"):
            parsed(WHOLE[:length], "f.json", "")


def test_for_a_cut_off_config_the_message_says_how_to_restore_it():
    text = to_json(default())
    with pytest.raises(ConfigError, match=r"^here/config\.json is cut off in line \d+.*; delete it and give the run's"):
        from_json(text[: len(text) // 2].encode(), "here/config.json")
