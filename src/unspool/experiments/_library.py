"""Python's standard library as a corpus: its source files, and for a corpus of another kind its manual."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from numpy.typing import NDArray

from unspool.decoding.model import Model

_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
_MANUAL = "pydoc_data"


def sources() -> list[Path]:
    """The library's Python files, sorted, without its tests and its manual, which is also a Python file."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skipped = _SKIPPED | {_MANUAL}
    return [file for file in sorted(root.rglob("*.py")) if not skipped & set(file.relative_to(root).parts)]


def manual() -> list[str]:
    """The chapters of the language reference that ``help()`` prints: English prose with few lines of code."""
    return [text for _, text in sorted(topics.items())]


def read(files: Iterable[Path]) -> Iterator[str]:
    """The files' texts."""
    return (file.read_text("utf-8") for file in files)


def encoded(model: Model, texts: Iterable[str]) -> list[NDArray[np.int32]]:
    """Texts as token ids, without special tokens."""
    return [np.array(model.tokenizer.encode(text, add_special_tokens=False), dtype=np.int32) for text in texts]
