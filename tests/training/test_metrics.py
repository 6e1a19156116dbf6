"""Utilization, z-scores, and time accounting."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.training.metrics import (
    Throughput,
    init_monitor,
    model_flop_utilization,
    update_monitor,
)


def test_utilization_is_none_without_a_peak():
    assert model_flop_utilization(1e5, 1e9, 989e12) == pytest.approx(1e14 / 989e12)
    assert model_flop_utilization(1e5, 1e9, None) is None


# --- z-scores --------------------------------------------------------------------------------------------------------


def feed(losses, norms, steps=50):
    def step(monitor, values):
        monitor, zscores = update_monitor(monitor, *values, steps=steps)
        return monitor, (zscores["loss"], zscores["gradient_norm"])

    monitor, zscores = jax.jit(lambda *a: jax.lax.scan(step, init_monitor(), a))(
        jnp.asarray(losses), jnp.asarray(norms)
    )
    return monitor, np.asarray(zscores)


def normal(mean, deviation, size, seed=0):
    return np.random.default_rng(seed).normal(mean, deviation, size).astype(np.float32)


def test_statistics_of_the_first_steps_are_exact():
    losses, norms = normal(3, 0.5, 50), normal(1, 0.1, 50, seed=1)
    monitor, zscores = feed(losses, norms)
    assert float(monitor["count"]) == 50 and not zscores.any()
    for name, values in {"loss": losses, "gradient_norm": norms}.items():
        assert float(monitor[f"{name}_mean"]) == pytest.approx(values.mean(), rel=1e-5)
        assert float(monitor[f"{name}_variance"]) == pytest.approx(values.var(), rel=1e-3)


def test_zscores_have_unit_variance_and_an_outlier_has_a_large_one():
    losses, norms = normal(3, 0.5, 2000), normal(1, 0.1, 2000, seed=1)
    losses[1000] = 3 + 0.5 * 10
    _, (loss_z, norm_z) = feed(losses, norms)
    ordinary = np.delete(loss_z, np.arange(50).tolist() + list(range(1000, 1200)))
    assert abs(ordinary.mean()) < 0.1 and 0.9 < ordinary.std() < 1.2
    assert 7 < loss_z[1000] < 14 and abs(norm_z[1000]) < 5


def test_statistics_follow_a_drift_and_spikes_are_compared_with_the_past():
    losses = np.linspace(10, 2, 3000, dtype=np.float32)
    monitor, (loss_z, _) = feed(losses, np.ones_like(losses))
    assert float(monitor["loss_mean"]) == pytest.approx(losses[-1], abs=0.2)
    assert (loss_z[60:] < 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_value_has_an_infinite_zscore_and_leaves_the_statistics_unchanged(bad):
    losses = normal(3, 0.5, 100)
    spoiled = np.insert(losses, 60, bad)
    monitor, zscores = feed(spoiled, np.ones_like(spoiled))
    expected, _ = feed(losses, np.ones_like(losses))
    assert zscores[0, 60] == np.inf and np.isfinite(np.delete(zscores[0], 60)).all()
    for name in monitor:
        assert float(monitor[name]) == pytest.approx(float(expected[name]), rel=1e-6)


@pytest.mark.parametrize("spike", [1e20, 3e38, 1000.0])
def test_a_spike_hides_neither_itself_nor_the_next_one(spike):
    losses, norms = normal(3, 0.5, 400), normal(1, 0.1, 400, seed=1)
    norms[200], norms[210] = spike, 1 + 0.1 * 1000
    monitor, (_, norm_z) = feed(losses, norms)
    assert np.isfinite(norm_z).all() and norm_z[200] > 0.5 * min(spike / 0.1, 1e37)  # not clipped
    assert norm_z[210] > 300
    assert float(monitor["gradient_norm_mean"]) == pytest.approx(1, abs=0.1)


def test_a_spike_before_the_first_zscore_leaves_finite_statistics():
    norms = normal(1, 0.1, 4000)
    norms[20] = 1e20
    monitor, _ = feed(np.full_like(norms, 3.0), norms)
    assert float(monitor["gradient_norm_mean"]) == pytest.approx(1, abs=0.1)
    assert float(monitor["gradient_norm_variance"]) < 1


@pytest.mark.parametrize(("before", "after"), [(3.0, 8.0), (8.0, 3.0), (1.0, 1e6), (0.0, 5.0)])
def test_a_lasting_shift_is_accepted(before, after):
    steps = 128
    noise = normal(0, 0.01, 700)
    losses = np.where(np.arange(700) < 300, before + noise * (before > 0), after + noise).astype(np.float32)
    _, (loss_z, _) = feed(losses, np.ones_like(losses), steps=steps)
    assert abs(loss_z[300]) > 100
    assert (np.abs(loss_z[300 + 2 * steps :]) < 3).all()


def test_the_monitor_has_float32_scalars_for_any_input_type():
    monitor, zscores = update_monitor(init_monitor(), jnp.bfloat16(2.0), 1.0)
    assert {(leaf.shape, leaf.dtype.name) for leaf in jax.tree.leaves((monitor, zscores))} == {((), "float32")}


# --- throughput ------------------------------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_rates_exclude_pauses_and_include_waiting_for_data():
    clock = Clock()
    throughput = Throughput(tokens_per_step=1000, clock=clock)
    with throughput.pause("compile"):
        clock.now += 30
    for _ in range(10):
        with throughput.waiting_for_data():
            clock.now += 0.1
        clock.now += 0.4
        throughput.count()
    with throughput.pause("evaluation"):
        clock.now += 7
    rates = throughput.lap()
    assert rates.tokens_per_second == pytest.approx(2000)
    assert rates.step_milliseconds == pytest.approx(500)
    assert rates.data_wait_fraction == pytest.approx(0.2)

    clock.now += 5
    throughput.count(steps=5)
    assert throughput.lap().step_milliseconds == pytest.approx(1000)
    assert throughput.overall().step_milliseconds == pytest.approx(10_000 / 15)
    assert throughput.training_seconds == pytest.approx(10)
    assert throughput.elapsed_seconds == pytest.approx(47)
    assert throughput.seconds == pytest.approx({"compile": 30, "evaluation": 7})


def test_a_lap_without_steps_has_no_rates():
    assert math.isnan(Throughput(1000, clock=Clock()).lap().tokens_per_second)


def test_a_pause_that_raises_still_counts_as_a_pause():
    clock = Clock()
    throughput = Throughput(1, clock=clock)
    with pytest.raises(RuntimeError), throughput.pause("checkpoint"):
        clock.now += 2
        raise RuntimeError
    assert throughput.seconds == pytest.approx({"checkpoint": 2})
