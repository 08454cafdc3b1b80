"""Runs a program that a model wrote: limited in time, memory and output, isolated, without network, and with write
access only to its own directory.

The program runs in a fresh isolated interpreter (``-I``) in a temporary directory. Two layers restrict it:
- the kernel: limits (``setrlimit``), a process group that is killed, and the guards of ``GUARDS``;
- the interpreter: an audit hook that refuses the same with a message, and refuses native libraries.
If a kernel lacks a guard, ``Outcome.guards`` does not name it, ``Outcome.unguarded`` says what only the hook covers,
and a warning is given once.

This protects against accidents, not against an attacker who knows the interpreter. Not prevented: reading any file that
the user may read; filling the disk with many small files until time is up; using several threads; a program that finds
this module's frames and claims to have passed; and anything that a fault in the kernel or a native extension module
opens.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import psutil

from unspool.errors import UnsupportedError

SECONDS = 5.0
MEMORY = 1 << 30
_DYING = 10.0  # seconds to wait for killed processes
_JAIL = Path(__file__).with_name("jail.py")

GUARDS = {
    "calls": "a system call filter (seccomp): no other process, no signal, no socket, no other's priority",
    "files": "Landlock: files are written only below the directory",
    "mounts": "every file system except the directory is read-only, mode, owner, times and attributes included",
    "pids": "a process namespace: other processes are invisible, and all end with the program",
    "network": "an empty network namespace",
}
"""What a kernel can keep a program from, by the names in ``Outcome.guards``."""

Reason = Literal["passed", "failed", "time", "memory", "output", "refused", "crashed"]


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
        reason: ``passed`` (ran to its end without an exception), ``failed`` (an exception, or an early exit), ``time``,
            ``memory`` or ``output`` (a limit), ``refused`` (tried something forbidden) or ``crashed`` (the interpreter
            died).
        detail: the exception, the limit or the signal, in one line; empty if it passed.
        refused: Python audit events that the hook refused, even if the program continued.
        guards: names of the active ``GUARDS``.
    """

    reason: Reason
    detail: str
    refused: tuple[str, ...]
    guards: tuple[str, ...]

    @property
    def unguarded(self) -> tuple[str, ...]:
        """What only the audit hook prevents: ``processes``, ``signals``, ``network``, ``files``, ``attributes``."""
        guards = set(self.guards)
        needs = {
            "processes": {"calls"},
            "signals": {"calls", "pids"},
            "network": {"calls", "network"},
            "files": {"files", "mounts"},
            "attributes": {"mounts"},
        }
        return tuple(what for what, enough in needs.items() if not enough & guards)

    @property
    def passed(self) -> bool:
        return self.reason == "passed"


def require() -> None:
    """Refuse systems on which programs cannot be limited.

    Raises:
        UnsupportedError: outside Linux.
    """
    if sys.platform != "linux":
        raise UnsupportedError("a model's programs run under limits that only Linux has; use another suite")


def run(program: str, seconds: float = SECONDS, memory: int = MEMORY) -> bool:
    """Whether the program runs to its end without an exception; see ``execute``."""
    return execute(program, seconds, memory).passed


