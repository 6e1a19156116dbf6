"""Signals request a stop at the next step."""

import os
import signal

import pytest

from gptjax.training.interrupt import StopRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_requests_a_stop(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.reached(1)
        os.kill(os.getpid(), number)
        assert stop.reached(1) and stop.name == number.name
    assert signal.getsignal(number) == before


def test_the_first_ctrl_c_prints_what_it_does_and_the_second_interrupts(capfd):
    with StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        assert "then saving" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 0.1)


def test_a_signal_after_the_first_step_has_begun_requests_a_stop_again():
    with StopRequest(every=None) as stop:
        stop.begin(2)
        os.kill(os.getpid(), signal.SIGTERM)
        assert not stop.reached(1) and stop.reached(2)


def test_under_nohup_a_closed_terminal_requests_no_stop():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.reached(1)
    finally:
        signal.signal(signal.SIGHUP, before)
