"""A task's own processes give what the built-in map gives, and end when the task's process is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import until

from gptjax.corpus.duplicates.processes import Processes

TASK = """
import os, sys, time
sys.path.insert(0, {repository!r})
from gptjax.corpus.duplicates.processes import Processes
if __name__ == "__main__":
    with Processes(2) as processes:
        print(*set(processes.map(int, ["1"])), flush=True)
        print(*processes._executor._processes, flush=True)
        list(processes.map(time.sleep, [600, 600]))
"""


def test_one_process_is_this_one():
    with Processes(1) as processes:
        assert set(processes.map(pow, [2, 3], [3, 2])) == {8, 9}
        assert processes._executor is None


@pytest.mark.exhaustive
def test_processes_end_with_their_task(tmp_path):
    script = tmp_path / "task.py"
    script.write_text(TASK.format(repository=str(Path(__file__).parents[3])))
    task = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert task.stdout.readline().strip() == "1"
    workers = [int(pid) for pid in task.stdout.readline().split()]
    assert workers and all(os.path.exists(f"/proc/{pid}") for pid in workers)
    task.send_signal(signal.SIGKILL)
    task.wait()
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers))
