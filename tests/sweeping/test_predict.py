"""Predicted sizes equal those of the trained model; times follow the finished runs of the nearest size."""

import functools

import jax
import pytest

from gptjax import train
from gptjax.config.user_code import load_config
from gptjax.forecast.devices import described_place
from gptjax.forecast.price import Price
from gptjax.model.parameters import count_parameters
from gptjax.sweeping.algebra import over
from gptjax.sweeping.definition import override
from gptjax.sweeping.gather import plan_table
from gptjax.sweeping.predict import Forecast, planned_on, probe_peak, size_of
from gptjax.sweeping.runs import State, Status


def test_the_predicted_size_equals_that_of_the_training_run(plan, tmp_path):
    run = plan(over("model.width", [48]))[0]
    trained = train.open_run(
        override(load_config(run.base), {**run.settings, "mesh.data": 1, "mesh.fsdp": 4, "mesh.tensor": 2}), tmp_path
    )
    size = size_of(run)
    assert size.parameters == count_parameters(trained.plan.trainer.declared).total
    assert size.tokens == trained.plan.total_steps * trained.plan.tokens_per_step == 20 * 4 * 16
    assert size.flops == trained.plan.flops_per_token["causal"] * size.tokens
    assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(trained.plan.abstract_state))


def finished(rate, elapsed):
    rows = [{"step": i, "tokens_per_second": rate, "elapsed_seconds": s} for i, s in enumerate(elapsed, start=1)]
    return Status(State.FINISHED, len(rows), rows)


def test_the_times_of_uninterrupted_finished_runs_are_learned(plan):
    run = plan()[0]
    forecast = Forecast({run.name: size_of(run)}, assumed_flops_per_second=size_of(run).flops / 99)
    unfinished = Status(State.PARTLY_DONE, 3, finished(100.0, [5, 10, 20]).rows)
    started_again = finished(100.0, [5, 10, 3])  # its clock, too
    for status in (unfinished, started_again, Status(State.FINISHED)):
        forecast.learn(run, status)
        assert forecast.runs_known == 0 and forecast.seconds(run) == pytest.approx(99)
    forecast.learn(run, finished(100.0, [5, 10, 20]))
    assert forecast.runs_known == 1 and forecast.seconds(run) == pytest.approx(20)
    assert Forecast({run.name: size_of(run)}).seconds(run) is None


def test_rate_and_overhead_come_from_the_run_of_nearest_size(plan):
    small, large, next_to_small = plan(over("model.width", [16, 256, 24]))
    sizes = {run.name: size_of(run) for run in (small, large, next_to_small)}
    forecast = Forecast(sizes)
    tokens = sizes[small.name].tokens
    forecast.learn(small, finished(1000.0, [tokens / 1000 + 5]))
    forecast.learn(large, finished(10.0, [tokens / 10 + 7]))
    assert forecast.seconds(large) == pytest.approx(tokens / 10 + 7)
    longer = sizes[next_to_small.name].flops / sizes[small.name].flops
    assert forecast.seconds(next_to_small) == pytest.approx(longer * tokens / 1000 + 5)
    for _ in range(2):  # the median of several
        forecast.learn(small, finished(500.0, [tokens / 500 + 5]))
    assert forecast.seconds(small) == pytest.approx(tokens / 500 + 5)


def test_named_hardware_gives_time_price_and_what_does_not_fit(plan):
    """The sum of the prices is that of the runs; a finished run costs nothing more, but is part of the whole."""
    runs = plan(over("model.width", [48, 64, 2**15]))
    place, sizes = described_place("A10", 8), {run.name: size_of(run) for run in runs}
    planned = {run.name: planned_on(run, place) for run in runs}
    assert all("divisible by the 8 devices" in each.problem and each.seconds is None for each in planned.values())
    planned = {run.name: planned_on(run, described_place("A10", 1)) for run in runs}
    assert [bool(planned[run.name].problem) for run in runs] == [False, False, True]
    assert "Does not fit on 1 × A10" in planned[runs[2].name].problem
    forecast = Forecast(sizes, planned=planned)
    forecast.learn(runs[0], finished(1000.0, [9e9]))  # elsewhere
    seconds = [forecast.seconds(run) for run in runs]
    assert seconds == [planned[run.name].seconds for run in runs] and seconds[0] < seconds[2]
    statuses = dict.fromkeys(sizes, Status(State.NOT_STARTED)) | {runs[0].name: Status(State.FINISHED, 20)}
    price = Price(3600.0, "EUR")
    table = plan_table(runs, statuses, sizes, forecast, 2, functools.partial(price.text, 1))
    shown = [list(column.cells) for column in table.columns]
    assert table.columns[-1].header == "price" and shown[0][3:] == ["2 left", "in all"]
    expected = [*seconds, seconds[1] + seconds[2], sum(seconds)]
    assert [float(cell.removesuffix(" EUR").replace(",", "")) for cell in shown[-1]] == pytest.approx(
        expected, abs=0.01
    )


@pytest.mark.slow
def test_devices_are_listed_in_another_process():
    peak = probe_peak("auto")
    assert peak.flops > 1e8 and "measured" in peak.label
