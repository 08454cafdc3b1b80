"""How many threads a process should use: what it is allowed, not what the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from unspool.errors import UnspoolError

MOST_THREADS = 1024
"""Limit of the libraries; a larger number is a typing mistake."""

_PROC = Path("/proc")
_SYS = Path("/sys")


def usable_cores() -> int:
    """Physical cores among the CPUs that this process may use, within its container's quota; at least 1.

    A quota of 1.5 CPUs counts as 1: with two threads, each would wait half of the time.
    """
    cores = _physical(_allowed())
    quota = min(_quotas(), default=None)
    return cores if quota is None else max(1, min(cores, int(quota)))


def check_threads(threads: int | None) -> None:
    """Refuse an unusable number of threads. None is the default and passes.

    Raises:
        UnspoolError: if the number is out of range.
    """
    if threads is not None and threads < 1:
        raise UnspoolError(f"threads must be at least 1, not {threads}")
    if threads is not None and threads > MOST_THREADS:
        raise UnspoolError(f"threads must be at most {MOST_THREADS}, not {threads}")


def _allowed() -> set[int]:
    """The CPUs of the affinity mask, which a container's CPU set also narrows."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    import psutil

    process = psutil.Process()
    return set(process.cpu_affinity() if hasattr(process, "cpu_affinity") else range(os.cpu_count() or 1))


def _physical(allowed: set[int]) -> int:
    cores = set()
    for cpu in allowed:
        siblings = _read(_SYS / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        if siblings is None:  # the system does not say which CPUs share a core
            import psutil

            return min(psutil.cpu_count(logical=False) or 1, len(allowed))
        cores.add(siblings)
    return len(cores)


def _quotas() -> Iterator[float]:
    """CPU quota, in CPUs, of each control group that contains this process."""
    for line in (_read(_PROC / "self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            for group in _groups(_SYS / "fs/cgroup", path):
                quota, _, period = (_read(group / "cpu.max") or "max").partition(" ")
                if quota != "max":
                    yield int(quota) / int(period)
        elif "cpu" in controllers.split(","):
            for group in _groups(_SYS / "fs/cgroup" / controllers, path):
                granted, of = (_read(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
                if granted and of and int(granted) > 0:
                    yield int(granted) / int(of)


def _groups(root: Path, path: str) -> Iterator[Path]:
    """A control group and its parents. In a container the path may be the host's, and only ``root`` may exist."""
    group = root / path.lstrip("/")
    yield from (parent for parent in (group, *group.parents) if parent.is_relative_to(root))


def _read(file: Path) -> str | None:
    try:
        return file.read_text("ascii").strip()
    except OSError:
        return None
