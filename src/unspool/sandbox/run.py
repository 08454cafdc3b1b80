"""Runs a program that a model wrote: bounded in time, memory and output, alone, without network, writing in its own
directory only.

The program runs in a fresh isolated interpreter (``-I``) in a temporary directory. Two layers stop what it must not do:
- the kernel: limits (``setrlimit``), a process group that is killed, and the guards of ``GUARDS``;
- the interpreter: an audit hook that refuses the same with a message, and native libraries.
Where a kernel lacks a guard, ``Outcome.guards`` does not name it, ``Outcome.unguarded`` tells what that leaves to the
hook, and a warning is given once.

That guards against accidents of a model, not against an attacker who knows the interpreter. Not defended: files that
the user may read can be read; many small files fill the disk until time is up; several threads share the processor; a
program that finds this module's frames can claim to have passed; and whatever a fault of the kernel or of a native
extension module opens.
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
_DYING = 10.0  # seconds of patience with processes that were killed
_JAIL = Path(__file__).with_name("jail.py")

GUARDS = {
    "calls": "a filter of system calls (seccomp): no other process, no signal, no socket, no other's priority",
    "files": "Landlock: files are written below the directory only",
    "mounts": "every file system but the directory is read-only: mode, owner, times and attributes stay",
    "pids": "a namespace of processes: others have no number, and all end with the program",
    "network": "an empty network namespace",
}
"""What a kernel may keep a program from, by the names of ``Outcome.guards``."""

Reason = Literal["passed", "failed", "time", "memory", "output", "refused", "crashed"]


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
        reason: ``passed`` (it ran to its end without an exception), ``failed`` (an exception, or it left early),
            ``time``, ``memory`` or ``output`` (a limit), ``refused`` (it was not permitted what it tried) or
            ``crashed`` (the interpreter died).
        detail: the exception, the limit or the signal, in one line; empty if it passed.
        refused: what the audit hook refused, by the names of Python's audit events; also where the program went on.
        guards: which of ``GUARDS`` were in force.
    """

    reason: Reason
    detail: str
    refused: tuple[str, ...]
    guards: tuple[str, ...]

    @property
    def unguarded(self) -> tuple[str, ...]:
        """What only the audit hook kept it from: ``processes``, ``signals``, ``network``, ``files``, ``attributes``."""
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
    """Refuse systems on which programs cannot be bounded.

    Raises:
        UnsupportedError: outside Linux.
    """
    if sys.platform != "linux":
        raise UnsupportedError("programs of a model are run under limits that only Linux has; use another suite")


def run(program: str, seconds: float = SECONDS, memory: int = MEMORY) -> bool:
    """Whether the program runs to its end without an exception; see ``execute``."""
    return execute(program, seconds, memory).passed


def execute(program: str, seconds: float = SECONDS, memory: int = MEMORY) -> Outcome:
    """Run a program and tell how it ended. Nothing of it is left: no process, no file.

    Args:
        seconds: of the clock.
        memory: address space in bytes.

    Raises:
        UnsupportedError: outside Linux, or where the limits cannot be set; the program did not run then.
    """
    require()
    # The program has ended well only if this comes back, so leaving early with code 0 is no success.
    token = secrets.token_hex(16)
    directory = tempfile.mkdtemp(prefix="unspool-")
    try:
        # Its reports and its output go to files without a name, which the limit on the size of files bounds as well.
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
                raise UnsupportedError(f"programs of a model cannot be bounded on this system: {why}")
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
    """Which of ``GUARDS`` are in force on this system, told by an empty program; for results.

    Raises:
        UnsupportedError: outside Linux.
    """
    return execute("", 60.0).guards


def _verdict(told: dict[str, Any], code: Any, late: str) -> tuple[Reason, str]:
    if late or code == -signal.SIGXCPU:
        return "time", late or "it computed for too long"
    if "reason" in told:
        return told["reason"], told["detail"]
    if code < 0:
        return "crashed", f"it was ended by {signal.Signals(-code).name}"
    return "failed", f"it left before its end with exit code {code}"


def _reports(text: str, token: str) -> dict[str, Any]:
    """What the jail told, put together; the program may have written between it."""
    told: dict[str, Any] = {}
    for line in text.splitlines():
        if line.startswith(token):
            told |= json.loads(line.removeprefix(token))
    return told


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        # The first process of a namespace takes all others in it along, and is gone when they are; then ends the one
        # that waits for it. Killed with its group alone, it would leave them dying while their directory is removed.
        with suppress(psutil.Error, subprocess.TimeoutExpired):
            for first in psutil.Process(process.pid).children():
                first.kill()
                process.wait(_DYING)
    # The whole group, though it should hold no one else; it is gone if the program has ended.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _remove(directory: str) -> None:
    """Remove a directory, however deep: one step down or up at a time, so that no path and no stack of calls grows."""
    try:
        place = _enter(None, directory)
    except FileNotFoundError:
        return  # the program did it
    waiting = [_empty(place)]  # by level, the directories that are left
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
    """A directory's descriptor in place of ``place``; its owner may always change it from now on."""
    os.chmod(name, 0o700, dir_fd=place)
    entered = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
    if place is not None:
        os.close(place)
    return entered


def _empty(place: int) -> list[str]:
    """Remove all that a directory holds but for directories, and give these."""
    with os.scandir(place) as entries:
        held = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in held:
        if not is_directory:
            os.unlink(name, dir_fd=place)
    return [name for name, is_directory in held if is_directory]


@cache
def _warn(unguarded: tuple[str, ...]) -> None:
    warnings.warn(
        f"programs of a model run without the kernel's guard over {', '.join(unguarded)}: this system lacks seccomp, "
        "Landlock or namespaces; only Python's audit hook stops them",
        RuntimeWarning,
        stacklevel=3,
    )
