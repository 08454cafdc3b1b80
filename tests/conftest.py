"""Where tests keep what they convert, which files begin first, the tier without torch, and what is said at the end."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

LONGEST = (
    "tests/experiments/test_quick.py",
    "tests/decoding/test_model.py",
    "tests/engine/test_turns.py",
    "tests/backends/test_openvino.py",
    "tests/cli/test_commands.py",
    "tests/cli/test_ends.py",
    "tests/models/test_download.py",
    "tests/backends/test_transformers_batch.py",
    "tests/cli/test_bench.py",
    "tests/cli/test_bad_calls.py",
    "tests/backends/test_conversion_check.py",
)
"""The files of more than ten seconds, longest first: one that began last would keep one core busy alone."""

TESTS = Path(__file__).parent
HEAVY = ("torch", "openvino")
FAST = ("conformance", "engine", "methods", "proof", "storage")
"""Rooms of the tier without torch: the loops, the methods, their contracts and their proofs, on toy models."""

SLOW = (
    "conformance/test_acceptance_exact.py",
    "conformance/test_memories.py",
    "methods/diffusion/test_closed_forms.py",
    "methods/drafters/test_dyspec.py",
    "methods/drafters/test_rsd.py",
    "proof/test_distribution.py",
    "proof/test_prove.py",
)
"""Files of these rooms of ten seconds: sums over whole rules, of which the checks make small ones; proofs."""

_LOADS = re.compile(r"^\s*(?:import|from) (?:torch|transformers|openvino)\b|mark\.model\b", re.MULTILINE)

_directory = pytest.StashKey[TemporaryDirectory]()  # type: ignore[type-arg]
_of_the_user = pytest.StashKey["str | None"]()
_began = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="only the tests of the core and of methods, without torch")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_began] = time.monotonic()
    config.stash[_directory] = TemporaryDirectory(prefix="unspool-tests-")
    config.stash[_of_the_user] = os.environ.get("UNSPOOL_CACHE")
    # Else pytest-xdist begins with the files of most tests.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_directory].cleanup()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The fast tier opens no file that is not of it, so that collecting imports no torch."""
    if not config.getoption("--fast") or TESTS not in collection_path.parents:
        return None
    place = collection_path.relative_to(TESTS)
    if place.parts[0] not in FAST or place.as_posix() in SLOW:
        return True
    is_test = place.name.startswith("test_") and place.suffix == ".py"
    return True if is_test and _LOADS.search(collection_path.read_text("utf-8")) else None


def loaded() -> list[str]:
    """What the fast tier must not import, and has."""
    return [name for name in HEAVY if name in sys.modules]


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("--fast") and loaded():
        raise pytest.UsageError(f"collecting the fast tier imported {', '.join(loaded())}; see tests/conftest.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test of the fast tier fails where it is the first to import torch."""
    before = loaded()
    yield
    if item.config.getoption("--fast") and (new := [name for name in loaded() if name not in before]):
        pytest.fail(f"a test of the fast tier imported {', '.join(new)}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.location[0], len(places)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Small models live in a cache of the run, which fixtures of any scope see; those of ``model`` are the user's."""
    chosen: str | None = item.config.stash[_directory].name
    if item.get_closest_marker("model"):
        chosen = item.config.stash[_of_the_user]
    if chosen is None:
        os.environ.pop("UNSPOOL_CACHE", None)
    else:
        os.environ["UNSPOOL_CACHE"] = chosen


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Minutes and test functions: how often one is parametrised says nothing."""
    if config.option.collectonly:
        return
    ran = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, [])]
    functions = {report.nodeid.partition("[")[0] for report in ran}
    failed = {report.nodeid.partition("[")[0] for report in terminalreporter.stats.get("failed", [])}
    minutes = (time.monotonic() - config.stash[_began]) / 60
    terminalreporter.write_line(f"{len(functions)} test functions ran in {minutes:.1f} minutes, {len(failed)} failed")
