"""The six accidents: each is stopped, reported, and leaves nothing behind. What must work; ways out that must not; what
the kernel stops by itself, guard by guard, and what it lacks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from unspool.errors import UnsupportedError
from unspool.sandbox import jail
from unspool.sandbox import run as sandbox
from unspool.sandbox.run import Outcome, execute

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test runs leaves neither a file nor a process."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert list(tmp_path.iterdir()) == []
    left = [
        p.pid for p in psutil.process_iter(["environ"]) if str(tmp_path) in (p.info["environ"] or {}).get("HOME", "")
    ]
    assert left == []


@pytest.mark.parametrize("program", ["while True: pass", "import time\nopen('x', 'w').close()\ntime.sleep(60)"])
@pytest.mark.usefixtures("clean")
def test_infinite_loop(program: str) -> None:
    start = time.monotonic()
    outcome = execute(program, seconds=1)
    assert (outcome.reason, outcome.detail) == ("time", "it took longer than 1 s")
    assert time.monotonic() - start < 20


@pytest.mark.usefixtures("clean")
def test_fork_bomb() -> None:
    outcome = execute("import os\nwhile True: os.fork()")
    assert (outcome.reason, outcome.refused) == ("refused", ("os.fork",))
    stubborn = execute("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", seconds=1)
    assert (stubborn.reason, stubborn.detail) == ("time", "it took longer than 1 s")


@pytest.mark.parametrize(
    "program",
    [
        "data = bytearray(10 << 30)",
        "data = []\nwhile True: data.append(str(len(data)) * 1000)",
        "data = None\nwhile True: data = (data,)",  # to the last byte
    ],
)
@pytest.mark.usefixtures("clean")
def test_ten_gigabytes(program: str) -> None:
    outcome = execute(program, seconds=60, memory=256 << 20)
    assert (outcome.reason, outcome.detail) == ("memory", "MemoryError")


@pytest.mark.usefixtures("clean")
def test_deletion_of_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    precious = home / "precious.txt"
    precious.write_text("kept")
    for program, event in (
        (f"import os; os.remove({str(precious)!r})", "os.remove"),
        (f"import shutil; shutil.rmtree({str(home)!r})", "open"),
        (f"open({str(precious)!r}, 'w')", "open"),
    ):
        outcome = execute(program)
        assert (outcome.reason, outcome.refused) == ("refused", (event,))
        assert precious.read_text() == "kept"
    own = execute("import os\nopen('mine', 'w').write('x')\nos.remove('mine')\nassert not os.listdir()")
    assert own.passed


@pytest.mark.usefixtures("clean")
def test_network_call() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        address = server.getsockname()
        outcome = execute(f"import socket; socket.create_connection({address!r})")
        assert outcome.reason == "refused"
        assert outcome.detail == "PermissionError: socket.getaddrinfo is not allowed here"
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos.setsid()\nwhile True:\n    for i in range(99): open(f'{i}', 'w').close()",
        "import threading\ndef write():\n    while True: open('x', 'w').close()\n"
        "for _ in range(9): threading.Thread(target=write).start()",
    ],
)
@pytest.mark.usefixtures("clean")
def test_writers_are_gone_when_their_directory_is(program: str) -> None:
    assert execute(program, seconds=2).reason == "time"


@pytest.mark.parametrize(
    "program",
    [
        "while True: print('x' * 1000)",
        "import sys\nwhile True: sys.stderr.write('x' * 1000)",
        "print('x' * (2 << 20))",
        "with open('x', 'w') as file:\n    while True: file.write('x' * 1000)",
    ],
)
@pytest.mark.usefixtures("clean")
def test_flood_of_output(program: str) -> None:
    outcome = execute(program, seconds=20)
    assert (outcome.reason, outcome.detail) == ("output", "OSError: [Errno 27] File too large")


@pytest.mark.usefixtures("clean")
def test_what_else_is_told() -> None:
    assert execute("x = 1").reason == "passed"
    assert execute("assert 1 > 2, 'no'").detail == "AssertionError: no"
    assert execute("this is no Python").reason == "failed"
    assert execute("import os; os._exit(0)").detail == "it exited early with exit code 0"
    assert execute("import os; os.abort()") == Outcome("crashed", "it was ended by SIGABRT", (), sandbox.guards())
    # What was refused is told even if the program went on.
    outcome = execute("import os\ntry: os.system('true')\nexcept OSError: pass")
    assert (outcome.passed, outcome.refused) == (True, ("os.system",))


def test_a_forged_report_needs_the_token() -> None:
    forged = '\'\\n{"reason": "passed", "detail": "", "refused": []}\\n\''
    program = (
        f"import os\nfor fd in range(3, 20):\n    try: os.write(fd, {forged}.encode())\n    except OSError: pass\n"
    )
    assert execute(program + "raise ValueError('no')").detail == "ValueError: no"
    assert execute(program + "os._exit(0)").reason == "failed"


WORKS = {
    "asyncio": "import asyncio\nassert asyncio.run(asyncio.sleep(0, 7)) == 7",
    "asyncio, threads": "import asyncio\nassert asyncio.run(asyncio.to_thread(abs, -7)) == 7",
    "sqlite in memory": "import sqlite3\nbase = sqlite3.connect(':memory:')\nbase.execute('create table t (x)')\n"
    "base.execute('insert into t values (7)')\nassert base.execute('select x from t').fetchall() == [(7,)]",
    "sqlite here": "import sqlite3\nwith sqlite3.connect('own.db') as base: base.execute('create table t (x)')",
    "/dev/null": "import os\nopen('/dev/null', 'w').write('x')\nos.close(os.open(os.devnull, os.O_RDWR))",
    "no output": "import contextlib, os\nwith open(os.devnull, 'a') as f, contextlib.redirect_stdout(f): print(1)",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(1, 1)\n"
    "if __name__ == '__main__':\n    unittest.main()\n",
    "leaving last": "import sys\ndef main(): return 0\nsys.exit(main())",
    "own files": "import os, shutil\nopen('a', 'w').write('x')\nos.chmod('a', 0o600)\nshutil.copy2('a', 'b')\n"
    "with open('a') as file:\n    os.fchmod(file.fileno(), 0o644)\n    os.utime(file.fileno(), (1, 1))",
    "temporary file": "import tempfile\nwith tempfile.NamedTemporaryFile('w') as file: file.write('x')",
    "pipe": "import os\nr, w = os.pipe()\nos.fdopen(w, 'w').write('x')\nassert os.read(r, 1) == b'x'",
    "own signal": "import signal\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)\nsignal.raise_signal(signal.SIGUSR1)",
    "pickle": "import pickle\nclass C: pass\nassert type(pickle.loads(pickle.dumps(C()))) is C",
    "main module": "import __main__\nx = 7\nassert __main__.x == 7 and not hasattr(__main__, 'tell')",
}


@pytest.mark.parametrize("name", WORKS)
@pytest.mark.usefixtures("clean")
def test_what_must_work(name: str) -> None:
    if name.startswith("sqlite") and "files" not in sandbox.guards():
        pytest.skip("this kernel has no Landlock, so SQLite, which opens files itself, is refused")
    outcome = execute(WORKS[name], seconds=20)
    assert (outcome.reason, outcome.detail, outcome.refused) == ("passed", "", ())


@pytest.mark.parametrize(
    ("program", "detail"),
    [
        (
            "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(1, 2)\nunittest.main()",
            "True",
        ),
        ("import sys\nsys.exit(0)\nassert False", "0"),  # before its end
        ("import sys\ndef check(f): f()\ncheck(lambda: sys.exit(0))", "0"),  # in what the last statement tests
        ("import sys\nsys.exit('no')", "no"),
        ("raise SystemExit(3)", "3"),
    ],
)
def test_leaving_that_is_no_success(program: str, detail: str) -> None:
    outcome = execute(program, seconds=20)
    assert (outcome.reason, outcome.detail) == ("failed", f"SystemExit: {detail}")


HANDLE = "import fcntl, os, signal\nfile = open({victim!r})\nfd = file.fileno()\n"
ESCAPES = {
    "fchmod": "os.fchmod(fd, 0o777)",
    "chmod of a descriptor": "os.chmod(fd, 0o777)",
    "chmod of its link": "os.chmod(f'/proc/self/fd/{{fd}}', 0o777)",
    "fchown": "os.fchown(fd, os.getuid(), os.getgid())",
    "utime": "os.utime(fd, (1, 1))",
    "setxattr": "os.setxattr(fd, 'user.x', b'1')",
    "removexattr": "os.removexattr(fd, 'user.kept')",
    "opened again": "open(f'/proc/self/fd/{{fd}}', 'w')",
    "through the root": "open('/proc/self/root' + {victim!r}, 'w')",
    "F_SETOWN": "fcntl.fcntl(fd, fcntl.F_SETOWN, {pid})",
    "F_SETSIG": "fcntl.fcntl(fd, 10, signal.SIGKILL)",
    "pidfd_open": "os.pidfd_open({pid})",
    "pidfd_send_signal": "signal.pidfd_send_signal(os.open('/proc/{pid}', os.O_RDONLY), 0)",
    "setpriority": "os.setpriority(os.PRIO_PROCESS, {pid}, 19)",
    "setpriority of all": "os.setpriority(os.PRIO_USER, os.getuid(), 19)",
    "sched_setaffinity": "os.sched_setaffinity({pid}, {{0}})",
    "sched_setscheduler": "os.sched_setscheduler({pid}, os.SCHED_IDLE, os.sched_param(0))",
    "shared memory": "from multiprocessing import shared_memory\nshared_memory.SharedMemory('unspool', True, 8)",
    "a database elsewhere": "import sqlite3\nsqlite3.connect({victim!r} + '.db')",
    "a database by URI": "import sqlite3\nsqlite3.connect('file:' + {victim!r} + '.db', uri=True)",
    "a pair of datagrams": "import socket\nsocket.socketpair(type=socket.SOCK_DGRAM)",
    "memory of the parent": "open('/proc/{pid}/mem', 'rb')",
    "environment of the parent": "open('/proc/{pid}/environ', 'rb').read()",
}


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.usefixtures("clean")
def test_no_way_out(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    victim = tmp_path_factory.mktemp("elsewhere") / "victim.txt"
    victim.write_text("kept")
    victim.chmod(0o640)
    os.utime(victim, (7, 7))
    before = _state(victim)
    program = (HANDLE + ESCAPES[name]).format(victim=str(victim), pid=os.getpid())
    outcome = execute(program, seconds=20)
    if outcome.reason != "refused" and not {"calls", "files"} <= set(outcome.guards):
        pytest.skip(f"this kernel's guards are {outcome.guards}")
    assert outcome.reason == "refused", outcome
    assert _state(victim) == before
    assert [path.name for path in victim.parent.iterdir()] == ["victim.txt"] and victim.read_text() == "kept"


def _state(file: Path) -> list[object]:
    """Of a file and of this process, what a program might change."""
    found = file.stat()
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return [found.st_mode, found.st_uid, times, os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)]


def test_a_database_cannot_attach_files_elsewhere(tmp_path: Path) -> None:
    """SQLite opens them itself, so that no hook sees it."""
    if "files" not in sandbox.guards():
        pytest.skip("this kernel has no Landlock")
    elsewhere = str(tmp_path / "new.db")
    program = f"import sqlite3\nsqlite3.connect(':memory:').execute('attach ? as other', ({elsewhere!r},))"
    assert execute(program, seconds=20).detail.startswith("sqlite3.OperationalError: unable to open database")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("clean")
def test_directories_in_directories() -> None:
    """Deeper than Python's stack, and closed to their owner."""
    program = """
        import os
        place = os.open(".", os.O_RDONLY)
        for _ in range(1500):
            os.mkdir("d", dir_fd=place)
            place, before = os.open("d", os.O_RDONLY, dir_fd=place), place
            os.close(before)
        os.mkdir("closed")
        os.mkdir("closed/inner")
        open("closed/inner/x", "w").write("x")
        os.symlink(".", "loop")
        os.chmod("closed/inner", 0)
        os.chmod("closed", 0)
        os.chmod(".", 0)
    """
    outcome = execute(textwrap.dedent(program), seconds=30)
    assert (outcome.reason, outcome.detail) == ("passed", "")


