"""The hub with scripted connections: which processes it names, and what ends a run."""

import socket

import pytest

from gptjax.parallel.hub import Channel, Hub, ProcessProgress, hangs_at_batch, hangs_at_start, listen

PATIENCE = 60.0  # seconds


def test_the_processes_furthest_behind_are_named():
    progress = {"a": ProcessProgress(2, 0, "compiling"), "b": ProcessProgress(1, 0, "opening the data")}
    said = hangs_at_start(progress, 5.0)
    assert said.startswith("b: no progress for 5 s while opening the data, and the others wait (--startup_timeout")
    assert hangs_at_start({"a": progress["a"], "b": progress["a"]}, 5.0).startswith(
        "a and b: no progress for 5 s while compiling (--startup_timeout"
    )
    batches = {name: ProcessProgress(9, count) for name, count in (("a", 4), ("b", 3), ("c", 3))}
    assert "(--batch_timeout): b, c at batch 3, the others up to batch 4;" in hangs_at_batch(batches, 5.0)
    assert "all are at batch 4;" in hangs_at_batch({"a": batches["a"]}, 5.0)


class Run:
    def __init__(self, of=2, heartbeat=PATIENCE, startup=0.0, batch=0.0):
        server = listen("127.0.0.1", 0)
        self.place = server.getsockname()
        self.hub = Hub(server, of, 1234, heartbeat, startup, batch)

    def connect(self, data=None, **hello):
        connection = socket.create_connection(self.place)
        channel = Channel(connection, PATIENCE)
        if data is not None:
            connection.sendall(data)
        else:
            channel.send("hello", **hello)
        return channel

    def member(self, process, of=2):
        channel = self.connect(process=process, of=of, host="h")
        assert channel.receive() == {"kind": "welcome"}
        return channel


def next_of(channel):
    while (message := channel.receive())["kind"] in ("beat", "start"):
        pass
    return message


def test_facts_are_compared_in_every_round():
    run = Run()
    both = [run.member(process) for process in range(2)]
    for facts, problem in (([1, 1], ""), ([2, 3], "seed = 2 in process 0, 3 in process 1"), ([4, 4], "")):
        for channel, fact in zip(both, facts):
            channel.send("agree", facts={"seed": fact})
        said = [next_of(channel)["problem"] for channel in both]
        assert said[0] == said[1] and said[0].startswith(problem) and bool(said[0]) == bool(problem)


def test_only_the_first_reason_counts_and_all_processes_receive_it():
    run = Run()
    first, second = (run.member(process) for process in range(2))
    first.send("failed", reason="a\n  b", status=2)
    ended = {"kind": "ended", "reason": "process 0 on h failed: a\n  b", "status": 2}
    assert next_of(first) == next_of(second) == ended
    run.hub.end("another")
    run.hub._broadcast("what follows")
    assert next_of(first) == {"kind": "what follows"}
    second.send("failed", reason="later", status=1)
    assert run.hub._unaware == {0, 1}
    first.send("heard"), second.send("heard")
    run.hub.wait_until_heard(PATIENCE)
    assert 1 not in run.hub._unaware


def test_the_others_hear_which_signal_ended_a_process_and_its_status():
    run = Run()
    stopped, other = (run.member(process) for process in range(2))
    stopped.send("failed", reason="stopped by SIGTERM", status=143)
    assert next_of(other) == {"kind": "ended", "reason": "process 0 on h was stopped by SIGTERM", "status": 143}


def test_a_process_that_connects_when_the_run_is_over_is_told_so():
    run = Run()
    other = run.connect(process=1, of=3, host="h")
    reason = "--num_processes=2 in process 0, 3 in process 1 on h: must be the same in all"
    ended = {"kind": "ended", "reason": reason, "status": 2}
    assert other.receive() == ended
    late = run.member(0)
    assert late.receive() == ended


@pytest.mark.parametrize(
    "process, of, words", [(1, 3, "--num_processes=3: the run"), (1, 2, "--process_id=1: is already used")]
)
def test_a_process_of_another_run_does_not_end_a_complete_one(process, of, words):
    run = Run()
    both = [run.member(number) for number in range(2)]
    other = run.connect(process=process, of=of, host="elsewhere")
    refusal = other.receive()
    assert (refusal["kind"], refusal["status"]) == ("ended", 2)
    assert words in refusal["reason"] and refusal["reason"].endswith("own port in --coordinator")
    assert other.receive() is None
    both[0].send("failed", reason="something else", status=1)
    assert [next_of(channel)["reason"] for channel in both] == ["process 0 on h failed: something else"] * 2


@pytest.mark.parametrize("leaves", [True, False])
def test_a_connection_that_closes_without_leave_ends_the_run(leaves):
    run = Run()
    stays, goes = (run.member(process) for process in range(2))
    if leaves:
        goes.send("leave")
    goes._socket.shutdown(socket.SHUT_RDWR)
    if leaves:
        stays.send("failed", reason="something else", status=1)
    said = next_of(stays)["reason"]
    assert said.startswith("process 0 on h failed: something" if leaves else "process 1 on h is gone: it was killed")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"[]\n",
        b"{}\n",
        b'{"kind": "hello", "process": "x", "of": 2}\n',
        b'{"kind": "hello", "process": 2, "of": 2, "host": "h"}\n',
        b'{"kind": "hello", "process": Infinity, "of": 2, "host": "h"}\n',
        b'{"kind"',
    ],
)
def test_a_client_that_is_not_part_of_the_run_is_ignored(data):
    run = Run()
    stranger = run.connect(data)
    stranger._socket.shutdown(socket.SHUT_WR)
    assert stranger.receive() is None
    both = [run.member(process) for process in range(2)]
    assert [channel.receive()["kind"] for channel in both] == ["start", "start"] and not run.hub.missing()


def test_a_silent_process_and_a_hanging_phase_end_the_run():
    run = Run(heartbeat=0.2)
    assert "process 0 on h has been silent for 0.2 s (--heartbeat_timeout)" in next_of(run.member(0))["reason"]

    run = Run(startup=0.2, batch=0.0)
    channels = [run.member(process) for process in range(2)]
    channels[0].send("beat", begun=3, batches=0, phase="compiling")
    channels[1].send("beat", begun=2, batches=1, phase="opening")
    assert "h: no progress for 0.2 s while " in next_of(channels[0])["reason"], "until all processes have put a batch"
