"""The inside of ``sandbox``: limits itself, then runs the program that it reads from standard input.

Run by path in an isolated interpreter, so it imports only the standard library. It reports on its standard output, one
JSON object per line after the token that it was given: the active kernel guards, then how the program ended. The
program's own output goes to standard error.

With namespaces there are three processes: this one; the first of the namespace, which waits for the program and
reports how it ended; and the program's. Without them the program runs in this one.
"""

from __future__ import annotations

import ast
import ctypes
import errno
import json
import os
import resource
import struct
import sys
import traceback
import types
from typing import Any

_FILE_BYTES = 1 << 20
_RESERVE_BYTES = 4 << 20
_NAME = "<program>"

# System call numbers on x86_64 and aarch64; None if there is no such call.
# fmt: off
_REFUSED_SYSTEM_CALLS = {
    # other processes
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    # signals, except tgkill: a process signals its own threads by it
    "kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    # priorities and processors
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    # sockets, except connected pairs
    "socket": (41, 198), "bind": (49, 200), "connect": (42, 203), "listen": (50, 201),
    # what outlives a process
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219),
    # ways around these guards
    "io_uring_setup": (425, 425), "bpf": (321, 280), "userfaultfd": (323, 282), "perf_event_open": (298, 241),
    "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51), "pivot_root": (155, 41), "mount": (165, 40),
    "umount2": (166, 39), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
}
# fmt: on
_MACHINES = {"x86_64": 0, "aarch64": 1}
_ARCHITECTURES = (0xC000003E, 0xC00000B7)
_CLONE, _TGKILL, _FCNTL, _IOCTL, _SOCKETPAIR, _PRLIMIT, _CAPSET = (
    *((56, 220), (234, 131), (72, 25), (16, 29), (53, 199), (302, 261), (126, 91)),
)
_CLONE3 = 435
_X32 = 0x40000000  # set in calls of x86_64's second table
# F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE and F_NOTIFY: signals to a process that the caller names.
_SIGNALLING_FCNTLS = (8, 10, 15, 1024, 1026)
# FIOSETOWN, SIOCSPGRP, TIOCSTI, and FS_IOC_SETFLAGS, which makes files immutable.
_REFUSED_IOCTLS = (0x8901, 0x8902, 0x5412, 0x40086602)
_NO_NEW_PRIVILEGES = 38
# Landlock access rights that change files: write, remove, make, link elsewhere, truncate.
_CHANGING = 1 << 1 | sum(1 << bit for bit in range(4, 15))
_WRITING_ONE = 1 << 1 | 1 << 14
# New namespaces: mounts, interprocess communication, processes, network; and users.
_NAMESPACES = 0x00020000 | 0x08000000 | 0x20000000 | 0x40000000
_USERS = 0x10000000
# Python audit events that reach beyond the interpreter.
_REFUSED = ("socket.", "subprocess.", "ctypes.", "pty.", "sqlite3.", "syslog.")
# fmt: off
_REFUSED_CALLS = frozenset({
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system",
    "os.kill", "os.killpg", "signal.pthread_kill",
    "resource.prlimit", "resource.setrlimit",
})
# Events that change the file named by their first argument; some also change that of the second.
_OF_TWO = frozenset({"os.link", "os.rename", "os.symlink"})
_CHANGES = frozenset({
    "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate",
    "os.chflags", "os.chmod", "os.chown", "os.removexattr", "os.setxattr", "os.utime",
})
# fmt: on
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_UNIX, _STREAM = 1, 1


def bound(memory: int, seconds: float) -> None:
    """Kernel limits on this process: bytes of address space, seconds of CPU time, file size."""
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


def enter_namespaces(libc: Any, directory: str) -> tuple[str, ...]:
    """Enter new namespaces; returns the guards that they provide: ``pids``, ``network``, ``mounts``, or none.

    The next forked process is the first of the new process namespace. Every file system is read-only there, mode,
    owner, times and attributes included, except for ``directory``. If the system permits it, becoming the user of a new
    namespace needs no privilege; root needs none.
    """
    user, group = os.getuid(), os.getgid()
    if _ask(libc.unshare, _NAMESPACES | _USERS) == 0:
        for name, content in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123
                file.write(content)
    elif _ask(libc.unshare, _NAMESPACES) != 0:
        return ()
    return ("pids", "network", *(("mounts",) if _lock_mounts(libc, directory) else ()))


def _lock_mounts(libc: Any, directory: str) -> bool:
    bind, recursive, private = 1 << 12, 1 << 14, 1 << 18
    here, set_attributes, at_recursive = -100, 442, 0x8000
    place = os.fsencode(directory)
    read_only, writable = struct.pack("4Q", 1, 0, 0, 0), struct.pack("4Q", 0, 1, 0, 0)

    def mount_attributes(path: bytes, flags: int, attributes: bytes) -> bool:
        return _ask(libc.syscall, set_attributes, here, path, flags, attributes, len(attributes)) == 0

    if (
        _ask(libc.mount, b"none", b"/", None, private | recursive, None) != 0
        or _ask(libc.mount, place, place, None, bind, None) != 0
        or not mount_attributes(b"/", at_recursive, read_only)
    ):
        return False
    if not mount_attributes(place, 0, writable):
        raise OSError("the working directory cannot be made writable again")
    os.chdir(directory)  # through the new mount
    return True


