"""The commands of an exported model's card run as they are written."""

import re

import pytest
from commands import run_command
from reported_runs import write_run

pytest.importorskip("transformers")


def test_the_code_of_a_card_writes_a_text_with_transformers(tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "run", tmp_path / "data")
    done = run_command("export", f"--workdir={tmp_path}/run", f"--output={tmp_path}/mine", "--check=own")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "mine" / "README.md").read_text()
    (code,) = re.findall(r"```\n(from transformers .*?)```", card, re.S)
    assert str(tmp_path) not in card and 'library_name: "transformers"' in card
    monkeypatch.chdir(tmp_path)
    exec(code.replace("max_new_tokens=100", "max_new_tokens=4"), {})
    assert capsys.readouterr().out.startswith("Once")