def test_removal_keeps_what_links_point_to(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "a" / "unspool-0" / "b").mkdir(parents=True)
    (inside / "unspool-0").mkdir()
    outside.mkdir()
    (outside / "kept").touch()
    (inside / "link").symlink_to(outside)
    (inside / "a" / "link").symlink_to(outside)
    (inside / "a" / "unspool-0" / "file").touch()
    sandbox._remove(str(inside))
    assert not inside.exists() and (outside / "kept").exists()
    sandbox._remove(str(inside))  # a program may remove it itself


def test_nothing_is_inherited(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        program = (
            "import os\nassert 0, sorted({os.path.realpath(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')})"
        )
        detail = execute(program, seconds=20).detail
    assert "secret" not in detail and detail.count("/tmp") + detail.count("(deleted)") <= 4, detail


def unhooked(step: str, body: str, directory: Path) -> str:
    """Output of a program behind one guard of the kernel, without the audit hook; "no" where the kernel lacks it."""
    program = f"""
import ctypes, os, runpy
jail = runpy.run_path({str(sandbox._JAIL)!r})
libc = ctypes.CDLL(None)
def refused(call, *arguments):
    try: call(*arguments)
    except OSError as error: return error.errno in (1, 13, 30)
    return False
if not ({step}):
    print("no")
    raise SystemExit
{textwrap.dedent(body)}
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_filter_of_calls_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = unhooked(
        'jail["forbid_calls"](libc, os.uname().machine)',
        """
        import fcntl, signal, socket, subprocess
        file, parent = open("file"), os.getppid()
        def call(number, *arguments):
            libc.syscall.restype = ctypes.c_long
            if libc.syscall(*map(ctypes.c_long, (number, *arguments))) < 0:
                raise OSError(ctypes.get_errno(), "")
        libc = ctypes.CDLL(None, use_errno=True)
        x86 = os.uname().machine == "x86_64"
        for attempt in (
            lambda: fcntl.fcntl(file, fcntl.F_SETOWN, parent),
            lambda: fcntl.fcntl(file, 15, bytes(8)),
            lambda: fcntl.ioctl(file, 0x8901, bytes(4)),
            lambda: os.pidfd_open(parent),
            lambda: signal.pidfd_send_signal(file.fileno(), 0),
            lambda: os.setpriority(os.PRIO_PROCESS, parent, 19),
            lambda: os.sched_setaffinity(parent, {0}),
            lambda: socket.socketpair(type=socket.SOCK_DGRAM),
            lambda: call(234 if x86 else 131, parent, parent, 0),  # tgkill
            lambda: call(129 if x86 else 138, parent, 0, 0),  # rt_sigqueueinfo
            lambda: call(302 if x86 else 261, parent, 0, 0, 0),  # prlimit64
        ):
            print(refused(attempt))
        a, b = socket.socketpair()
        a.send(b"x")
        print(b.recv(1) == b"x", refused(a.connect, "file"), fcntl.fcntl(file, fcntl.F_GETFL) >= 0)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.raise_signal(signal.SIGUSR1)
        print(refused(subprocess.run, ["true"]))
        """,
        tmp_path,
    )
    if told == "no":
        pytest.skip("this kernel has no seccomp")
    assert told.split() == ["True"] * 15


def test_the_mounts_alone(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "precious.txt").write_text("kept")
    told = unhooked(
        '"mounts" in jail["enter_namespaces"](libc, os.getcwd())',
        """
        file = open("../precious.txt")
        fd = file.fileno()
        print(refused(os.fchmod, fd, 0o777), refused(os.utime, fd, (1, 1)), refused(os.setxattr, fd, "user.x", b"1"))
        print(refused(os.chmod, "../precious.txt", 0), refused(os.remove, "../precious.txt"))
        print(refused(os.mkdir, "../new"), refused(os.rename, os.getcwd(), os.getcwd() + "x"))
        open("mine", "w").write("x")
        os.chmod("mine", 0o600)
        os.utime("mine", (1, 1))
        os.mkdir("sub")
        os.rename("mine", "sub/mine")
        open("/dev/null", "w").write("x")
        """,
        inside,
    )
    if told == "no":
        pytest.skip("this kernel permits no mount namespace")
    # To rename the working directory fails as a mount point is busy.
    assert told.split()[:6] == ["True"] * 6
    assert [path.name for path in inside.iterdir()] == ["sub"] and (tmp_path / "precious.txt").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir() if path.name != "inside"] == ["precious.txt"]


def test_the_namespace_of_processes_alone(tmp_path: Path) -> None:
    """Processes outside have no number, a crash comes out as it was, and none outlives the first."""
    told = unhooked(
        '(OUTSIDE := os.getppid()) and "pids" in jail["enter_namespaces"](libc, os.getcwd())',
        """
        import json, signal, sys, time
        sys.stdout.flush()
        jail["run_apart"](libc, lambda told: os.write(1, json.dumps(told).encode()))
        for call in (lambda: os.kill(OUTSIDE, 0), lambda: os.getpriority(os.PRIO_PROCESS, OUTSIDE),
                     lambda: os.sched_getaffinity(OUTSIDE), lambda: os.pidfd_open(OUTSIDE)):
            try: call()
            except ProcessLookupError: print("none")
        print(os.getpid())
        sys.stdout.flush()
        if os.fork() == 0:
            os.setsid()
            open("started", "w").close()
            time.sleep(60)
            open("outlived", "w").close()
        while not os.path.exists("started"): time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGSEGV)
        """,
        tmp_path,
    )
    if told == "no":
        pytest.skip("this kernel permits no namespace of processes")
    assert told.split() == [*["none"] * 4, "2", '{"code":', "-11}"]
    assert not [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(tmp_path)]


def test_the_kernel_itself_refuses_processes_and_sockets(tmp_path: Path) -> None:
    told = unhooked(
        'jail["forbid_calls"](libc, os.uname().machine)',
        """
        import signal, socket, subprocess, threading
        def fork():
            if os.fork() == 0: os._exit(0)
        thread = threading.Thread(target=lambda: print("thread"))
        thread.start()
        thread.join()
        print(refused(fork), refused(subprocess.run, ["true"]), refused(os.execv, "/bin/true", ["true"]))
        print(refused(socket.socket), refused(os.kill, os.getppid(), 0))
        print(refused(os.posix_spawn, "/bin/true", ["true"], {}))
        """,
        tmp_path,
    )
    if told == "no":
        pytest.skip("this kernel has no seccomp")
    assert told.split() == ["thread", *["True"] * 6]


def test_the_kernel_itself_keeps_files_elsewhere(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "precious.txt").write_text("kept")
    told = unhooked(
        'jail["keep_files"](libc, os.getcwd())',
        """
        print(refused(os.remove, "../precious.txt"), refused(open, "../precious.txt", "w"))
        print(refused(open, "../new", "w"))
        print(refused(os.rename, "../precious.txt", "mine"), refused(os.truncate, "../precious.txt", 0))
        print(open("../precious.txt").read())
        os.mkdir("sub")
        open("new", "w").write("x")
        os.rename("new", "sub/new")
        os.remove("sub/new")
        """,
        inside,
    )
    if told == "no":
        pytest.skip("this kernel has no Landlock")
    assert told.split() == [*["True"] * 5, "kept"]
    assert [path.name for path in inside.iterdir()] == ["sub"]


@pytest.mark.parametrize(
    ("lacks", "guards", "unguarded"),
    [
        ("True", (), ("processes", "signals", "network", "files", "attributes")),
        ("function.__name__ == 'unshare'", ("files", "calls"), ("attributes",)),
        ("function.__name__ == 'prctl'", ("pids", "network", "mounts"), ("processes",)),
        ("arguments[:1] == (444,)", ("pids", "network", "mounts", "calls"), ()),
    ],
    ids=["all", "namespaces", "seccomp", "Landlock"],
)
def test_what_is_not_guarded_is_told(
    lacks: str, guards: tuple[str, ...], unguarded: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel lacks a guard, the hook still refuses, and the outcome says what is open."""
    if not set(guards) <= set(sandbox.guards()):
        pytest.skip(f"this kernel's guards are {sandbox.guards()}")
    crippled = tmp_path / "jail.py"
    crippled.write_text(
        f"import runpy\nmodule = runpy.run_path({str(sandbox._JAIL)!r})\nhave = module['_ask']\n"
        f"def ask(function, *arguments): return -1 if {lacks} else have(function, *arguments)\n"
        "module['main'].__globals__['_ask'] = ask\nmodule['main']()\n"
    )
    monkeypatch.setattr(sandbox, "_JAIL", crippled)
    sandbox._warn.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcome = execute("import os; os.fork()", seconds=20)
        # The hook takes a descriptor for the path that it stands for.
        for attempt, event in (
            ("os.fchmod(fd, 0o777)", "os.chmod"),
            ("os.utime(fd, (1, 1))", "os.utime"),
            ("os.setxattr(fd, 'user.x', b'1')", "os.setxattr"),
            ("fcntl.fcntl(fd, fcntl.F_SETOWN, 1)", "fcntl.fcntl"),
        ):
            program = HANDLE.format(victim=str(crippled)) + attempt
            assert execute(program, seconds=20).refused == (event,)
        # SQLite opens files that no hook sees.
        base = execute("import sqlite3; sqlite3.connect(':memory:')", seconds=20)
        assert base.refused == (() if "files" in guards else ("sqlite3.connect",)), "the warning is given once"
    sandbox._warn.cache_clear()
    assert (outcome.guards, outcome.unguarded) == (guards, unguarded)
    assert (outcome.reason, outcome.refused) == ("refused", ("os.fork",))
    told = [str(warning.message) for warning in caught]
    assert len(told) == bool(unguarded)
    assert all(f"guard over {', '.join(unguarded)}: this system" in message for message in told)


def test_a_program_that_could_not_be_bounded_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every answer would be scored as wrong."""
    broken = tmp_path / "jail.py"
    broken.write_text("open('/proc/self/uid_map/none')\n")
    monkeypatch.setattr(sandbox, "_JAIL", broken)
    with pytest.raises(UnsupportedError, match="cannot be limited on this system: NotADirectoryError"):
        execute("", seconds=20)


def test_an_unknown_machine_has_no_filter() -> None:
    assert not jail.forbid_calls(None, "vax")


def test_several_at_once_do_not_disturb_one_another() -> None:
    outcomes: dict[int, str] = {}

    def work(i: int) -> None:
        outcomes[i] = execute(f"open('x', 'w').write('{i}')\nassert open('x').read() == '{i}'").reason

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == dict.fromkeys(range(4), "passed")
