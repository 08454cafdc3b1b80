"""Runs a program that a model wrote: bounded in time, memory and output, alone, without network, writing in its own
directory only.

The program runs in a fresh isolated interpreter (``-I``) in a temporary directory. Two layers stop what it must not do:
- the kernel: limits (``setrlimit``), a process group that is killed, a filter of system calls that refuses other
  processes, signals and sockets (seccomp), files that can be written below the directory only (Landlock), and an empty
  network namespace where ``unshare`` is allowed;
- the interpreter: an audit hook that refuses the same with a message, and native libraries.
Where a kernel lacks a part of the first layer, ``Outcome.unguarded`` names it and a warning is given once.

That guards against accidents of a model, not against an attacker who knows the interpreter. Not defended: files that
the user may read can be read; mode, owner and times of files elsewhere are kept by the hook alone; many small files
fill the disk until time is up; several threads share the processor; a program that finds this module's frames can claim
to have passed; and whatever a fault of the kernel or of a native extension module opens.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
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

from unspool.errors import UnsupportedError

SECONDS = 5.0
MEMORY = 1 << 30
_JAIL = Path(__file__).with_name("jail.py")

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
        unguarded: what only the audit hook keeps it from on this system: ``processes``, ``network``, ``files``.
    """

    reason: Reason
    detail: str
    refused: tuple[str, ...]
    unguarded: tuple[str, ...]

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
        UnsupportedError: outside Linux.
    """
    require()
    # The program has ended well only if this comes back, so leaving early with code 0 is no success.
    token = secrets.token_hex(16)
    # Its reports and its output go to files without a name, which the limit on the size of files bounds as well.
    with (
        tempfile.TemporaryDirectory(prefix="unspool-") as directory,
        tempfile.TemporaryFile() as reports,
        tempfile.TemporaryFile() as output,
    ):
        isolated = _without_network()
        process = subprocess.Popen(
            [*isolated, sys.executable, "-I", "-B", str(_JAIL)],
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
    unguarded = tuple(what for what in told.get("unguarded", ()) if not (what == "network" and isolated))
    if unguarded:
        _warn(unguarded)
    reason, detail = _verdict(told, process.returncode, f"it took longer than {seconds:g} s" if late else "")
    return Outcome(reason, detail, tuple(told.get("refused", ())), unguarded)


def _verdict(told: dict[str, Any], code: int, late: str) -> tuple[Reason, str]:
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
    # The whole group, though it should hold no one else; it is gone if the program has ended.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@cache
def _warn(unguarded: tuple[str, ...]) -> None:
    warnings.warn(
        f"programs of a model run without the kernel's guard over {', '.join(unguarded)}: this system lacks seccomp, "
        "Landlock or user namespaces; only Python's audit hook stops them",
        RuntimeWarning,
        stacklevel=3,
    )


@cache
def _without_network() -> tuple[str, ...]:
    """The command that takes the network away from a process, empty where the system has none or forbids it."""
    command = ("unshare", "--map-root-user", "--net")
    if shutil.which(command[0]) is None:
        return ()
    probe = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if probe.returncode == 0 else ()
