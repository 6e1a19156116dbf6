import time

import pytest

from gptjax.corpus.sources.limits import TimeIsUp, time_limit


def work(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


class Tidy:
    def __del__(self):
        work(0.1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_limit_met_where_exceptions_are_lost_is_told_again():
    with pytest.raises(TimeIsUp), time_limit(0.02):
        Tidy()
        work(5)


def test_what_is_in_time_is_left_alone_and_so_is_what_comes_after():
    with time_limit(0.2):
        work(0.01)
    work(0.3)