def drop_capabilities(libc: Any, machine: str) -> None:
    """Drop the capabilities of a new user namespace, or of root: this process needs none of them any more."""
    if machine in _MACHINES:
        header = struct.pack("Ii", 0x20080522, 0)
        _ask(libc.syscall, _CAPSET[_MACHINES[machine]], header, bytes(24))


def forbid_calls(libc: Any, machine: str) -> bool:
    """Make the kernel refuse other processes, signals and sockets from now on; False if it cannot.

    Args:
        libc: the C library, loaded by ctypes.
        machine: as named by ``os.uname``.
    """
    if machine not in _MACHINES:
        return False
    of = _MACHINES[machine]
    refused = [numbers[of] for numbers in _REFUSED_SYSTEM_CALLS.values()]
    allow, refuse, die = (0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050000 | errno.EPERM), (0x06, 0, 0, 0x80000000)
    missing = (0x06, 0, 0, 0x00050000 | errno.ENOSYS)
    # BPF instructions: 0x20 loads a word, 0x54 masks it. 0x15, 0x35 and 0x45 test whether it equals the last number, is
    # at least that, or shares bits with it; they skip the second number of instructions if so, else the third. 0x06
    # returns.
    first, second = (0x20, 0, 0, 16), (0x20, 0, 0, 24)

    def call(number: int | None, *body: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
        return [] if number is None else [(0x15, 0, len(body), number), *body]

    def only(value: int) -> list[tuple[int, int, int, int]]:
        return [(0x15, 1, 0, value), refuse]

    def none_of(values: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
        return [step for value in values for step in ((0x15, 0, 1, value), refuse)]

    program = [
        (0x20, 0, 0, 4),
        *((0x15, 1, 0, _ARCHITECTURES[of]), die),
        (0x20, 0, 0, 0),
        *((0x35, 0, 1, _X32), refuse),
        # Without clone3, the C library creates threads by clone, whose flags can be checked here.
        *call(_CLONE3, missing),
        *call(_CLONE[of], first, (0x45, 1, 0, 0x10000), refuse, allow),
        *call(_TGKILL[of], first, *only(os.getpid()), allow),
        *call(_PRLIMIT[of], first, *only(0), allow),
        *call(_FCNTL[of], second, *none_of(_SIGNALLING_FCNTLS), allow),
        *call(_IOCTL[of], second, *none_of(_REFUSED_IOCTLS), allow),
        # Permanently connected pairs; a datagram pair could send to any socket in the file system.
        *call(_SOCKETPAIR[of], first, *only(_UNIX), second, (0x54, 0, 0, 0xF), *only(_STREAM), allow),
        *(step for number in refused for step in call(number, refuse)),
        allow,
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    seccomp, by_filter = 22, 2
    return _ask(libc.prctl, _NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0 == _ask(libc.prctl, seccomp, by_filter, header)


def keep_files(libc: Any, directory: str) -> bool:
    """Make the kernel refuse changes to files outside ``directory``; False if it cannot.

    Writing to ``/dev/null`` is allowed, since it changes no file.
    """
    create, add, restrict = 444, 445, 446
    # Version 3 is the first with all access rights in use.
    if _ask(libc.syscall, create, None, 0, 1) < 3 or _ask(libc.prctl, _NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    rules = _ask(libc.syscall, create, struct.pack("Q", _CHANGING), 8, 0)
    if rules < 0:
        return False
    kept = True
    for path, access in ((directory, _CHANGING), (os.devnull, _WRITING_ONE)):
        place = os.open(path, os.O_PATH)
        kept = kept and _ask(libc.syscall, add, rules, 1, struct.pack("=Qi", access, place), 0) == 0
        os.close(place)
    kept = kept and _ask(libc.syscall, restrict, rules, 0) == 0
    os.close(rules)
    return kept


def _ask(function: Any, *arguments: int | bytes | None) -> int:
    """Call a variadic C function, with integers as wide as registers."""
    answer: int = function(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    return answer


def guard(directory: str, refused: dict[str, None], files_kept: bool) -> None:
    """Permanently refuse what reaches beyond this interpreter and ``directory``; record it in ``refused``.

    The interpreter's message is clearer than the kernel's, and the kernel may lack a guard.

    Args:
        files_kept: whether the kernel guards other files. SQLite opens files without an audit event.
    """
    inside = os.path.realpath(directory)

    def within(path: Any) -> bool:
        if isinstance(path, int):
            # A descriptor opened for reading can still change attributes of its file.
            path = os.readlink(f"/proc/self/fd/{path}").removesuffix(" (deleted)")  # noqa: PTH115
            if not path.startswith("/"):
                return True  # a pipe
        real = os.path.realpath(os.fsdecode(path))
        return real == inside or real.startswith(inside + os.sep)

    def refuse(event: str, message: str) -> None:
        refused[event] = None
        raise PermissionError(message)

    def harmless(event: str, arguments: tuple[Any, ...]) -> bool:
        """Whether a refused event is harmless after all."""
        if event == "ctypes.dlopen":
            return arguments == (None,)  # as on import of ctypes, and so of numpy; nothing can be called through it
        if event == "socket.__new__":
            # asyncio's permanently connected pair
            return bool(arguments[1] == _UNIX and arguments[2] & 0xF == _STREAM)
        if event == "sqlite3.connect" and files_kept:
            database: str = os.fsdecode(arguments[0])
            return database == ":memory:" or (not database.startswith("file:") and within(database))
        if event == "sqlite3.connect/handle":
            return files_kept  # it was connected
        return False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if (event.startswith(_REFUSED) or event in _REFUSED_CALLS) and not harmless(event, arguments):
            refuse(event, f"{event} is not allowed here")
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, int):
                return  # already open, with the access it was opened for
            writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & _WRITING)
            # An open directory elsewhere would be a way around: this hook does not see the ``dir_fd`` of a call.
            if (writes or os.path.isdir(path)) and not within(path) and os.path.realpath(path) != os.devnull:  # noqa: PTH112
                refuse(event, "files can be written only in the working directory")
        elif event in _CHANGES and not all(within(path) for path in arguments[: 2 if event in _OF_TWO else 1]):
            refuse(event, "files can be changed only in the working directory")
        elif event == "fcntl.fcntl" and arguments[1] in _SIGNALLING_FCNTLS:
            refuse(event, "signals are not allowed here")

    sys.addaudithook(hook)


def reason_of(error: BaseException) -> str:
    """The ``sandbox.Reason`` of an exception."""
    chain: list[BaseException | None] = [error]
    while (cause := chain[-1]) is not None and len(chain) < 10:
        if isinstance(cause, MemoryError):
            return "memory"
        if isinstance(cause, OSError) and cause.errno == errno.EFBIG:
            return "output"
        if isinstance(cause, PermissionError) or (isinstance(cause, OSError) and cause.errno == errno.EROFS):
            return "refused"
        chain.append(cause.__cause__ or cause.__context__)
    return "failed"


def left_at_its_end(error: SystemExit, last: int) -> bool:
    """Whether a program that exited with success did so by its last statement, as by ``unittest.main()``.

    Args:
        last: line at which that statement begins.
    """
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == _NAME]
    # In a function, which may be what the last statement tests, exiting is not a success.
    return error.code in (None, 0) and len(lines) == 1 and lines[0] >= last


def execute(source: str, directory: str, refused: dict[str, None], files_kept: bool) -> tuple[str, str]:
    """Run the program in this process; returns ``sandbox.Reason`` and a detail."""
    reserve = bytearray(_RESERVE_BYTES)  # to report a program that used up the memory
    last = 0
    try:
        tree = ast.parse(source, _NAME)
        last = tree.body[-1].lineno if tree.body else 0
        code = compile(tree, _NAME, "exec")
        # A separate module: code that looks for tests or classes in ``__main__`` finds the program's.
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        guard(directory, refused, files_kept)
        try:
            exec(code, module.__dict__)
        except SystemExit as error:
            if not left_at_its_end(error, last):
                raise
        if sys.__stdout__ is not None:
            sys.__stdout__.flush()  # the last output may exceed the limit
    except BaseException as error:
        del reserve
        return reason_of(error), traceback.format_exception_only(error)[-1].strip()[:500]
    return "passed", ""


def main() -> None:
    order = json.load(sys.stdin)
    directory = order["directory"]
    channel = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)
    os.close(nowhere)
    os.closerange(channel + 1, 1 << 16)  # nothing else is inherited

    def tell(what: dict[str, Any]) -> None:
        os.write(channel, f"\n{order['token']}{json.dumps(what)}\n".encode())

    libc, machine = ctypes.CDLL(None), os.uname().machine
    guards = list(enter_namespaces(libc, directory))
    if "pids" in guards:
        run_apart(libc, tell)
    bound(order["memory"], order["seconds"])
    drop_capabilities(libc, machine)
    guards += ["files"] if keep_files(libc, directory) else []
    guards += ["calls"] if forbid_calls(libc, machine) else []
    tell({"guards": guards})
    refused: dict[str, None] = {}
    reason, detail = execute(order["program"], directory, refused, "files" in guards)
    tell({"reason": reason, "detail": detail, "refused": list(refused)})


def run_apart(libc: Any, tell: Any) -> None:
    """Continue as the second process of a new process namespace. The first one waits and reports the exit code; its end
    ends all that is left. It ends with the process that called this.
    """
    outside = os.fork()
    if outside:
        os.waitpid(outside, 0)
        os._exit(0)
    end_with_parent, kill = 1, 9
    _ask(libc.prctl, end_with_parent, kill)
    program = os.fork()
    if program:
        _, status = os.waitpid(program, 0)
        tell({"code": os.waitstatus_to_exitcode(status)})
        os._exit(0)


if __name__ == "__main__":
    main()
