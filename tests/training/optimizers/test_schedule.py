"""Learning-rate schedules: exact at their boundaries, correct in between, usable in jit, and refused if they do not
fit."""

import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from gptjax.config import ConfigError, Units, default, to_json
from gptjax.training.optimizers.schedule import NAMES, make_schedule, rate_change

TOTAL, PEAK = 100, 3e-4


def steps_of(text):
    number, unit = (text[:-1], "%") if text.endswith("%") else text.split()
    return round(TOTAL * float(number) / 100) if unit == "%" else int(number)


def make(name, total=TOTAL, **overrides):
    settings = dict(name=name, warmup="10 steps", decay="20%", final_fraction=0.1) | overrides
    return make_schedule(ConfigDict(settings), PEAK, total, steps_of)


@pytest.mark.parametrize("name", NAMES)
def test_warmup_rises_in_equal_steps_to_exactly_the_peak(name):
    rates = [float(make(name)(step)) for step in range(10)]
    np.testing.assert_allclose(rates, [PEAK * t / 10 for t in range(1, 11)], rtol=1e-6)
    assert rates[9] == np.float32(PEAK)


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd"])
@pytest.mark.parametrize("final_fraction", [0.0, 0.1, 1.0])
def test_the_last_update_has_exactly_the_floor_and_later_ones_stay_there(name, final_fraction):
    schedule = make(name, final_fraction=final_fraction)
    for step in (TOTAL - 1, TOTAL, 10 * TOTAL):
        assert schedule(step) == np.float32(PEAK * final_fraction)


def test_shapes_in_between():
    middle = 54  # update 55 is halfway between the warm-up's end (10) and the end (100)
    assert float(make("cosine")(middle)) == pytest.approx(PEAK * 0.55, rel=1e-6)
    assert float(make("cosine")(32 - 1)) == pytest.approx(
        PEAK * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 22 / 90))), rel=1e-6
    )
    assert float(make("linear")(middle)) == pytest.approx(PEAK * 0.55, rel=1e-6)
    assert float(make("constant")(TOTAL - 1)) == np.float32(PEAK)
    assert float(make("inverse_sqrt")(39)) == pytest.approx(PEAK * 0.5, rel=1e-6)
    assert float(make("inverse_sqrt", final_fraction=0.6)(39)) == pytest.approx(PEAK * 0.6, rel=1e-6)


def test_wsd_is_flat_until_the_last_fifth_then_linear():
    schedule = make("wsd")
    assert all(schedule(step) == np.float32(PEAK) for step in range(9, 80))
    assert float(schedule(80)) < PEAK
    assert float(schedule(89)) == pytest.approx(PEAK * 0.55, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_no_warmup_starts_at_or_just_below_the_peak(name):
    rate = float(make(name, warmup="0 steps")(0))
    assert 0.98 * PEAK < rate <= np.float32(PEAK)


@pytest.mark.parametrize("name", NAMES)
def test_values_are_the_same_under_jit_and_always_float32(name):
    schedule = make(name)
    steps = jnp.arange(TOTAL + 5)
    traced = jax.jit(jax.vmap(schedule))(steps)
    assert traced.dtype == jnp.float32 and schedule(3).dtype == jnp.float32
    np.testing.assert_allclose(traced, [schedule(int(step)) for step in steps], rtol=1e-6, atol=1e-11)


def test_the_default_section_has_every_field():
    assert make_schedule(default().schedule, 1e-3, TOTAL, steps_of)(4) == np.float32(1e-3)


@pytest.mark.parametrize(
    "overrides, named",
    [
        (dict(name="cosin"), "schedule.name = 'cosin'.*inverse_sqrt"),
        (dict(name="wsd", warmup="90 steps"), "schedule.warmup = '90 steps'.*schedule.decay.*100 steps"),
        (dict(name="cosine", warmup="101 steps"), "schedule.warmup = '101 steps'"),
        (dict(name="cosine", final_fraction=1.5), "schedule.final_fraction = 1.5"),
    ],
)
def test_impossible_schedules_are_refused(overrides, named):
    with pytest.raises(ConfigError, match=named):
        make(**overrides)


@pytest.mark.parametrize(
    "changes, before, now",
    [
        ({"training.duration": "200 steps"}, 1e-4, 5.5e-4),  # the end of the cosine becomes its middle
        ({"schedule.warmup": "10%", "training.duration": "1000 steps"}, 1e-4, 1e-3),
        ({"optimizer.learning_rate": 2e-3}, 1e-4, 2e-4),
        ({"schedule.name": "constant"}, 1e-4, 1e-3),
        ({"optimizer.beta1": 0.5, "training.batch_size": 7}, None, None),
    ],
)
def test_a_rate_that_jumps_at_a_resume_is_reported_with_both_values(changes, before, now):
    saved = default()
    saved.schedule.update(warmup="0 steps", name="cosine", final_fraction=0.1)
    saved.optimizer.learning_rate, saved.training.duration = 1e-3, "100 steps"
    config = saved.copy_and_resolve_references()
    for field, value in changes.items():
        section, name = field.split(".")
        config[section][name] = value
    notes = rate_change(json.loads(to_json(saved)), config, Units(1), 99)
    if before is None:
        assert notes == []
    else:
        found = [float(number) for number in re.findall(r"([\d.e-]+) with the", notes[0])]
        assert found == pytest.approx([before, now], rel=0.02) and "step 100:" in notes[0]


def test_a_schedule_that_a_checkpoint_names_is_imported_only_if_the_user_also_names_it(tmp_path, monkeypatch):
    (tmp_path / "brought_along.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    saved = default()
    saved.schedule.name, saved.training.duration = "brought_along:shape", "100 steps"
    assert "brought_along:shape" in rate_change(json.loads(to_json(saved)), changed(saved, "cosine"), Units(1), 9)[0]
    assert rate_change(json.loads(to_json(saved)), saved, Units(1), 9) == []  # it is imported and fails


def changed(config, schedule):
    config = config.copy_and_resolve_references()
    config.schedule.name = schedule
    return config
