"""The lines that describe differing settings."""

from hypothesis import given
from hypothesis import strategies as st

from gptjax.display.differences import (
    MOST_CHARACTERS,
    MOST_LINES,
    differences,
    lines,
    parts_that_differ,
    with_lines,
    without_line_breaks,
)


def test_only_differing_fields_are_listed():
    there = {"a": 1, "files": [{"name": "x", "size": 3}, {"name": "y", "size": 4}], "list": [1, 2]}
    here = {"a": 1, "files": [{"name": "y", "size": 5}, {"name": "x", "size": 3}], "list": [1, 3], "new": True}
    assert differences(there, here) == {"files.y.size": (4, 5), "list": ([1, 2], [1, 3]), "new": (None, True)}
    assert lines(differences(there, here)) == [
        "  files.y.size: was 4, is now 5",
        "  list: was [1, 2], is now [1, 3]",
        "  new: was not set, is now true",
    ]
    assert differences({"n": [{"name": "x"}] * 2}, {"n": [{"name": "x"}]}) == {"n.1": ({"name": "x"}, None)}


def test_long_values_are_cut_to_the_part_that_differs():
    path = "/data/" + "x" * 200
    assert parts_that_differ(f"{path}/one/{path}", f"{path}/two/{path}") == (
        "…xxxxxxxxxxx/one//data/xxxxx…",
        "…xxxxxxxxxxx/two//data/xxxxx…",
    )
    assert parts_that_differ("short", "other") == ("short", "other")


@given(st.text("ab", max_size=200), st.text("ab", max_size=200), st.text("ab", max_size=200))
def test_both_texts_are_short_and_show_the_difference(start, one, two):
    a, b = start + one + start, start + two + start
    shown = parts_that_differ(a, b)
    assert max(map(len, shown)) <= MOST_CHARACTERS + 2 and (shown[0] != shown[1]) == (a != b)


def test_a_long_list_ends_with_the_number_of_further_differences():
    shown = lines({str(number): (number, None) for number in range(MOST_LINES + 5)})
    assert len(shown) == MOST_LINES + 1 and shown[-1] == "  … and 5 more"


def test_only_the_list_of_differences_keeps_its_line_breaks():
    message = with_lines("a\n  sentence", {"seed": (0, 1), "name": ("x", "y")})
    assert message.startswith("a\n") and "differs:" in message
    assert without_line_breaks(message) == "a sentence. What differs:\n  seed: was 0, is now 1\n  name: was x, is now y"
    assert without_line_breaks("two\nlines ") == "two lines"
