"""What a finished text says. One that cannot be read is still the text: nothing that reading raises is let through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unspool.errors import UnspoolError


def read(parse: Callable[[str], Any], text: str) -> tuple[Any, str | None]:
    """What ``parse`` makes of a text, or None and the reason in one line.

    ``parse`` may run anybody's code, such as the validators of a pydantic model, so any exception is a reason.
    """
    try:
        return parse(text), None
    except UnspoolError as error:
        return None, str(error)  # it names its reason
    except Exception as error:
        return None, f"{type(error).__name__}: {' '.join(str(error).split())}"
