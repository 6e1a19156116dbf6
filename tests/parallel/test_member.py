"""One member with a scripted hub: what it sends, how it reacts to messages, and how it ends.

`test_members` tests with several real processes.
"""

import os
import queue
import socket
import threading

import jax
import pytest

from gptjax.config import ConfigError, RunError
from gptjax.display.differences import with_lines
from gptjax.errors import EndedBySignal
from gptjax.parallel import member
from gptjax.parallel.hub import Channel
from gptjax.parallel.meeting import Meeting, Timeouts

LONG = 60.0  # seconds
MADE = []  # members of the running test


class Connected(member.Member):
    """Process 1 of 2, connected to `hub`. `ended` collects the exit statuses with which it would have ended its
    process."""

    def __init__(self, monkeypatch, heartbeat=LONG):
        monkeypatch.setattr(member.atexit, "register", lambda work: None)  # the tests run in this process
        here, there = _over_tcp()
        super().__init__(Meeting("127.0.0.1", 1, 2, 1), Timeouts(heartbeat=heartbeat))
        self._connected, self.hub = Channel(here, heartbeat), Channel(there, LONG)
        self.ended = queue.SimpleQueue()
        monkeypatch.setattr(member, "exit_at_once", self.ended.put)
        MADE.append(self)

    def listen(self):
        thread = threading.Thread(target=self._listen, daemon=True)
        thread.start()
        return thread


def _over_tcp():
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.socket()
        one.connect(server.getsockname())
        return one, server.accept()[0]


@pytest.fixture(autouse=True)
def retired(monkeypatch):
    """Cancels the timer, which would otherwise end the process that runs the tests."""
    yield
    while MADE:
        process = MADE.pop()
        process._leaving = True  # a listener that loses its hub from now on ignores it
        if process._timer is not None:
            process._timer.cancel()


@pytest.fixture
def process(monkeypatch):
    return Connected(monkeypatch)


def test_a_known_error_is_reported_whole_and_a_bug_by_its_first_line():
    refusal = with_lines("the data\nchanged", {"seed": (0, 1), "data: order": ("a", "b")})
    whole = "the data changed. What differs:\n  seed: was 0, is now 1\n  data: order: was a, is now b"
    assert member._reason(ConfigError(refusal)) == member._reason(RunError(refusal)) == whole
    assert member._reason(ValueError("of XLA\n  deep inside")) == "ValueError: of XLA"
    assert member._reason(KeyboardInterrupt()) == "interrupted"


@pytest.mark.parametrize(
    "error, status",
    [
        (ConfigError("a"), 2),
        (FileNotFoundError("a"), 2),
        (KeyboardInterrupt(), 130),
        (SystemExit(7), 7),
        (SystemExit("a sentence"), 1),
        (RunError("a"), 1),
        (EndedBySignal("a", 15), 143),
        (KeyError("a"), 1),
    ],
)
def test_a_member_exits_with_the_status_of_the_commands(error, status):
    assert member._exit_status(error) == status


@pytest.mark.parametrize("status, kind", [(2, ConfigError), (1, RunError), (143, EndedBySignal)])
def test_the_end_of_the_run_is_confirmed_and_raises_where_the_program_waits(process, monkeypatch, status, kind):
    monkeypatch.setattr(member, "GRACE", 0.0)
    process.listen()
    process.hub.send("beat"), process.hub.send("ended", reason="so \x1b]0;x\a it is", status=status)
    assert process.hub.receive() == {"kind": "heard"}
    with pytest.raises(kind, match=r"so .* it is"):
        process._answer()
    assert process.ended.get(timeout=LONG) == status  # after GRACE seconds


def test_control_characters_are_removed_from_the_last_message(process, capfd):
    process._exit_after(LONG, "error: another\n")
    process._exit_after(0.0, "error: \x1b]0;x\a\n")
    assert process.ended.get(timeout=LONG) == 1 and process.ended.empty()
    shown = capfd.readouterr().err
    assert shown.startswith("error: ") and "\x1b" not in shown and "another" not in shown


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"[]\n", None])
def test_a_hub_that_sends_invalid_data_or_disconnects_is_gone(process, said):
    listening = process.listen()
    if said is None:
        process.hub._socket.shutdown(socket.SHUT_RDWR)
    else:
        process.hub._socket.sendall(said)
    listening.join(LONG)
    process._timer.cancel()
    assert process.reason.startswith("process 0 is gone: it was killed")
    assert process._known.is_set() and process._over.is_set()


