"""The command that plans a run."""

import json

import pytest
from commands import run_command

CONFIG = "--config=configs/llama.py:135m"


def test_without_a_compiler_for_its_devices_a_run_is_planned_by_formula(tmp_path):
    done = run_command(
        "plan",
        CONFIG,
        "--hardware=8xv5e",
        "--price=1.20 USD",
        f"--json={tmp_path / 'plan.json'}",
        "--plot=" + str(tmp_path / "plan.png"),
    )
    assert done.returncode == 0, done.stderr
    assert "Fits on 8 × v5e" in done.stdout and "by formula, since" in done.stdout
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["source"] == "formula" and plan["size"]["parameters"] == 134_515_008
    hours = plan["time"]["total"][1] / 3600
    assert plan["cost"][1] == pytest.approx(8 * 1.2 * hours) and plan["currency"] == "USD"
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((CONFIG,), ("--hardware", "missing")),
        (("--hardware=H100",), ("--config", "missing")),
        ((CONFIG, "--hardware=H300"), ("H300", "did you mean H", "L40S")),
        ((CONFIG, "--hardware=3xv5e"), ("mesh", "divisible by the 3 devices")),
        ((CONFIG, "--hardware=8xv5e", "--config.mesh.tensor=3"), ("mesh", "multiple of 3 devices", "8")),
        ((CONFIG, "--hardware=v5e", "--price=3"), ("--price", "currency")),
        ((CONFIG, "--hardware=v5e", "--config.model.width=0"), ("model.width", "at least 1")),
        ((CONFIG, "--hardware=v5e", "--plot=plan.doc"), ("--plot", ".png")),
    ],
)
def test_a_user_error_is_one_sentence(arguments, words):
    done = run_command("plan", *arguments)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and not done.stdout
    for word in words:
        assert word in done.stderr
