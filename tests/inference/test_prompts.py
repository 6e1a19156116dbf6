import pytest

from gptjax.config import ConfigError
from gptjax.inference.prompts import read_prompts

ODD = "a\x85b\u2028c\x0cd\x0be\x1cf\rg"  # line ends of str.splitlines


@pytest.mark.parametrize(
    "name, content, prompts",
    [
        ("p.txt", "one\ntwo\n", ["one", "two"]),
        ("p.txt", "one\n\n two ", ["one", "", " two "]),
        ("p.txt", "one\r\ntwo\r\n", ["one", "two"]),
        ("p.txt", f"{ODD}\n{ODD}", [ODD, ODD]),
        ("p.txt", "\ufeffone\n\ufefftwo", ["one", "\ufefftwo"]),
        ("p.jsonl", '\ufeff"a\\nb"\r\n\n"c\u2028\x85d"\n', ["a\nb", "c\u2028\x85d"]),
        ("p.txt", "\n", [""]),
    ],
)
def test_only_newlines_separate_prompts(tmp_path, name, content, prompts):
    (tmp_path / name).write_bytes(content.encode())
    assert read_prompts(tmp_path / name) == prompts


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
def test_a_file_without_a_prompt_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigError, match="must hold at least one prompt"):
        read_prompts(tmp_path / name)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("p.jsonl", b"not JSON\n", "must hold one JSON string per line"),
        ("p.jsonl", b'"a"\n3\n', "nothing but strings"),
        ("p.jsonl", b'"a"\n"\\ud800"\n', "prompt 2 = .*: must be UTF-8 text"),
        ("p.txt", b"a\xff", "must be UTF-8 text"),
        ("nowhere.txt", None, "must be a file that can be read"),
    ],
)
def test_invalid_files_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"^--prompts_file=.*{name}: .*{message}"):
        read_prompts(tmp_path / name)
