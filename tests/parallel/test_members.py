"""Several processes are one run: whatever happens to one, all of them end and report the reason."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from forked import ForkedProcess

from gptjax.display.differences import with_lines

pytestmark = pytest.mark.slow

WORKER = Path(__file__).parents[1] / "support" / "member_worker.py"
HOST = socket.gethostname()
PATIENCE = 120  # seconds; no test waits this long unless something hangs
FOREVER = ["sleep", 2 * PATIENCE]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Processes:
    """Members of one run. Each argument of `start` gives the actions of one member. `with` kills the remaining ones."""

    def __init__(self):
        self.port = free_port()
        self.started = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.started:
            process.kill()
            process.communicate(PATIENCE)

    def start(self, number, of, actions, coordinator=None, **timeouts):
        place = [coordinator or f"127.0.0.1:{self.port}", str(of), str(number)]
        process = ForkedProcess(WORKER, [*place, json.dumps(timeouts), *map(json.dumps, actions)])
        self.started.append(process)
        return process

    def end(self, process):
        """(exit status, stdout, stderr after the line that says that it waits)"""
        out, err = process.communicate(timeout=PATIENCE)
        waits, _, rest = err.partition("\n")
        assert waits.startswith("process ") and "--initialization_timeout" in waits, err
        out = "".join(line for line in out.splitlines(True) if not line.startswith("[Gloo]"))  # messages of the library
        return process.returncode, out, rest


def run(*actions, **timeouts):
    """How members with these actions end."""
    with Processes() as processes:
        started = [processes.start(number, len(actions), what, **timeouts) for number, what in enumerate(actions)]
        return [processes.end(process) for process in started]


def test_members_that_agree_end_with_status_0(tmp_path):
    facts = [["agree", {"config.seed": 1, "data": [1, 2]}], ["shared", str(tmp_path)], ["meet in a program"]]
    for status, out, err in run(facts, [["sleep", 0.5], *facts], [*facts, ["sleep", 0.5]]):
        assert (status, out, err) == (0, "left\n", "")
    assert not list(tmp_path.iterdir())


def test_members_that_differ_are_refused_with_both_values():
    same, other = {"config.seed": 0, "data.files": "ab"}, {"config.seed": 7, "data.files": "ab"}
    ended = run([["agree", same]], [["agree", same]], [["agree", other]])
    for status, out, err in ended:
        assert (status, out) == (2, "")
        assert err == (
            "error: config.seed = 0 in process 0, 7 in process 2: must be the same in all processes of a run\n"
        )


@pytest.mark.parametrize("failing, waiting", [(0, ["agree", {}]), (0, FOREVER), (1, ["devices"])])
def test_a_failing_process_ends_all(failing, waiting):
    actions = [[waiting], [waiting]]
    reason = with_lines("data.path = 'nowhere': no such folder", {"seed": (0, 1)})
    actions[failing] = [["fail", reason]]
    ended = run(*actions)
    assert ended[failing] == (2, "", f"error: {reason}\n")
    sentence = f"error: process {failing} on {HOST} failed: {reason}\n"
    assert ended[1 - failing] == (2, "", sentence)  # a retry would not help


def test_a_bug_has_a_traceback_in_its_process_and_one_line_in_the_others():
    (status, _, err), (other_status, _, other_err) = run([["break down"]], [FOREVER])
    assert status == other_status == 1
    assert "Traceback" in err and "KeyError" in err
    assert other_err == f"error: process 0 on {HOST} failed: KeyError: 'of a bug'\n"


def test_an_interrupt_ends_all():
    (status, _, err), (other_status, _, other_err) = run([FOREVER], [["interrupt"]])
    assert (status, other_status) == (1, 130)
    assert err == f"error: process 1 on {HOST} failed: interrupted\n" and other_err == "interrupted\n"


NOTHING_SAVED = "before the first step of this start: nothing new was saved, and the same command starts it again\n"


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_signal_before_the_first_step_ends_all_with_one_sentence_and_status(stopped):
    """This includes processes that wait in XLA, where Python calls no signal handler."""
    actions = [[["meet in a program"], FOREVER] for _ in range(2)]
    actions[stopped] = [["meet in a program"], ["compile for long", signal.SIGTERM]]
    ended = run(*actions)
    sentence = f"stopped by SIGTERM {NOTHING_SAVED}"
    assert ended[stopped] == (128 + signal.SIGTERM, "", sentence)
    other = ended[1 - stopped]
    assert other == (128 + signal.SIGTERM, "", f"error: process {stopped} on {HOST} was {sentence}")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_before_the_first_step_of_a_single_process_has_the_same_sentence_and_status(number):
    with Processes() as processes:
        process = processes.start(0, 1, [["compile for long", number]])
        out, err = process.communicate(timeout=PATIENCE)
    sentence = f"stopped by {number.name} {NOTHING_SAVED}"
    assert (process.returncode, out, err) == (128 + number, "", sentence)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_all_with_one_line(killed):
    """This includes processes that wait in XLA, which would otherwise abort with a C++ stack, or wait forever."""
    actions = [[["meet in a program"], ["meet in a program"]] for _ in range(3)]
    actions[killed] = [["meet in a program"], ["kill"]]
    ended = run(*actions)
    assert ended.pop(killed)[0] == -signal.SIGKILL
    for status, out, err in ended:
        assert (status, out) == (1, "")
        assert err.startswith(f"error: process {killed} ") and " is gone: it was killed" in err
        assert err.count("\n") == 1


def test_a_thread_that_aborts_because_of_a_lost_process_does_not_hide_the_reason():
    meet = ["meet in a program"]
    (status, _, err), *_ = run([meet, ["abort in a library"]], [meet, ["kill"]])
    assert (status, err.count("\n")) == (1, 1) and f"error: process 1 on {HOST} is gone: it was killed" in err


@pytest.mark.exhaustive  # takes as long as the delay
def test_an_abort_that_no_lost_process_explains_still_ends_the_process():
    (status, _, _), (_, _, err) = run([["abort in a library"]], [FOREVER])
    assert status == -signal.SIGABRT and "process 0 is gone" in err


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_process_ends_all_after_the_heartbeat_timeout(frozen):
    actions = [[["meet in a program"], ["meet in a program"]] for _ in range(2)]
    actions[frozen] = [["meet in a program"], ["freeze"]]
    with Processes() as processes:
        started = [processes.start(number, 2, what, heartbeat=3.0) for number, what in enumerate(actions)]
        status, _, err = processes.end(started[1 - frozen])
    assert status == 1
    assert err.startswith(f"error: process {frozen} ") and "been silent for 3 s (--heartbeat_timeout)" in err
    assert err.count("\n") == 1


def test_a_run_without_new_batches_ends_after_the_batch_timeout():
    ended = run([["batches", 5], FOREVER], [["batches", 3], FOREVER], batch=1.5)
    sentence = (
        f"for 1.5 s (--batch_timeout): process 1 on {HOST} at batch 3, the others up to batch 5; the same command"
    )
    assert all(status == 1 and sentence in err for status, _, err in ended)


def test_a_process_that_hangs_before_its_first_batch_is_named_with_its_phase():
    """The others wait in `agree`, or have already put batches on their devices."""
    at = ["begin", "opening the data"]
    ended = run([at, ["agree", {}]], [at, FOREVER], [at, ["begin", "compiling"], ["batches", 2], FOREVER], startup=4.0)
    sentence = (
        f"error: process 1 on {HOST}: no progress for 4 s while opening the data, and the others wait "
        "(--startup_timeout; raise it if this may take longer); the same command resumes"
    )
    for status, out, err in ended:
        assert (status, out) == (1, "") and err.startswith(sentence) and err.count("\n") == 1


def test_all_processes_that_hang_in_the_same_phase_are_named():
    for status, _, err in run(*[[["begin", "compiling"], FOREVER]] * 2, startup=4.0):
        assert status == 1 and f"process 0 on {HOST} and process 1 on {HOST}: no progress for 4 s while compi" in err


def test_a_different_folder_with_the_same_name_is_refused(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    (status, _, err), (other_status, _, other_err) = run(
        [["shared", str(tmp_path / "a")]], [["shared", str(tmp_path / "b")]]
    )
    assert (status, other_status) == (2, 2)
    assert other_err.startswith(f"error: --workdir={tmp_path / 'b'}: must be the same folder for all processes; proc")
    assert "process 1" in err and err.count("\n") == 1
    assert not list((tmp_path / "a").iterdir())


# --- Meeting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "coordinator, obstacle",
    [
        ("127.0.0.1:{port}", "Connection refused"),
        ("nobody.invalid:{port}", "nobody.invalid: "),
        ("127.0.0.1:{stranger}", "what answers there is not process 0 of a run"),
    ],
)
def test_an_unreachable_coordinator_is_waited_for_and_named(coordinator, obstacle):
    with Processes() as processes, socket.create_server(("127.0.0.1", 0)) as server:
        coordinator = coordinator.format(port=processes.port, stranger=server.getsockname()[1])
        process = processes.start(1, 2, [], coordinator, initialization=0.5)
        if "stranger" in obstacle or "not process 0" in obstacle:
            answer_as_a_stranger(server, process)
        status, _, err = processes.end(process)
    assert status == 2
    assert f"error: --coordinator={coordinator}: process 0 could not be reached there within 0.5 s" in err
    assert obstacle in err and "Traceback" not in err


def answer_as_a_stranger(server, process):
    server.settimeout(0.1)
    while process.poll() is None:
        try:
            connection = server.accept()[0]
        except TimeoutError:
            continue
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_port_in_use_is_named_at_once():
    with Processes() as processes, socket.create_server(("127.0.0.1", processes.port)):
        status, _, err = processes.end(processes.start(0, 2, []))
    assert status == 2
    assert err.startswith(f"error: --coordinator=127.0.0.1:{processes.port}: port {processes.port}, where process 0")
    assert "in use" in err


def test_missing_processes_are_named():
    with Processes() as processes:
        status, _, err = processes.end(processes.start(0, 3, [], initialization=0.5))
    place = f"127.0.0.1:{processes.port} within 0.5 s (--initialization_timeout)"
    assert (status, err) == (1, f"error: processes 1, 2 did not connect to {place}\n")


def test_a_second_process_with_the_same_number_is_refused_and_the_others_go_on():
    with Processes() as processes:
        others = [processes.start(number, 3, [["agree", {}]]) for number in (0, 1)]
        while others[1].poll() is None and not is_there(others[1]):
            time.sleep(0.05)
        status, _, err = processes.end(processes.start(1, 3, []))
        assert status == 2 and f"--process_id=1: is already used by process 1 on {HOST}" in err
        others.append(processes.start(2, 3, [["agree", {}]]))
        assert [processes.end(process)[0] for process in others] == [0, 0, 0]


def is_there(process):
    """Whether a process has an open connection to another one."""
    links = [os.readlink(link) for link in Path(f"/proc/{process.pid}/fd").iterdir() if link.exists()]
    return any(link.startswith("socket:") for link in links)


def test_a_different_number_of_processes_is_refused_by_all():
    with Processes() as processes:
        started = [processes.start(0, 2, []), processes.start(1, 3, [])]
        ended = [processes.end(process) for process in started]
    assert all(status == 2 and "--num_processes=2 in process 0, 3 in process 1" in err for status, _, err in ended)
