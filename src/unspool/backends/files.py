"""Text files that others wrote, read with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unspool.errors import UnspoolError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UnspoolError: if the file cannot be read or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnspoolError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # no UTF-8, or no JSON
        raise UnspoolError(f"{path} is damaged, it holds no JSON ({error}); fetch it again") from error
    if not isinstance(data, dict):
        raise UnspoolError(f"{path} is damaged, it holds no JSON object; fetch it again")
    return data


def reason(error: BaseException) -> str:
    """What an error of another library says, in one line; its kind, where the text alone says little."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    telling = isinstance(error, OSError | ValueError | RuntimeError) and not isinstance(error, UnicodeError)
    return lines[0] if telling else f"{type(error).__name__}: {lines[0]}"
