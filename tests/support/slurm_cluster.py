"""Starts a real Slurm cluster of two nodes on this machine while the tests run.

Its configuration, key, sockets and logs are in one folder. Only its jobs know the names of its nodes, by a mount of
/etc/hosts that only its daemons see. So nothing else on the machine changes; it needs root.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "mungekey", "srun", "sbatch", "unshare", "mount")
NODES = ("n1", "n2")

# Jobs of `low` are sent SIGTERM when one of `high` needs their nodes, and are requeued a few seconds later.
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
MinJobAge=3600
ReturnToService=2
MpiDefault=none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=4 RealMemory={memory} State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=4 RealMemory={memory} State=UNKNOWN
PartitionName=low Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=high Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""


def obstacle() -> str | None:
    """The reason why Slurm cannot run here; None if it can."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if missing:
        return f"Slurm is not installed: {', '.join(missing)} missing (Debian: apt-get install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "a Slurm of its own can only be started by root"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        return "a Slurm of its own needs mount namespaces (unshare --mount)"
    return None


class Cluster:
    """A context manager. `run` and `popen` run commands that use this Slurm."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._daemons: list[subprocess.Popen] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))},
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "SLURM_CONF": str(folder / "slurm.conf"),
        }

    def __enter__(self) -> Cluster:
        folder, (controller, first, second) = self._folder, free_ports(3)
        (folder / "state").mkdir()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 // 4
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                folder=folder,
                host=socket.gethostname(),
                controller=controller,
                first=first,
                second=second,
                memory=memory,
            )
        )
        (folder / "hosts").write_text(Path("/etc/hosts").read_text() + f"\n127.0.0.1 {' '.join(NODES)}\n")
        key = folder / "munge.key"
        self.run("mungekey", "--create", f"--keyfile={key}")
        files = [f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("socket", "pid-file", "log-file")]
        self._start(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--seed-file={folder}/munge.seed", *files
        )
        until((folder / "munge.socket").exists)
        self._start("slurmctld", "-D")
        for node in NODES:
            self._start("slurmd", "-D", "-N", node)
        try:
            until(lambda: self.output("sinfo", "--noheader", "--partition=low", "--format=%D %t").strip() == "2 idle")
        except AssertionError:
            logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
            self.__exit__()
            raise AssertionError(f"Slurm did not come up:\n{logs}") from None
        return self

    def __exit__(self, *error) -> None:
        subprocess.run(["scancel", "--user=root"], env=self.environment, capture_output=True, timeout=60)
        time.sleep(1)
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self._daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def _start(self, *command: str) -> None:
        """Starts a daemon for which, and for whose jobs, /etc/hosts names the nodes."""
        inside = f'mount --bind "{self._folder}/hosts" /etc/hosts && exec "$0" "$@"'
        with open(self._folder / f"{command[0]}.out", "ab") as output:
            self._daemons.append(
                subprocess.Popen(
                    ["unshare", "--mount", "sh", "-c", inside, *command],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )

    def popen(self, *command: str | Path, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            list(map(str, command)),
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str | Path, timeout: float = 600, **environment: str) -> str:
        """Returns the output; raises an AssertionError with it if the command fails."""
        process = self.popen(*command, **environment)
        try:
            text = process.communicate(timeout=timeout)[0]
        finally:
            process.kill()
        assert process.returncode == 0, f"{command[0]}: exit status {process.returncode}\n{text}"
        return text

    output = run

    def state(self, job: str) -> str:
        return self.run("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").strip()

    def has_ended(self, job: str) -> bool:
        """Whether a job has left the queue. A requeued job does not have to wait for Slurm's pause of two minutes."""
        state = self.state(job)
        if state == "PENDING":
            self.popen("scontrol", "update", f"JobId={job}", "StartTime=now").communicate()
        return state not in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED", "PREEMPTED")

    def tasks(self, job: str) -> dict[int, int]:
        """Task → process id of the running training commands of a job."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = dict(
                    entry.partition("=")[::2] for entry in (folder / "environ").read_text(errors="replace").split("\0")
                )
                command = (folder / "cmdline").read_text(errors="replace").split("\0")
            except OSError:
                continue
            if environment.get("SLURM_JOB_ID") == job and "SLURM_STEP_NODELIST" in environment:
                if environment.get("SLURM_CONF") == self.environment["SLURM_CONF"] and "gptjax.train" in command[:4]:
                    found[int(environment["SLURM_PROCID"])] = int(folder.name)
        return found


def until(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
