"""The time of kernels and transfers, compared with hand computations."""

import dataclasses

import pytest

from gptjax.forecast.duration import CACHE, EFFICIENCIES, Cases, send_seconds, step_time
from gptjax.forecast.hardware import BY_NAME
from gptjax.forecast.kernels import Kernel
from gptjax.forecast.memory import Memory
from gptjax.forecast.step import Needs
from gptjax.parallel.traffic import Collective

H100 = BY_NAME["H100"]
PEAK = 989e12
NOTHING = Memory(0, 0, 0, 0, 0, 0)


def needs(*kernels, sent=()):
    return Needs("formula", NOTHING, kernels, sent)


def test_a_kernel_takes_the_longer_time_of_its_products_and_its_bytes():
    shares = EFFICIENCIES["gpu"]
    large = step_time(needs(Kernel("product", 1e15, False, 1e9, 2)), H100, PEAK)
    assert large.step.likely == pytest.approx(2e15 / PEAK / shares.products.likely, rel=1e-3)
    thin = step_time(needs(Kernel("product", 1e9, False, 1e12, 1)), H100, PEAK)
    assert thin.step.likely == pytest.approx(1e12 / H100.bandwidth / shares.memory.likely, rel=1e-3)
    eight = step_time(needs(Kernel("product", 1e15, True, 1e9, 2)), H100, PEAK)
    assert eight.step.likely == pytest.approx(large.step.likely / 1.5, rel=1e-3)
    assert large.step.fast < large.step.likely < large.step.slow
    moved = 1e12 / PEAK / shares.products.likely * H100.bandwidth * shares.memory.likely
    balanced = step_time(needs(Kernel("product", 1e12, False, moved, 1)), H100, PEAK)
    assert balanced.step.likely == pytest.approx(1e12 / PEAK / shares.products.likely, rel=0.01)  # not the sum


def test_on_processors_small_kernels_find_their_arrays_in_the_cache():
    shares, here = EFFICIENCIES["cpu"], dataclasses.replace(H100, platform="cpu", bandwidth=25e9)

    def seconds(moved, times=1):
        return step_time(needs(Kernel("other", 0.0, False, moved, times)), here, 1e11).step.likely

    assert seconds(8e9) == pytest.approx(8e9 / 25e9 / shares.memory.likely, rel=1e-3)
    assert seconds(8e6, 1000) == pytest.approx(seconds(8e9) / CACHE + 1000 * shares.start.likely, rel=1e-3)


def test_on_processors_a_kernel_takes_the_time_of_its_products_and_of_its_bytes():
    shares, here = EFFICIENCIES["cpu"], dataclasses.replace(H100, platform="cpu", bandwidth=25e9)
    both = step_time(needs(Kernel("product", 1e11, False, 20e9, 1)), here, 1e11).step.likely
    assert both == pytest.approx(1 / shares.products.likely + 20 / 25 / shares.memory.likely, rel=1e-3)


def test_none_half_or_all_of_the_communication_is_hidden():
    sent = (Collective("all-gather", 10**10, tuple(range(8)), 1),)
    time = step_time(needs(Kernel("product", 1e15, False, 1e9, 1), sent=sent), H100, PEAK)
    assert time.sending.likely > 0
    for case, share in zip(Cases._fields, (1.0, 0.5, 0.0)):
        seconds = getattr(time.products, case) + share * getattr(time.sending, case)
        assert getattr(time.step, case) == pytest.approx(seconds)
    little = step_time(needs(Kernel("product", 1e12, False, 1e6, 1), sent=sent), H100, PEAK)
    assert little.step.fast == pytest.approx(little.sending.fast)  # no more is hidden than there is to compute


def test_a_group_of_several_nodes_waits_for_the_network():
    within = Collective("all-gather", 8 * 10**9, tuple(range(8)), 1)
    across = within._replace(group=tuple(range(0, 64, 8)))
    both = within._replace(group=tuple(range(64)))
    assert send_seconds(within, H100, 1.0, 0.0) == pytest.approx(7e9 / H100.link)
    assert send_seconds(across, H100, 1.0, 0.0) == pytest.approx(7e9 / H100.network)
    assert send_seconds(both, H100, 1.0, 0.0) < send_seconds(across, H100, 1.0, 0.0) / 7  # eight network cards at once


def test_fractions_are_between_0_and_1():
    for efficiency in EFFICIENCIES.values():
        for name in ("products", "attention", "memory", "links", "hidden"):
            cases = getattr(efficiency, name)
            assert 0 <= cases.slow <= cases.likely <= cases.fast <= 1
        assert efficiency.sources and dataclasses.is_dataclass(efficiency)
