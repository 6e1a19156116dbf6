"""Counts, sizes and durations as text."""

import math

import pytest

from gptjax.display.formatting import bytes_text, count_text, counted, duration_text, size_text, span_text


@pytest.mark.parametrize(
    "number, text",
    [
        *((0, "0"), (12.3456, "12.3"), (999, "999"), (999.7, "1k"), (20_212, "20.2k"), (124_439_808, "124M")),
        *((999_950, "1M"), (8.03e9, "8.03B"), (3e18, "3000P"), (None, "n/a"), (math.nan, "n/a")),
    ],
)
def test_counts(number, text):
    assert count_text(number) == text


def test_bytes_and_durations():
    assert [bytes_text(n) for n in (None, 5 * 2**20, 2**30, 1.5e11)] == ["n/a", "5 MiB", "1.0 GiB", "139.7 GiB"]
    seconds = (0, 75, 3599.6, 3675, 47 * 3600, 51 * 3600, math.nan, None)
    expected = ["0:00", "1:15", "1:00:00", "1:01:15", "47:00:00", "2d 03h", "n/a", "n/a"]
    assert [duration_text(s) for s in seconds] == expected


def test_the_noun_agrees_with_its_number():
    assert [counted(n, "document") for n in (0, 1, 2, 1234)] == [
        *("0 documents", "1 document", "2 documents", "1,234 documents")
    ]
    assert (counted(1, "loss", "losses"), counted(3, "loss", "losses")) == ("1 loss", "3 losses")


def test_sizes_have_a_suitable_unit():
    expected = {
        **{0: "0 B", 999: "999 B", 999.4: "999 B", 1000: "1.00 KB", 20_486: "20.5 KB", 99_951: "100 KB"},
        **{999_499: "999 KB", 999_500: "1.00 MB", 1_115_394: "1.12 MB", 1_234_567_890: "1.23 GB", 5e15: "5,000 TB"},
    }
    assert {size: size_text(size) for size in expected} == expected


def test_spans_have_two_units_at_most():
    seconds = [0.42, 9.7, 75, 272, 3368, 15_284, 1.76e6, None]
    expected = ["0.4 s", "10 s", "75 s", "5 min", "56 min", "4 h 15 min", "20 d 9 h", "n/a"]
    assert [span_text(each) for each in seconds] == expected
