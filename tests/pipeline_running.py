"""A corpus pipeline run within a test: in this process, telling nobody."""

from contextlib import contextmanager


class Here:
    """An executor that does the work itself."""

    def run(self, function, items):
        return ((index, function(item)) for index, item in enumerate(items))


@contextmanager
def watch(stage, sizes):
    yield lambda number, result: None
