"""Runs a program that a model wrote: bounded in time and memory, without network, writing in its own directory only.

The program runs in a fresh isolated interpreter (``-I``) in a temporary directory. The kernel bounds it (``setrlimit``,
a process group that is killed, a network namespace where ``unshare`` is allowed), and an audit hook refuses sockets,
other processes, native libraries and changes of files elsewhere. That guards against accidents of a model, not against
an attacker who knows the interpreter.
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
from contextlib import suppress
from functools import cache
from pathlib import Path

from unspool.errors import UnsupportedError

SECONDS = 5.0
MEMORY = 1 << 30
_JAIL = Path(__file__).with_name("jail.py")


def require() -> None:
    """Refuse systems on which programs cannot be bounded.

    Raises:
        UnsupportedError: outside Linux.
    """
    if sys.platform != "linux":
        raise UnsupportedError("programs of a model are run under limits that only Linux has; use another suite")


def run(program: str, seconds: float = SECONDS, memory: int = MEMORY) -> bool:
    """Whether the program runs to its end without an exception.

    Args:
        seconds: of the clock.
        memory: address space in bytes.
    """
    require()
    # The program has ended well only if this comes back, so leaving early with code 0 is no success.
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="unspool-") as directory:
        process = subprocess.Popen(
            [*_without_network(), sys.executable, "-I", "-B", str(_JAIL)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=directory,
            env={"HOME": directory, "TMPDIR": directory, "PATH": os.defpath, "OPENBLAS_NUM_THREADS": "1"},
            encoding="utf-8",
            errors="surrogatepass",
            start_new_session=True,
        )
        order = {"program": program, "token": token, "memory": memory, "seconds": seconds, "directory": directory}
        try:
            out, _ = process.communicate(json.dumps(order), timeout=seconds)
        except subprocess.TimeoutExpired:
            out = ""
        finally:
            _kill(process)
    return out == token


def _kill(process: subprocess.Popen[str]) -> None:
    # The whole group, though it should hold no one else; it is gone if the program has ended.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@cache
def _without_network() -> tuple[str, ...]:
    """The command that takes the network away from a process, empty where the system has none or forbids it."""
    command = ("unshare", "--map-root-user", "--net")
    if shutil.which(command[0]) is None:
        return ()
    probe = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if probe.returncode == 0 else ()
