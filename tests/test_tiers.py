"""The tier without torch stays without it, and the summary counts functions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import FAST, LONGEST, SLOW, TESTS

ROOT = Path(__file__).parents[1]


def pytest_in(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-qq", "-p", "no:cacheprovider", "--rootdir", str(ROOT), *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def a_tier(directory: Path, text: str) -> Path:
    """A directory of tests with the house's conftest, whose core has one file."""
    room = directory / "tests" / "engine"
    room.mkdir(parents=True)
    (directory / "tests" / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text("utf-8"))
    (room / "test_one.py").write_text(text)
    other = directory / "tests" / "backends"
    other.mkdir()
    (other / "test_other.py").write_text("raise AssertionError('opened')")
    (directory / "torch.py").write_text("")  # any module of that name
    return directory


def test_what_is_named_exists() -> None:
    assert all((TESTS / place).exists() for place in (*FAST, *SLOW)) and all((ROOT / file).exists() for file in LONGEST)


def test_only_the_core_is_opened_and_functions_are_counted(tmp_path: Path) -> None:
    text = "import pytest\n\n\n@pytest.mark.parametrize('n', range(9))\ndef test_it(n): ...\n"
    done = pytest_in(a_tier(tmp_path, text), "--fast", "tests")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("1 test functions ran in 0.0 minutes, 0 failed")
    assert "9 passed" not in done.stdout


def test_a_test_that_imports_torch_fails(tmp_path: Path) -> None:
    done = pytest_in(a_tier(tmp_path, "def test_it():\n    __import__('torch')\n"), "--fast", "tests")
    assert done.returncode == 1 and "a test of the fast tier imported torch" in done.stdout


def test_a_file_that_imports_torch_is_left_out_and_one_that_hides_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    left_out = pytest_in(a_tier(tmp_path / "a", "import torch\n\n\ndef test_it(): ...\n"), "--fast", "tests")
    assert left_out.returncode == 5, "no tests"
    hidden = pytest_in(a_tier(tmp_path / "b", "__import__('torch')\n\n\ndef test_it(): ...\n"), "--fast", "tests")
    assert hidden.returncode == 4 and "collecting the fast tier imported torch" in hidden.stderr
