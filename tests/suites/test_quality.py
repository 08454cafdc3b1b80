"""Checks of answers, and the sandbox: what a program may do, and what is stopped."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from unspool.sandbox import run as sandbox
from unspool.suites import quality
from unspool.suites.prompts import Prompt

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ('{"a": [1, 2]}', True),
        ('Here it is:\n```json\n{"a": 1}\n```\nDone.', True),
        ("```\n[1]\n```", True),
        ('{"a": 1', False),
        ('```json\n{"a": 1}', False),
        ('Here it is: {"a": 1}', False),
        ('{"a": NaN}', False),
        ("42", False),
        ("", False),
        ("[" * 100_000, False),
    ],
)
def test_json(answer: str, right: bool) -> None:
    assert quality.is_json(answer) is right


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("Answer: 42", "42", True),
        ("14 * 3 = 42, so the answer is **42.0**.", "42", True),
        ("Answer: 1,250 euros", "1250", True),
        ("Answer: 25.30", "25.3", True),
        ("5-3 leaves 2", "2", True),
        ("It is 10-3", "3", True),
        ("Answer: -3", "3", False),
        ("42 plus 1 is 43", "42", False),
        ("none", "42", False),
    ],
)
def test_number(answer: str, reference: str, right: bool) -> None:
    assert quality.is_number(answer, reference) is right


def test_a_prompt_without_a_checker_has_no_score() -> None:
    assert quality.score(Prompt("1", "a", "x"), "anything") is None
    assert quality.score(Prompt("1", "a", "x", "json"), "anything") == 0.0


def test_programs_are_bodies_or_whole_functions() -> None:
    problem = {
        "prompt": 'from math import sqrt\n\ndef half(x):\n    """Half of x."""\n',
        "test": "def check(candidate):\n    assert candidate(4) == 2\n",
        "entry_point": "half",
    }
    reference = json.dumps(problem)
    assert quality.passes_tests("    return x / 2\n", reference)
    assert quality.passes_tests("```python\ndef half(x):\n    return sqrt(x * x) / 2\n```", reference)
    assert not quality.passes_tests("    return x\n", reference)
    assert not quality.passes_tests("I cannot do that.", reference)
    # Leaving before the tests is no success.
    assert not quality.passes_tests("    import os; os._exit(0)\n", reference)
    assert not quality.passes_tests("    raise SystemExit(0)\n", reference)
    assert not quality.passes_tests("    return x / 2\n\nraise SystemExit(0)\n", reference)


def test_results_tell_what_guarded_the_programs() -> None:
    plain, program = Prompt("1", "c", "t"), Prompt("2", "c", "t", "humaneval", "{}")
    assert quality.protection([plain]) == {}
    assert quality.protection([plain, program]) == {"sandbox": list(sandbox.guards())}
    assert set(sandbox.guards()) <= set(sandbox.GUARDS)


def test_a_program_may_compute_and_write_in_its_directory() -> None:
    assert sandbox.run(
        "import collections, math, re, os\n"
        "print('noise on stdout')\n"
        "with open('note.txt', 'w') as file: file.write('x')\n"
        "os.mkdir('sub'); os.rename('note.txt', 'sub/note.txt')\n"
        "assert open('sub/note.txt').read() == 'x'\n"
    )
    assert not sandbox.run("assert False")
    assert not sandbox.run("this is no Python")


def test_an_infinite_loop_is_stopped() -> None:
    start = time.monotonic()
    assert not sandbox.run("while True: pass", seconds=1)
    assert not sandbox.run("import time; time.sleep(60)", seconds=1)
    assert time.monotonic() - start < 30


def test_memory_is_bounded() -> None:
    hog = "data = bytearray(400 * 1024 * 1024)"
    assert sandbox.run(hog, memory=1 << 30)
    assert not sandbox.run(hog, memory=256 << 20)


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.socket()",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os; os.fork()",
        "import os; os.kill(os.getppid(), 0)",
        "import os; os.execv('/bin/true', ['true'])",
        "import ctypes; ctypes.CDLL('libc.so.6')",
    ],
)
def test_the_network_and_other_processes_are_out_of_reach(attempt: str) -> None:
    wrapped = (
        f"try:\n    {attempt}\nexcept PermissionError:\n    pass\n"
        "except OSError as error:\n    assert isinstance(error.__cause__ or error.args[0], PermissionError), error\n"
        "else:\n    raise AssertionError('it was allowed')\n"
    )
    assert sandbox.run(wrapped), "refused, not failed for another reason"


@pytest.mark.skipif("network" not in sandbox.guards(), reason="this kernel permits no network namespace")
def test_the_kernel_has_taken_the_network_away() -> None:
    assert sandbox.run(
        "lines = open('/proc/net/dev').read().split('\\n')[2:]\nassert len([l for l in lines if l]) == 1"
    )


def test_files_elsewhere_cannot_be_changed(tmp_path: Path) -> None:
    file = tmp_path / "precious.txt"
    file.write_text("kept")
    for attempt in (
        f"open({str(file)!r}, 'w').write('gone')",
        f"open({str(file)!r}, 'r+').write('gone')",
        f"import os; os.close(os.open({str(file)!r}, os.O_WRONLY | os.O_TRUNC))",
        f"import os; os.remove({str(file)!r})",
        f"import pathlib; pathlib.Path({str(file)!r}).unlink()",
        f"import os; os.symlink({str(tmp_path)!r}, 'link'); open('link/new.txt', 'w')",
        f"import os; os.rename({str(file)!r}, 'mine.txt')",
        f"import shutil; shutil.rmtree({str(tmp_path)!r})",
        f"import os; os.open('new.txt', os.O_WRONLY | os.O_CREAT, dir_fd=os.open({str(tmp_path)!r}, os.O_RDONLY))",
        f"import sqlite3; sqlite3.connect({str(tmp_path / 'new.db')!r}).execute('create table t (x)')",
    ):
        assert not sandbox.run(attempt)
        assert file.read_text() == "kept"
        assert list(tmp_path.iterdir()) == [file]
