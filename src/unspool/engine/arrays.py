"""Array files for memories. Written atomically; a file that is not what it claims to be is refused in one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.errors import UnspoolError


def save(path: Path, what: str, arrays: dict[str, Any]) -> None:
    """Write an ``.npz`` file atomically. An existing file of that name is replaced.

    Args:
        what: noun for error messages, such as ``"recycling matrix"``.

    Raises:
        UnspoolError: if the file cannot be written. An existing file is left unchanged.
    """

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez(file, **arrays)

    replace(path, what, write)


def replace(path: Path, what: str, write: Callable[[Path], object]) -> None:
    """Write a file atomically, by ``write`` to a temporary file next to it.

    Args:
        what: noun for error messages.

    Raises:
        UnspoolError: if the file cannot be written. An existing file is left unchanged.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(path)
    except OSError as error:
        raise UnspoolError(f"cannot write the {what} to {path}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def load(path: Path, what: str, names: Sequence[str]) -> list[NDArray[Any]]:
    """Load the arrays of these names from a file that ``save`` wrote.

    Raises:
        UnspoolError: if the file cannot be read or lacks one of them.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[name] for name in names]
    except OSError as error:
        raise UnspoolError(f"cannot read the {what} {path}: {error.strerror or error}") from error
    except Exception as error:  # on damaged bytes the zip and array readers raise any exception
        raise UnspoolError(f"{path} is not a saved {what}; delete it and start with a new one") from error
