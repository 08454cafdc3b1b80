"""Packages of methods that are installed for a test, as pip would install them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import invalidate_caches
from pathlib import Path

import pytest

from unspool import methods

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
NAMES = {"bigram", "recent", "margin", "first_tokens", "at_most", "without", "norm"}
"""The methods of the documentation, each ``unspool_NAME.py``."""


def write(directory: Path, name: str, entries: dict[str, str], files: list[Path]) -> None:
    """Put a distribution of these files into a directory, with entry points of the group ``unspool.methods``."""
    info = directory / f"{name}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    lines = "".join(f"{key} = {value}\n" for key, value in entries.items())
    (info / "entry_points.txt").write_text(f"[unspool.methods]\n{lines}")
    for file in files:
        (directory / file.name).write_text(file.read_text("utf-8"))


def write_examples(directory: Path, *names: str) -> None:
    """The documentation's methods, each a distribution of one file."""
    for name in names:
        write(directory, f"unspool_{name}", {name: f"unspool_{name}:METHOD"}, [EXAMPLES / f"unspool_{name}.py"])


@contextmanager
def on_path(directory: Path) -> Iterator[None]:
    """What is installed in a directory is installed for this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(directory))
        invalidate_caches()
        methods.forget()
        try:
            yield
        finally:
            patch.undo()
            methods.forget()
            for name in NAMES:
                sys.modules.pop(f"unspool_{name}", None)
