"""The inside of ``sandbox``: bounds itself, then runs the program that comes on standard input.

Run by path in an isolated interpreter, so it imports nothing but the standard library. What it tells goes to its
standard output, a JSON object a line behind the token it was given: what the kernel does not guard, then how the
program ended. The program's own output goes to standard error.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import struct
import sys
import traceback
from typing import Any

_FILE_BYTES = 1 << 20
_RESERVE_BYTES = 4 << 20

# Numbers of system calls: clone, then those that make processes, send signals, open sockets or get around this filter.
_CALLS = {
    # fork, vfork, execve, execveat, kill, tkill, ptrace, socket, socketpair, io_uring_setup
    "x86_64": (0xC000003E, 56, (57, 58, 59, 322, 62, 200, 101, 41, 53, 425)),
    "aarch64": (0xC00000B7, 220, (221, 281, 129, 130, 117, 198, 199, 425)),
}
_CLONE3 = 435
_X32 = 0x40000000  # calls of x86_64's second table have this bit
_NO_NEW_PRIVILEGES = 38
# Landlock's accesses that change files: write, remove, make, link elsewhere, truncate.
_CHANGING = 1 << 1 | sum(1 << bit for bit in range(4, 15))
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


def forbid_calls(libc: Any, machine: str) -> bool:
    """Have the kernel refuse other processes, signals and sockets from now on; False where it cannot.

    Args:
        libc: the C library, by ctypes.
        machine: as ``os.uname`` names it.
    """
    if machine not in _CALLS:
        return False
    architecture, clone, others = _CALLS[machine]
    allow, refuse, die = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
    # Instructions of BPF: 0x20 loads a word, 0x15, 0x35 and 0x45 jump if it is equal to, at least, or has bits of the
    # last number: over the second number of instructions if so, else over the third; 0x06 returns.
    program = [
        (0x20, 0, 0, 4),
        *((0x15, 1, 0, architecture), (0x06, 0, 0, die)),
        (0x20, 0, 0, 0),
        *((0x35, 0, 1, _X32), (0x06, 0, 0, refuse)),
        # The C library makes threads by clone where clone3 does not exist, and clone's flags can be seen from here.
        *((0x15, 0, 1, _CLONE3), (0x06, 0, 0, 0x00050000 | errno.ENOSYS)),
        *((0x15, 0, 4, clone), (0x20, 0, 0, 16), (0x45, 1, 0, 0x10000), (0x06, 0, 0, refuse), (0x06, 0, 0, allow)),
        *(step for call in others for step in ((0x15, 0, 1, call), (0x06, 0, 0, refuse))),
        (0x06, 0, 0, allow),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    seccomp, by_filter = 22, 2
    return _ask(libc.prctl, _NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0 == _ask(libc.prctl, seccomp, by_filter, header)


def keep_files(libc: Any, directory: str) -> bool:
    """Have the kernel refuse changes of files that are not below ``directory``; False where it cannot."""
    create, add, restrict = 444, 445, 446
    # The third version is the first that knows of every access in use.
    if _ask(libc.syscall, create, None, 0, 1) < 3 or _ask(libc.prctl, _NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    rules = _ask(libc.syscall, create, struct.pack("Q", _CHANGING), 8, 0)
    if rules < 0:
        return False
    root = os.open(directory, os.O_PATH)
    rule = struct.pack("=Qi", _CHANGING, root)
    kept = _ask(libc.syscall, add, rules, 1, rule, 0) == 0 == _ask(libc.syscall, restrict, rules, 0)
    os.close(root)
    os.close(rules)
    return kept


def _ask(function: Any, *arguments: int | bytes | None) -> int:
    """Call a C function that takes any number of arguments; whole numbers as wide as registers."""
    answer: int = function(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    return answer


def guard(directory: str, refused: dict[str, None]) -> None:
    """Refuse, from now on and for good, what reaches beyond this interpreter and ``directory``; note it in ``refused``.

    The interpreter's message is clearer than the kernel's, and the kernel may lack a guard.
    """
    inside = os.path.realpath(directory)

    def within(path: Any) -> bool:
        if isinstance(path, int):
            return True  # a file that is open already
        real = os.path.realpath(os.fsdecode(path))
        return real == inside or real.startswith(inside + os.sep)

    def refuse(event: str, message: str) -> None:
        refused[event] = None
        raise PermissionError(message)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "ctypes.dlopen" and arguments == (None,):
            return  # what importing ctypes, and so numpy, does; nothing can be called through it
        if event.startswith(_REFUSED) or event in _REFUSED_CALLS:
            refuse(event, f"{event} is not allowed here")
        if event == "open":
            path, mode, flags = arguments
            writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & _WRITING)
            # An open directory elsewhere would be a way around: calls with ``dir_fd`` do not tell it to this hook.
            if not within(path) and (writes or os.path.isdir(path)):  # noqa: PTH112
                refuse(event, "files can be written in the working directory only")
        elif event in _CHANGES and not all(
            within(path) for path in arguments if isinstance(path, str | bytes | os.PathLike)
        ):
            refuse(event, "files can be changed in the working directory only")

    sys.addaudithook(hook)


def reason_of(error: BaseException) -> str:
    """Which of ``sandbox.Reason`` an exception is."""
    chain: list[BaseException | None] = [error]
    while (cause := chain[-1]) is not None and len(chain) < 10:
        if isinstance(cause, MemoryError):
            return "memory"
        if isinstance(cause, OSError) and cause.errno == errno.EFBIG:
            return "output"
        if isinstance(cause, PermissionError):
            return "refused"
        chain.append(cause.__cause__ or cause.__context__)
    return "failed"


def main() -> None:
    order = json.load(sys.stdin)
    channel = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)

    def tell(what: dict[str, Any]) -> None:
        os.write(channel, f"\n{order['token']}{json.dumps(what)}\n".encode())

    bound(order["memory"], order["seconds"])
    libc = ctypes.CDLL(None)
    unguarded = [] if forbid_calls(libc, os.uname().machine) else ["processes", "network"]
    unguarded += [] if keep_files(libc, order["directory"]) else ["files"]
    tell({"unguarded": unguarded})
    reserve = bytearray(_RESERVE_BYTES)  # so that a program that used up the memory can be told of
    refused: dict[str, None] = {}
    reason, detail = "passed", ""
    try:
        code = compile(order["program"], "<program>", "exec")
        guard(order["directory"], refused)
        exec(code, {"__name__": "__main__"})
        if sys.__stdout__ is not None:
            sys.__stdout__.flush()  # what was printed last may be too much
    except BaseException as error:
        del reserve
        reason, detail = reason_of(error), traceback.format_exception_only(error)[-1].strip()[:500]
    tell({"reason": reason, "detail": detail, "refused": list(refused)})


if __name__ == "__main__":
    main()
