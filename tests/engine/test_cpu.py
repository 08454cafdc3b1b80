"""Threads: what the process may use counts, not what the machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unspool.engine import cpu


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of eight cores with two CPUs each, all of them allowed, in no control group."""
    for number in range(16):
        topology = tmp_path / f"sys/devices/system/cpu/cpu{number}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{number % 8},{number % 8 + 8}\n")
    monkeypatch.setattr(cpu, "_SYS", tmp_path / "sys")
    monkeypatch.setattr(cpu, "_PROC", tmp_path / "proc")
    allow(monkeypatch, set(range(16)))
    return tmp_path


def allow(monkeypatch: pytest.MonkeyPatch, cpus: set[int]) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cpus, raising=False)


def groups(machine: Path, line: str, files: dict[str, str]) -> None:
    """The control group of the process, and files below ``/sys/fs/cgroup``."""
    (machine / "proc/self").mkdir(parents=True, exist_ok=True)
    (machine / "proc/self/cgroup").write_text(line)
    for name, text in files.items():
        file = machine / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_a_machine_of_ones_own_gives_its_physical_cores(machine: Path) -> None:
    assert cpu.usable_cores() == 8


@pytest.mark.parametrize(
    ("cpus", "cores"), [({0}, 1), ({0, 8}, 1), ({0, 1}, 2), ({3, 5, 11, 13}, 2), (set(range(8)), 8)]
)
def test_the_affinity_mask_counts_by_cores(
    cpus: set[int], cores: int, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(monkeypatch, cpus)
    assert cpu.usable_cores() == cores


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000\n", 2), ("150000 100000", 1), ("50000 100000", 1), ("max 100000", 8), ("9900000 100000", 8)],
)
def test_the_quota_of_a_container_counts(quota: str, cores: int, machine: Path) -> None:
    groups(machine, "0::/\n", {"cpu.max": quota})
    assert cpu.usable_cores() == cores


def test_the_narrowest_of_the_groups_around_a_process_counts(machine: Path) -> None:
    files = {"cpu.max": "max 100000", "pod/cpu.max": "300000 100000", "pod/app/cpu.max": "max 100000"}
    groups(machine, "0::/pod/app\n", files)
    assert cpu.usable_cores() == 3


def test_the_first_version_of_control_groups_counts(machine: Path) -> None:
    # Inside a container the path is the host's, and the container's own group is the root.
    quota = {"cpu,cpuacct/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}
    groups(machine, "5:cpuset:/\n4:cpu,cpuacct:/docker/0123\n0::/\n", quota)
    assert cpu.usable_cores() == 4
    groups(machine, "4:cpu,cpuacct:/docker/0123\n", {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n"})
    assert cpu.usable_cores() == 8


def test_quota_and_mask_together_give_the_smaller_one(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(machine, "0::/\n", {"cpu.max": "400000 100000"})
    allow(monkeypatch, {0, 8, 1})
    assert cpu.usable_cores() == 2


def test_where_the_system_does_not_tell_the_cores_the_mask_still_counts(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(machine / "sys/devices")
    allow(monkeypatch, {0})
    assert cpu.usable_cores() == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_a_process_that_is_bound_to_one_cpu_uses_one_thread() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from unspool.engine import cpu;"
    code += "print(cpu.usable_cores())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
