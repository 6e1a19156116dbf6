"""The smallest limit of this machine, its containers and its shell is found, with what is free of it."""

import resource

import pytest

from gptjax.training import host_memory
from gptjax.training.host_memory import host_free, host_limit

MIB = 2**20


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A function that writes the files of control groups, as the system shows them, with a process in group a/b."""
    monkeypatch.setattr(host_memory, "CONTROL_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(host_memory, "PROCESS", tmp_path)

    def write(line, **files):
        (tmp_path / "cgroup").write_text(f"12:cpu,cpuacct:/other\n{line}\n")
        for path, text in files.items():
            file = tmp_path / "groups" / path.replace("__", "/").replace("dot", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")

    return write


def test_without_a_limit_it_is_the_memory_of_the_machine():
    assert 2**28 < host_free() <= host_limit() < 2**46


def test_a_group_around_the_process_limits_it(groups):
    stat = f"anon 5\ninactive_file {10 * MIB}\nactive_file 7"
    of_group = {"a__memorydotcurrent": 60 * MIB, "a__memorydotstat": stat}
    groups("0::/a/b", a__b__memorydotmax="max", a__memorydotmax=100 * MIB, **of_group)
    assert (host_limit(), host_free()) == (100 * MIB, 50 * MIB)  # the file cache can be given back
    groups("0::/a/b", a__b__memorydotmax=20 * MIB, a__b__memorydotcurrent=30 * MIB)
    assert (host_limit(), host_free()) == (20 * MIB, 0)


def test_of_version_1_and_in_a_container_that_sees_its_group_as_the_outermost(groups):
    files = {"memory__memorydotlimit_in_bytes": 100 * MIB, "memory__memorydotusage_in_bytes": 40 * MIB}
    groups("4:memory:/seen/only/outside", **files)
    assert (host_limit(), host_free()) == (100 * MIB, 60 * MIB)


def test_the_shell_limits_it(groups, monkeypatch, tmp_path):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (100 * MIB if kind == resource.RLIMIT_AS else -1, -1))
    (tmp_path / "status").write_text(f"VmPeak: 1 kB\nVmSize:\t  {30 * 1024} kB\n")
    assert (host_limit(), host_free()) == (100 * MIB, 70 * MIB)
