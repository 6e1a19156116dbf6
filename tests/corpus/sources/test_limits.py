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
def test_a_time_limit_is_raised_again_if_the_exception_is_swallowed():
    with pytest.raises(TimeIsUp), time_limit(0.02):
        Tidy()
        work(5)


def test_work_within_the_time_limit_and_later_work_are_not_interrupted():
    with time_limit(0.2):
        work(0.01)
    work(0.3)
