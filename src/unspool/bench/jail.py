"""The inside of ``sandbox``: bounds itself, then runs the program that comes on standard input.

Run by path in an isolated interpreter, so it imports nothing but the standard library. Prints the token it was given
if the program ends without an exception.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

_FILE_BYTES = 1 << 20
# Events of Python's audit table that reach beyond the interpreter.
_REFUSED = ("socket.", "subprocess.", "ctypes.", "pty.", "sqlite3.", "syslog.")
_REFUSED_CALLS = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.kill",
        "os.killpg",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
        "resource.prlimit",
        "resource.setrlimit",
        "signal.pthread_kill",
    }
)
# Events that change the files named by their arguments.
_CHANGES = frozenset(
    {
        "os.chmod",
        "os.chown",
        "os.link",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.setxattr",
        "os.symlink",
        "os.truncate",
        "os.utime",
    }
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def bound(memory: int, seconds: float) -> None:
    """Limits of the kernel on this process: bytes of address space, seconds of computing, size of files."""
    cpu = int(seconds) + 1
    for name, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, _FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(name)
        lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (lower, lower))


def guard(directory: str) -> None:
    """Refuse, from now on and for good, what reaches beyond this interpreter and ``directory``."""
    inside = os.path.realpath(directory)

    def within(path: Any) -> bool:
        if isinstance(path, int):
            return True  # a file that is open already
        real = os.path.realpath(os.fsdecode(path))
        return real == inside or real.startswith(inside + os.sep)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "ctypes.dlopen" and arguments == (None,):
            return  # what importing ctypes, and so numpy, does; nothing can be called through it
        if event.startswith(_REFUSED) or event in _REFUSED_CALLS:
            raise PermissionError(f"{event} is not allowed here")
        if event == "open":
            path, mode, flags = arguments
            writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & _WRITING)
            # An open directory elsewhere would be a way around: calls with ``dir_fd`` do not tell it to this hook.
            if not within(path) and (writes or os.path.isdir(path)):  # noqa: PTH112
                raise PermissionError("files can be written in the working directory only")
        elif event in _CHANGES and not all(
            within(path) for path in arguments if isinstance(path, str | bytes | os.PathLike)
        ):
            raise PermissionError("files can be changed in the working directory only")

    sys.addaudithook(hook)


def main() -> None:
    order = json.load(sys.stdin)
    channel = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    bound(order["memory"], order["seconds"])
    code = compile(order["program"], "<program>", "exec")
    guard(order["directory"])
    exec(code, {"__name__": "__main__"})
    os.write(channel, order["token"].encode())


if __name__ == "__main__":
    main()
