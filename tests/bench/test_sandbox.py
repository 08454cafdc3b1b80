"""The six accidents: each is stopped, reported, and leaves nothing behind. What the kernel stops, and what it lacks."""

from __future__ import annotations

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

from unspool.bench import jail, sandbox
from unspool.bench.sandbox import Outcome, execute

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
    assert execute("import os; os._exit(0)").detail == "it left before its end with exit code 0"
    assert execute("import os; os.abort()") == Outcome("crashed", "it was ended by SIGABRT", (), kernel_gaps())
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


def kernel_gaps() -> tuple[str, ...]:
    return execute("").unguarded


def unhooked(step: str, body: str, directory: Path) -> str:
    """Output of a program behind one guard of the kernel, without the audit hook; "no" where the kernel lacks it."""
    program = f"""
import ctypes, os, runpy
jail = runpy.run_path({str(sandbox._JAIL)!r})
libc = ctypes.CDLL(None)
def refused(call, *arguments):
    try: call(*arguments)
    except PermissionError: return True
    return False
if not {step}:
    print("no")
    raise SystemExit
{textwrap.dedent(body)}
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


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


def test_what_is_not_isolated_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without seccomp, Landlock and namespaces the hook still refuses, and the outcome says what is open."""
    crippled = tmp_path / "jail.py"
    crippled.write_text(
        f"import runpy\nmodule = runpy.run_path({str(sandbox._JAIL)!r})\n"
        "module['main'].__globals__['_ask'] = lambda *arguments: -1\nmodule['main']()\n"
    )
    monkeypatch.setattr(sandbox, "_JAIL", crippled)
    monkeypatch.setattr(sandbox, "_without_network", lambda: ())
    sandbox._warn.cache_clear()
    with pytest.warns(RuntimeWarning, match="without the kernel's guard over processes, network, files"):
        outcome = execute("import os; os.fork()")
    assert outcome.unguarded == ("processes", "network", "files")
    assert (outcome.reason, outcome.refused) == ("refused", ("os.fork",))
    monkeypatch.setattr(sandbox, "_without_network", lambda: ("env",))
    with pytest.warns(RuntimeWarning, match="over processes, files:"):
        assert execute("").unguarded == ("processes", "files")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert execute("").passed, "told once"
    sandbox._warn.cache_clear()


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