def execute(program: str, seconds: float = SECONDS, memory: int = MEMORY) -> Outcome:
    """Run a program and report how it ended. Leaves no process and no file.

    Args:
        seconds: wall-clock limit.
        memory: address space in bytes.

    Raises:
        UnsupportedError: outside Linux, or if the limits cannot be set. The program has not run then.
    """
    require()
    # The program passed only if it prints this token, so an early exit with code 0 is not a success.
    token = secrets.token_hex(16)
    directory = tempfile.mkdtemp(prefix="unspool-")
    try:
        # Reports and output go to unnamed files, which the file size limit covers too.
        with tempfile.TemporaryFile() as reports, tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", str(_JAIL)],
                stdin=subprocess.PIPE,
                stdout=reports,
                stderr=output,
                cwd=directory,
                env={"HOME": directory, "TMPDIR": directory, "PATH": os.defpath, "OPENBLAS_NUM_THREADS": "1"},
                encoding="utf-8",
                errors="surrogatepass",
                start_new_session=True,
            )
            order = {"program": program, "token": token, "memory": memory, "seconds": seconds, "directory": directory}
            late = False
            try:
                process.communicate(json.dumps(order), timeout=seconds)
            except subprocess.TimeoutExpired:
                late = True
            finally:
                _kill(process)
            reports.seek(0)
            told = _reports(reports.read().decode("utf-8", "replace"), token)
            if not late and "guards" not in told:
                output.seek(0)
                why = output.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
                raise UnsupportedError(f"a model's programs cannot be limited on this system: {why}")
    finally:
        _remove(directory)
    reason, detail = _verdict(
        told, told.get("code", process.returncode), f"it took longer than {seconds:g} s" if late else ""
    )
    outcome = Outcome(reason, detail, tuple(told.get("refused", ())), tuple(told.get("guards", ())))
    if "guards" in told and outcome.unguarded:
        _warn(outcome.unguarded)
    return outcome


@cache
def guards() -> tuple[str, ...]:
    """Which of ``GUARDS`` are active on this system, found by an empty program; for results.

    Raises:
        UnsupportedError: outside Linux.
    """
    return execute("", 60.0).guards


def _verdict(told: dict[str, Any], code: Any, late: str) -> tuple[Reason, str]:
    if late or code == -signal.SIGXCPU:
        return "time", late or "it used too much CPU time"
    if "reason" in told:
        return told["reason"], told["detail"]
    if code < 0:
        return "crashed", f"it was ended by {signal.Signals(-code).name}"
    return "failed", f"it exited early with exit code {code}"


def _reports(text: str, token: str) -> dict[str, Any]:
    """The jail's reports, merged; the program's output may be between them."""
    told: dict[str, Any] = {}
    for line in text.splitlines():
        if line.startswith(token):
            told |= json.loads(line.removeprefix(token))
    return told


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        # The first process of a namespace ends all others in it and waits for them; then its parent ends. If it were
        # killed together with its group, its processes might still be dying while their directory is removed.
        with suppress(psutil.Error, subprocess.TimeoutExpired):
            for first in psutil.Process(process.pid).children():
                first.kill()
                process.wait(_DYING)
    # The whole group, though it should have no other process; it is gone if the program has ended.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _remove(directory: str) -> None:
    """Remove a directory of any depth, one level at a time, so that neither a path nor the call stack grows."""
    try:
        place = _enter(None, directory)
    except FileNotFoundError:
        return  # the program removed it
    waiting = [_empty(place)]  # by level, the remaining directories
    while True:
        if waiting[-1]:
            place = _enter(place, waiting[-1][-1])
            waiting.append(_empty(place))
            continue
        waiting.pop()
        if not waiting:
            break
        place = _enter(place, "..")
        os.rmdir(waiting[-1].pop(), dir_fd=place)
    os.close(place)
    Path(directory).rmdir()


def _enter(place: int | None, name: str) -> int:
    """Open a directory and close ``place``; makes it writable for its owner."""
    os.chmod(name, 0o700, dir_fd=place)
    entered = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
    if place is not None:
        os.close(place)
    return entered


def _empty(place: int) -> list[str]:
    """Remove the files of a directory; returns its subdirectories."""
    with os.scandir(place) as entries:
        held = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in held:
        if not is_directory:
            os.unlink(name, dir_fd=place)
    return [name for name, is_directory in held if is_directory]


@cache
def _warn(unguarded: tuple[str, ...]) -> None:
    warnings.warn(
        f"a model's programs run without the kernel's guard over {', '.join(unguarded)}: this system lacks seccomp, "
        "Landlock or namespaces; only Python's audit hook stops them",
        RuntimeWarning,
        stacklevel=3,
    )
