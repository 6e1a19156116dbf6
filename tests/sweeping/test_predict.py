"""Predicted sizes equal those of the trained model; times follow the finished runs of the nearest size."""

import jax
import pytest

from gptjax import train
from gptjax.model.parameters import count_parameters
from gptjax.sweeping.algebra import over
from gptjax.sweeping.definition import override
from gptjax.sweeping.predict import Forecast, probe_peak, size_of
from gptjax.sweeping.runs import State, Status
from gptjax.user_code import load_config


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


@pytest.mark.slow
def test_devices_are_listed_in_another_process():
    peak = probe_peak("auto")
    assert peak.flops > 1e8 and "measured" in peak.label
