"""Where tests keep what they convert, and which files begin first."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory

import pytest

LONGEST = (
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

_directory = pytest.StashKey[TemporaryDirectory]()  # type: ignore[type-arg]
_of_the_user = pytest.StashKey["str | None"]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_directory] = TemporaryDirectory(prefix="unspool-tests-")
    config.stash[_of_the_user] = os.environ.get("UNSPOOL_CACHE")
    # Else pytest-xdist begins with the files of most tests.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_directory].cleanup()


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
