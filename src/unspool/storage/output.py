"""Files that a report writes: whole or not at all."""

from __future__ import annotations

from pathlib import Path

from unspool.storage.cache import atomic_file
from unspool.storage.text_files import check_file


def save(text: str, path: Path) -> None:
    """Write text, replacing a file of that name.

    Raises:
        UnspoolError: if it cannot be written.
    """
    check_file(path)
    with atomic_file(path.absolute()) as temporary:
        temporary.write_text(text, "utf-8")