def test_a_silent_hub_is_reported_with_the_timeout(monkeypatch):
    process = Connected(monkeypatch, heartbeat=0.1)
    process.listen().join(LONG)
    process._timer.cancel()
    assert process.reason.startswith("process 0 has been silent for 0.1 s (--heartbeat_timeout)")
    assert not process._known.is_set()  # the hub may still have a reason of its own
    assert process.hub.receive() == {"kind": "failed", "reason": process.reason, "status": 1}  # if it wakes up


def test_a_member_that_has_left_does_not_end_with_the_others(process):
    listening = process.listen()
    process.hub.send("answer", problem="")
    process.leave()
    assert [process.hub.receive()["kind"] for _ in range(2)] == ["agree", "leave"]
    process.hub.send("ended", reason="later", status=1)
    listening.join(LONG)
    assert process.reason is None and process._timer is None and process.ended.empty()


def test_heartbeats_carry_the_phase_and_the_number_of_batches(process, monkeypatch):
    monkeypatch.setattr(member, "beat_seconds", lambda timeout: 0.01)
    process.begin("compiling"), process.begin("training")
    process.batches = 3
    beating = threading.Thread(target=process._beat, daemon=True)
    beating.start()
    assert process.hub.receive() == {"kind": "beat", "batches": 3, "phase": "training", "begun": 2}
    process._leaving = True
    beating.join(LONG)
    assert not beating.is_alive()


def test_an_error_caused_by_a_lost_process_is_replaced_by_the_hubs_reason(process, monkeypatch):
    """An error from XLA waits for the heartbeat timeout, another unexpected error only briefly, and a known error not
    at all."""
    monkeypatch.setattr(member, "CAUSE_TIMEOUT", 0.0)
    process._known.set()
    for own in (ConfigError("no folder"), KeyError("a bug")):
        assert process.fail(own) is own
    assert [process.hub.receive()["reason"] for _ in range(2)] == ["no folder", "KeyError: 'a bug'"]
    later = threading.Timer(0.05, lambda: process._over.set())
    process.reason = "process 2 is gone"
    later.start()
    raised = process.fail(jax.errors.JaxRuntimeError("connection reset"))
    assert isinstance(raised, RunError) and str(raised) == "process 2 is gone"
    assert process.hub.receive() == {"kind": "failed", "reason": "process 2 is gone", "status": 1}
    assert process.ended.empty() and process._status == 1
    process._timer.cancel()
    process._exit_in_time()
    assert process.ended.get(timeout=LONG) == 1


def test_a_program_that_hangs_after_its_error_is_ended_with_the_errors_status(process, monkeypatch):
    monkeypatch.setattr(member, "GRACE", 0.0), monkeypatch.setattr(member, "EXIT_TIMEOUT", 0.0)
    process.fail(ConfigError("no folder"))
    assert process.ended.get(timeout=LONG) == 2


def test_process_0_connects_to_localhost_and_the_others_to_its_name(monkeypatch):
    """A failed connection is retried, and reported only once."""
    tried = []

    def connect(address, timeout):
        tried.append(address)
        if len(tried) < 3:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        here, there = _over_tcp()
        Channel(there, LONG).send("welcome")
        kept.append(there)
        return here

    kept, said = [], []
    monkeypatch.setattr(member.socket, "create_connection", connect)
    monkeypatch.setattr(member, "_say", said.append), monkeypatch.setattr(member.time, "sleep", lambda seconds: None)
    process = member.Member(Meeting("this.machine.invalid", 5, 2, 0), Timeouts())
    process._connect(member.time.monotonic() + LONG)
    assert tried == [("localhost", 5)] * 3 and said == ["localhost: not known; trying again"]
    tried.clear()
    other = member.Member(Meeting("this.machine.invalid", 5, 2, 1), Timeouts())
    other._connect(member.time.monotonic() + LONG)
    assert tried == [("this.machine.invalid", 5)] * 3


def test_the_marker_file_in_a_shared_folder_is_always_removed(process, tmp_path, monkeypatch):
    process._token, process._meeting = "t", Meeting("127.0.0.1", 1, 2, 0)
    monkeypatch.setattr(process, "agree", lambda facts: seen.append(os.listdir(tmp_path)))
    seen = []
    process.check_shared(tmp_path, "--workdir")
    assert seen == [[".seen-t"]] * 2 and not os.listdir(tmp_path)
    monkeypatch.setattr(process, "agree", lambda facts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        process.check_shared(tmp_path, "--workdir")
    assert not os.listdir(tmp_path)


def test_answers_arrive_in_order_and_a_problem_raises(process):
    process.listen()
    process.hub.send("answer", problem=""), process.hub.send("answer", problem="seed = 1 in process 0, 2 in process 1")
    process.agree({"seed": 2})
    assert process.phase == ("waiting for the others", 1)
    with pytest.raises(ConfigError, match="seed = 1 in process 0"):
        process.agree({})
