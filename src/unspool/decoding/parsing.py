"""Parse a finished text. One that cannot be parsed is still a result: exceptions of the parser become a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unspool.errors import UnspoolError


def read(parse: Callable[[str], Any], text: str) -> tuple[Any, str | None]:
    """The value of ``parse(text)``, or None and the reason in one line.

    ``parse`` may run user code, such as the validators of a pydantic model, so any exception is a reason.
    """
    try:
        return parse(text), None
    except UnspoolError as error:
        return None, str(error)  # its message is the reason
    except Exception as error:
        return None, f"{type(error).__name__}: {' '.join(str(error).split())}"
