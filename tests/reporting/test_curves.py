"""Plots as SVG: points where the numbers are, round ticks, gaps, no markup from names."""

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from gptjax.reporting.curves import COLORS, Line, drawn, ticks, with_colors


def points(svg):
    return [
        [tuple(map(float, pair.split(","))) for pair in one.split()] for one in re.findall(r'points="([^"]*)"', svg)
    ]


def test_a_line_goes_through_its_numbers():
    x, y = np.array([0.0, 50, 100]), np.array([1.0, 3, 2])
    svg = drawn([Line("a", x, y)], "steps")
    ((first, middle, last),) = points(svg)
    assert middle[0] == pytest.approx((first[0] + last[0]) / 2, abs=0.2)
    assert (last[1] - middle[1]) / (first[1] - middle[1]) == pytest.approx(0.5, abs=0.01), "y grows downwards"


def test_values_that_are_not_finite_leave_a_gap():
    y = np.array([1.0, 2, math.nan, math.inf, 2, 1])
    y[3] = math.nan
    assert list(map(len, points(drawn([Line("a", np.arange(6.0), y)], "x")))) == [2, 2]


@pytest.mark.parametrize("y", [[math.nan] * 3, [], [1.0], [math.nan, 2.0]])
def test_without_two_finite_values_nothing_is_drawn(y):
    assert drawn([Line("a", np.arange(float(len(y))), np.array(y))], "x") == ""


@pytest.mark.parametrize("y", [[5.0, 5.0], [1e-12, 2e-12], [-3e20, 4e20]])
def test_extreme_values_can_be_drawn(y):
    svg = drawn([Line("a", np.arange(float(len(y))), np.array(y), marks=True)], "x")
    numbers = [float(n) for n in re.findall(r'c[xy]="([^"]*)"', svg)]
    assert numbers and all(0 <= number <= 700 for number in numbers)


def test_a_spike_does_not_flatten_the_rest():
    y = np.linspace(3, 2, 200)
    y[100] = 1e6
    (line,) = points(drawn([Line("a", np.arange(200.0), y)], "x"))
    heights = [y for _, y in line]
    assert max(heights) - min(heights[:50]) > 100


def test_names_are_text_and_the_drawing_is_xml():
    name = "<script>&\"'"
    svg = drawn([Line(name, np.arange(3.0), np.arange(3.0)), Line("b", np.arange(3.0), np.ones(3), 2)], name)
    texts = [each.text for each in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert name in texts and "b" in texts


def test_without_a_style_sheet_every_colour_is_one():
    svg = drawn(
        [Line(str(n), np.arange(3.0), np.arange(3.0) * n, n) for n in range(1, 12)], "x", also=("tokens", 100.0)
    )
    assert "var(" in svg and "var(" not in with_colors(svg)
    assert set(re.findall(r"var\(([^)]*)\)", svg)) <= COLORS.keys()


@pytest.mark.parametrize("low, high", [(0, 1), (2.3, 7.9), (-5, 5), (0, 800), (1e-9, 3e-9), (1e6, 1e6 + 1)])
def test_ticks_are_round_and_within_the_range(low, high):
    found = ticks(low, high, 5)
    assert 2 <= len(found) <= 8 and low - 1e-9 * abs(low) <= found[0] and found[-1] <= high + 1e-9 * abs(high)


def test_a_legend_hides_no_curve():
    x = np.arange(10.0)
    falling, rising = [[Line("a", x, y, marks=True), Line("b", x, y / 2, 2, marks=True)] for y in (10 - x, x)]
    for lines, height in ((falling, 250), (rising, 250 + 2 * 16)):
        svg = drawn(lines, "x")
        assert f'viewBox="0 0 680 {height}"' in svg
        dots = [(float(a), float(b)) for a, b in re.findall(r'cx="([^"]*)" cy="([^"]*)"', svg)]
        assert not [dot for dot in dots if dot[0] > 600 and dot[1] < 12 + 2 * 16]
