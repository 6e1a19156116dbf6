"""Runs are executed a few at a time; failures do not stop the others, signals are passed on, and devices are shared."""

import io
import itertools
import os
import re
import signal

import pytest
from rich.console import Console
from waiting import until

from gptjax.cluster.launch import Launched, exit_status, last_lines
from gptjax.config import ConfigError
from gptjax.sweeping import execute as executing
from gptjax.sweeping.execute import Processes, available_gpus, execute, on_cores, shares
from gptjax.sweeping.runs import State, Status
from gptjax.sweeping.view import SweepView

WORKS = "print('working', flush=True)"
FAILS = "import sys; [print('line', i) for i in range(40)]; print('it broke', file=sys.stderr); sys.exit(3)"
WAITS = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def save(*_):
    (folder / 'saved').touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
(folder / 'ready').touch()
time.sleep(1200)
"""


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch):
    monkeypatch.setattr(executing, "POLL_SECONDS", 0.01)


class Constant:
    """A forecast of 40 seconds for every run."""

    def learn(self, run, status):
        pass

    def seconds(self, run):
        return 40.0


@pytest.fixture
def view():
    made = SweepView(Console(file=io.StringIO(), width=200), total=9, done=1, jobs=2, forecast=Constant())
    made.text = lambda: made._console.file.getvalue()
    return made


class Recorded:
    """An executor whose runs last three polls each."""

    def __init__(self, slots, detaches=False):
        self.slots, self.detaches = slots, detaches
        self.at_work, self.most, self.order, self.stopped = 0, 0, [], []

    def start(self, runs):
        self.order += [run.name for run in runs]
        self.at_work += len(runs)
        self.most = max(self.most, self.at_work)
        return [RecordedHandle(self, run.name) for run in runs]


class RecordedHandle:
    def __init__(self, executor, name):
        self.executor, self.name, self.polls = executor, name, itertools.count()

    def ended(self):
        over = next(self.polls) == 3
        self.executor.at_work -= over
        return over

    def stop(self):
        self.executor.stopped.append(self.name)

    def kill(self):
        self.stop()


@pytest.mark.parametrize("slots", [1, 2, 100])
def test_runs_fill_all_slots_in_order(scripted, view, slots):
    runs, executor = scripted(WORKS, 5), Recorded(slots)
    assert list(execute(runs, executor, view, lambda: False)) == [run.name for run in runs] == executor.order
    assert executor.most == min(slots, 5)


def test_a_stop_is_passed_on_once_and_no_more_runs_are_started(scripted, view):
    runs, executor, polls = scripted(WORKS, 5), Recorded(2), itertools.count()
    execute(runs, executor, view, lambda: next(polls) >= 2)
    assert executor.stopped == executor.order == ["seed=0", "seed=1"]
    assert "2 runs are saving (a second Ctrl-C kills them), 3 not started" in view.text()


def test_a_stop_does_not_end_jobs_that_run_without_the_sweep(scripted, view):
    runs, executor, polls = scripted(WORKS, 5), Recorded(100, detaches=True), itertools.count()
    assert execute(runs, executor, view, lambda: next(polls) >= 2) == {}
    assert executor.stopped == [] and "5 jobs go on without this command" in view.text()


@pytest.mark.parametrize("detaches, killed", [(False, ["seed=0", "seed=1"]), (True, [])])
def test_an_interrupt_kills_runs_that_need_the_sweep(scripted, view, detaches, killed):
    def interrupted():
        raise KeyboardInterrupt

    runs, executor, polls = scripted(WORKS, 3), Recorded(2, detaches), itertools.count()
    with pytest.raises(KeyboardInterrupt):
        execute(runs, executor, view, lambda: next(polls) == 2 and interrupted())
    assert executor.stopped == killed


# --- Processes -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def surroundings(request, monkeypatch):
    """Python's output may be buffered, which is its default, or not."""
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


def test_a_failing_run_stops_no_other_and_shows_its_last_lines(scripted, view, surroundings):
    runs = scripted(WORKS, 3)
    object.__setattr__(runs[1], "script", FAILS)
    outcomes = execute(runs, Processes(2), view, lambda: False)
    assert [outcomes[run.name].state for run in runs] == [State.NOT_STARTED, State.FAILED, State.NOT_STARTED]
    assert all(last_lines(runs[i].workdir) == ["working"] for i in (0, 2))
    assert "it broke" in view.text() and "line 39" in view.text() and "line 20" not in view.text()


