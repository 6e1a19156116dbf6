"""The card's plots with small values and with many bars."""

from gptjax.corpus.report.plots import MOST, _draw_funnel, _short


class Axes:
    """Fake axes, which record the labels and lengths of bars."""

    def set_yticks(self, places, names):
        self.names = names

    def barh(self, places, sizes, color):
        self.sizes = sizes

    def __getattr__(self, name):
        return lambda *args, **named: None


def test_the_funnel_names_the_largest_reasons_and_counts_the_rest():
    names = [f"gopher_repetition.max_duplicate_paragraph_share_{number:02d}" for number in range(MOST + 3)]
    dropped = {name: {"documents": 1, "bytes": 100_000 * (20 - number)} for number, name in enumerate(names)}
    out = sum(counts["bytes"] for counts in dropped.values())
    source = {"extracted": {"bytes": 10**8}, "dropped": dropped, "splits": {"train": {"bytes": 10**8 - out}}}
    axes = Axes()
    _draw_funnel(axes, {"sources": [source]})
    assert axes.names[1] == "out: max_duplicate_paragraph_share_00" and axes.names[-2] == "out: 3 other reasons"
    assert len(set(axes.names)) == MOST + 3
    both = ("gopher_repetition.max_line", "fineweb.max_line", "fineweb.max_words")
    source["dropped"] = {name: {"bytes": 10 - number} for number, name in enumerate(both)}
    _draw_funnel(axes, {"sources": [source]})
    assert axes.names[1:-1] == tuple(f"out: {name}" for name in (*both[:2], "max_words"))


def test_the_bars_of_the_funnel_add_up():
    dropped = {f"rule_{number}": {"bytes": 100_000 * (20 - number)} for number in range(MOST + 3)}
    out = sum(counts["bytes"] for counts in dropped.values())
    source = {"extracted": {"bytes": 10**8}, "dropped": dropped, "splits": {"train": {"bytes": 10**8 - out}}}
    axes = Axes()
    _draw_funnel(axes, {"sources": [source]})
    assert abs(axes.sizes[0] - sum(axes.sizes[1:])) < 1e-9


def test_labels_that_begin_alike_stay_different():
    names = [f"a_module_of_my_own.rules:of_{'very_' * 9}long_names_{end}" for end in ("a", "b")]
    labels = [_short(name) for name in names]
    assert len(set(labels)) == 2 and max(map(len, labels)) < 60
