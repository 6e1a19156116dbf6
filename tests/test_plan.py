"""The command that plans a run."""

import dataclasses
import io
import json

import pytest
from commands import run_command
from prepared_folders import random_documents, write_prepared

from gptjax.config.user_code import load_config
from gptjax.data.facts import DataFacts
from gptjax.display.terminal import Console
from gptjax.forecast.devices import described_place
from gptjax.forecast.duration import Cases
from gptjax.forecast.run import forecast_run
from gptjax.forecast.search import Candidate, Goal, choose
from gptjax.plan import in_budget, until_it_fits

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
        (("--hardware=H100",), ("--config", "missing", "--hours")),
        (("--hardware=8xv5e", "--hours=1e300"), ("--hours=1e+300", "at most 1e+12")),
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--config.training.batch_per_device=auto",), ("Fits", "auto:", "sequences at once on each device")),
        (
            ("--config.training.gradient_accumulation_steps=1",),
            ("Does not fit on 1 × v5e", "gradient_accumulation_steps=64 (about", "would fit"),
        ),
    ],
)
def test_a_micro_batch_that_fits_is_chosen_or_named(arguments, words):
    done = run_command("plan", CONFIG, "--hardware=v5e", *arguments)
    assert done.returncode == 0 and all(word in done.stdout for word in words), done.stdout + done.stderr


TINY = """
from gptjax.config import default

def get_config(arg="32"):
    config = default()
    config.model.num_layers, config.model.width, config.model.num_heads = 1, int(arg), 2
    config.data.sequence_length, config.training.batch_size = 16, 4
    config.evaluation.every = ""
    return config
"""


def test_a_budget_becomes_a_config_that_train_takes_as_it_is(tmp_path):
    """The best of two sizes on prepared text; the file that is written starts a run, which is as the plan said."""
    write_prepared(tmp_path / "text", train=[ids % 250 for ids in random_documents(40, 60)])
    (tmp_path / "tiny.py").write_text(TINY)
    tiny, best, run = tmp_path / "tiny.py", tmp_path / "best.py", tmp_path / "run"
    done = run_command(
        "plan",
        *("--hardware=v5e", "--hours=0.002", f"--sizes={tiny}:32,{tiny}:64", f"--text={tmp_path / 'text'}"),
        *(f"--write={best}", f"--json={tmp_path / 'plan.json'}"),
    )
    assert done.returncode == 0, done.stderr
    assert f"--config={best}" in done.stdout and "the best" in done.stdout
    plan = json.loads((tmp_path / "plan.json").read_text())
    chosen, other = plan["choices"]
    assert chosen["loss"] < other["loss"] and other["reason"]
    assert plan["tokens"]["run"] == chosen["tokens"] and plan["tokens"]["at_hand"] > 0
    assert plan["time"]["total"][1] == pytest.approx(0.002 * 3600, rel=0.05)
    short = ("--config.training.duration=1 steps", "--config.logging.plots=False", "--config.logging.tensorboard=False")
    trained = run_command("train", f"--config={best}", f"--workdir={run}", *short)
    assert trained.returncode == 0, trained.stderr
    config = json.loads((run / "config.json").read_text())
    assert config["data"]["path"] == str(tmp_path / "text") and f"width {config['model']['width']}"
    assert f"{tiny}:{config['model']['width']}" == chosen["name"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--hardware=8xH100", "--hours=0"), ("--hours=0", "above 0")),
        (("--hardware=8xH100", "--dollars=50"), ("--dollars=50", "--price")),
        (("--hardware=8xH100", "--dollars=50", "--price=2 EUR"), ("--dollars=50", "in dollars")),
        (("--hardware=8xH100", "--hours=1", "--fit"), ("--hours and --fit", "only one")),
        (("--hardware=8xH100", "--loss=1.5"), ("--loss=1.5", "1.817")),
        (("--hardware=A10", "--fit", "--sizes=configs/llama.py:70b"), ("--fit", "A10", "does not fit")),
        (("--hardware=A10", "--hours=1e-6", "--sizes=configs/llama.py:135m"), ("--hours=1e-06", "the least")),
        (("--hardware=A10", "--hours=1", "--sizes=a,,b"), ("--sizes=a,,b", "empty")),
        (
            ("--hardware=A10", "--dollars=1e-6", "--price=2 USD", "--sizes=configs/llama.py:135m"),
            ("--dollars=1e-06", "the least that does is", "USD)"),
        ),
        (("--hardware=A10", "--text=3 books"), ("--text", "2GB")),
        (("--hardware=A10", "--sizes=configs/llama.py:135m"), ("--config",)),
        ((CONFIG, "--hardware=A10", "--write=best.py"), ("--write", "search")),
    ],
)
def test_a_budget_that_makes_no_sense_is_one_sentence(arguments, words):
    done = run_command("plan", *arguments)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr


def test_the_tokens_of_a_budget_follow_the_speed_of_the_compiled_step():
    config, place = load_config("configs/llama.py:135m"), described_place("H100", 8)
    goal = Goal("seconds", 3600.0, "--hours=1")
    (best,) = choose(goal, [Candidate("135m", config, DataFacts(49152), place)], None)
    forecast = forecast_run(best.layout.plan, place, best.layout.needs, None)
    for slower, tokens in ((1.0, best.tokens), (1.01, best.tokens), (1.5, best.tokens / 1.5)):
        time = dataclasses.replace(forecast.time, total=Cases(*(slower * goal.amount,) * 3))
        run = dataclasses.replace(forecast.tokens, run=best.tokens)
        found = in_budget(goal, best, dataclasses.replace(forecast, time=time, tokens=run), None)
        assert found.tokens == pytest.approx(tokens, rel=0.01)
        assert (found is best) == (slower < 1.02)


def test_a_search_goes_on_with_the_next_best_until_the_compiled_step_fits():
    """The compiler needs twice the memory that the formula estimated, for the first two layouts."""
    config = load_config("configs/llama.py:135m")
    place, printed = described_place("H100", 8), io.StringIO()
    goal = Goal("fit", 0.0, "--fit")
    choices = choose(goal, [Candidate("135m", config, DataFacts(49152), place)], None)
    tried = []

    def compiled(best):
        tried.append(best.layout)
        needs, plan = best.layout.needs, best.layout.plan
        if len(tried) < 3:
            memory = dataclasses.replace(needs.memory, workspace=int(place.hardware.memory))
            needs = dataclasses.replace(needs, memory=memory)
        return best, forecast_run(plan, place, needs, None)

    found, forecast = until_it_fits(goal, choices, None, Console(file=printed, width=120), compiled)
    assert tried[-1] is found[0].layout and forecast.fit.fits
    assert [layout.fields for layout in tried] == [layout.fields for layout in choices[0].layouts[:3]]
    assert not found[0].layout.reason and found[0].tokens == choices[0].tokens
    failed = [layout.reason for layout in found[0].layouts if layout.fields in [each.fields for each in tried[:2]]]
    assert len(failed) == 2 and all(reason.startswith("does not fit: 12") for reason in failed)
    assert printed.getvalue().count("so the next best follows") == 2