def test_a_run_that_saves_on_sigterm_does_not_count_as_failed(scripted, view):
    runs, executor = scripted(WAITS, 2), Processes(1)
    outcomes = execute(runs, executor, view, lambda: (runs[0].workdir / "ready").exists())
    assert (runs[0].workdir / "saved").exists() and list(outcomes) == ["seed=0"]
    assert not runs[1].workdir.exists()


def test_a_process_has_its_own_session_and_is_killed_with_its_children(scripted):
    (run,) = scripted(WAITS)
    launched = Launched(run.command, run.workdir, {})
    until((run.workdir / "ready").exists)
    pid = launched._process.pid
    assert os.getsid(pid) == pid != os.getsid(0)
    launched.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not (run.workdir / "saved").exists() and exit_status(run.workdir) == 0


def test_finish_works_in_a_handler_that_interrupts_a_wait(scripted):
    """submitit does this on preemption; waiting with the process's own lock would never return."""
    (run,) = scripted(WAITS)
    launched = Launched(run.command, run.workdir, {})
    until((run.workdir / "ready").exists)
    before = signal.signal(signal.SIGALRM, lambda *_: launched.finish())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert launched.wait() == 0
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (run.workdir / "saved").exists()
    launched.finish()  # a second call does nothing


def test_a_run_that_a_signal_ended_before_its_first_step_has_not_failed(scripted, surroundings):
    (run,) = scripted("raise SystemExit(128 + 15)")
    assert Launched(run.command, run.workdir, {}).wait() == 143 and exit_status(run.workdir) == 0


def test_a_start_resets_an_earlier_failure(scripted, surroundings):
    (run,) = scripted(FAILS)
    assert Launched(run.command, run.workdir, {}).wait() == 3 == exit_status(run.workdir)
    assert last_lines(run.workdir, 1) == ["it broke"]
    object.__setattr__(run, "script", WORKS)
    assert Launched(run.command, run.workdir, {}).wait() == 0 == exit_status(run.workdir)


# --- Shares ----------------------------------------------------------------------------------------------------------


def test_cores_and_gpus_are_shared_equally():
    cores = [0, 1, 2, 3, 4]
    assert shares(1, cores, []) == [(cores, {})]
    assert shares(2, cores, []) == [([0, 1], {}), ([2, 3], {})]
    assert [share[0] for share in shares(3, [4, 5], [])] == [[4], [5], [4]]
    assert shares(2, cores, ["0", "1", "2", "3"])[1] == ([2, 3], {"CUDA_VISIBLE_DEVICES": "2,3"})
    assert shares(1, cores, ["0", "1"]) == [(cores, {})]
    with pytest.raises(ConfigError, match="--jobs=3: must not exceed this machine's 2 GPUs"):
        shares(3, cores, ["0", "1"])


def test_only_visible_gpus_are_used():
    assert available_gpus({"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "0"}) == []
    assert available_gpus({"CUDA_VISIBLE_DEVICES": "3,5"}) == ["3", "5"]
    assert available_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_run_uses_only_its_cores(scripted):
    (run,) = scripted("import os; print(sorted(os.sched_getaffinity(0)))")
    mine = os.sched_getaffinity(0)
    with on_cores([min(mine)]):
        launched = Launched(run.command, run.workdir, {})
    launched.wait()
    assert last_lines(run.workdir) == [str([min(mine)])] and os.sched_getaffinity(0) == mine


# --- The live view ---------------------------------------------------------------------------------------------------


def test_the_live_table_shows_each_run_and_the_time_left(scripted):
    run, waiting = scripted(WORKS, 2)
    clock = itertools.count(0.0, 10.0).__next__
    console = Console(file=io.StringIO(), width=120, force_terminal=True, highlight=False, no_color=True)
    view = SweepView(console, total=4, done=2, jobs=2, forecast=Constant(), clock=clock)
    run.workdir.mkdir()
    with view:
        view.started(run)
        view.refresh([run], [waiting])
        (run.workdir / "metrics.jsonl").write_text('{"step": 5, "train/loss": 3.25}\n')
        view.refresh([run], [waiting])
        view.ended(run, Status(State.FINISHED, 20, [{"step": 20, "validation/loss": 2.5}]))
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", console.file.getvalue())
    assert "5/20" in text and "loss 3.2500" in text and "2/4 runs done, 1 active" in text
    assert "about 0:40 left" in text  # 40 s each, two at a time
    assert "3/4, step 20/20, loss 2.5000" in text
