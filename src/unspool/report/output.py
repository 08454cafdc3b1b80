"""Files that a report writes: whole or not at all, with mistakes told as one line."""

from __future__ import annotations

import os
from pathlib import Path

from unspool.backends.store import atomic_file
from unspool.errors import UnspoolError


def check(path: Path) -> None:
    """Check that a file can be written, before the work for it is done.

    Raises:
        UnspoolError: if not.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UnspoolError(f"cannot write {path}: there is no directory {folder}; create it first")
    if not os.access(folder, os.W_OK):
        raise UnspoolError(f"cannot write {path}: the directory {folder} is not yours to write; choose another one")
    if path.is_dir():
        raise UnspoolError(f"cannot write {path}: it is a directory; give the name of a file")


def save(text: str, path: Path) -> None:
    """Write text, replacing a file of that name.

    Raises:
        UnspoolError: if it cannot be written.
    """
    check(path)
    with atomic_file(path.absolute()) as temporary:
        temporary.write_text(text, "utf-8")
