"""Files of arrays, as memories keep them: replaced in one step, refused in one line if they are not what they seem."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.errors import UnspoolError


def save(path: Path, what: str, arrays: dict[str, Any]) -> None:
    """Write an ``.npz`` file; a file of that name is replaced in one step.

    Args:
        what: the arrays are, for messages: ``"recycling matrix"``.

    Raises:
        UnspoolError: if it cannot be written; a file of that name is then as it was.
    """

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez(file, **arrays)

    replace(path, what, write)


def replace(path: Path, what: str, write: Callable[[Path], object]) -> None:
    """Make a file of what ``write`` writes to another name beside it.

    Args:
        what: it is, for messages.

    Raises:
        UnspoolError: if it cannot be written; a file of that name is then as it was.
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
    """The arrays of these names from a file that ``save`` wrote.

    Raises:
        UnspoolError: if the file cannot be read or does not hold them.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[name] for name in names]
    except OSError as error:
        raise UnspoolError(f"cannot read the {what} {path}: {error.strerror or error}") from error
    except Exception as error:  # damaged bytes make the readers of zip files and of arrays raise anything
        raise UnspoolError(f"{path} is not a saved {what}; delete it and start with a new one") from error
