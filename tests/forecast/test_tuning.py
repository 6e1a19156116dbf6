"""What changes in a config for another number of tokens than its own."""

import pytest

from gptjax.config import default
from gptjax.data.facts import DataFacts
from gptjax.forecast.choices import chosen_config
from gptjax.forecast.devices import described_place
from gptjax.forecast.run import forecast_run
from gptjax.forecast.search import BESIDE, Candidate, Goal, choose
from gptjax.forecast.tuning import ENOUGH, EVALUATED, FORWARD, STEPS, evaluated, tuned
from gptjax.planning import plan

ROWS, LENGTH = 96, 1024


def config_of(**fields):
    config = default()
    config.update_from_flattened_dict(
        {
            **{"model.num_layers": 4, "model.width": 512, "model.num_heads": 8, "optimizer.name": "muon"},
            **{"data.sequence_length": LENGTH, "training.batch_size": ROWS, "evaluation.every": "5%"},
            **{name.replace("__", "."): value for name, value in fields.items()},
        }
    )
    return config


def test_a_run_with_enough_steps_keeps_the_configs_batch_rates_and_evaluations():
    assert not tuned(config_of(), STEPS * ROWS * LENGTH, 8).fields
    assert tuned(config_of(), 0.99 * STEPS * ROWS * LENGTH, 8).fields["training.batch_size"] == ROWS // 2


@pytest.mark.parametrize(
    ("tokens", "devices", "rows"),
    [(STEPS * 7 * LENGTH, 1, 6), (STEPS * 13 * LENGTH, 8, 8), (1e5, 1, 1), (1e5, 32, 32)],
)
def test_a_short_run_has_half_the_batch_until_there_are_enough_steps_or_a_row_per_device(tokens, devices, rows):
    """Each device has as many rows."""
    config = config_of()
    found = tuned(config, tokens, devices)
    assert found.fields["training.batch_size"] == rows and f"{rows} row" in found.notes[0]
    lower = [
        found.fields[f"optimizer.{name}"] / config.optimizer[name] for name in ("learning_rate", "muon_learning_rate")
    ]
    assert lower[0] == pytest.approx(lower[1], rel=1e-3) and rows / ROWS < lower[0] < 1
    config.optimizer.name = "adamw"
    assert "optimizer.muon_learning_rate" not in tuned(config, tokens, devices).fields


@pytest.mark.parametrize("tokens", [2e7, 2e6, 2e5])
def test_evaluations_take_a_small_share_of_the_time(tokens):
    config = config_of(evaluation__tokens=1 << 20)
    fields = tuned(config, tokens, 1).fields
    config.update_from_flattened_dict(dict(fields))
    assert 0.4 * EVALUATED < FORWARD * evaluated(config, tokens) / tokens <= EVALUATED
    fewer = config.evaluation.every != "5%"
    assert fewer == (tokens * EVALUATED / FORWARD / 20 < ENOUGH)
    config.evaluation.every = "2 epochs"  # of unknown data
    assert not evaluated(config, tokens)


def test_a_search_fits_the_batch_and_the_evaluations_into_its_budget():
    config, place = config_of(evaluation__tokens=1 << 22), described_place("A10", 1)
    seconds = 60.0
    (best,) = choose(Goal("seconds", seconds, "--hours"), [Candidate("it", config, DataFacts(512), place)], None)
    made = plan(chosen_config(best), DataFacts(512), place.devices)
    assert STEPS <= made.total_steps < 3 * STEPS and made.config.training.batch_size < ROWS
    assert made.config.optimizer.learning_rate < config.optimizer.learning_rate
    total = forecast_run(made, place, best.layout.needs, None).time.total.likely
    assert (1 - 2 * BESIDE) * seconds < total < seconds
    assert len(best.notes) == 2 and best.notes[0].startswith(f"a batch of {made.config.training.batch_size} rows")
