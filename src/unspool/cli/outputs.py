"""Directories that commands write to."""

from __future__ import annotations

import os
from pathlib import Path

from unspool.errors import UnspoolError


def check_writable(output: Path) -> None:
    """Raise an ``UnspoolError`` if ``output`` is no directory that can be written or made."""
    parent = output.absolute() if output.exists() else output.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UnspoolError(f"cannot write to {output}; name a directory that can be written")
