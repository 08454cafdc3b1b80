"""Report files, written atomically."""

from __future__ import annotations

from pathlib import Path

from unspool.storage.cache import atomic_file
from unspool.storage.text_files import check_file


def save(text: str, path: Path) -> None:
    """Write text, replacing an existing file.

    Raises:
        UnspoolError: if it cannot be written.
    """
    check_file(path)
    with atomic_file(path.absolute()) as temporary:
        temporary.write_text(text, "utf-8")
