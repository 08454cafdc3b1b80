"""How long work says how far it is: one shape of callback, everywhere."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Called during long work, in its thread."""

    def __call__(self, what: str, done: int, of: int, /) -> None:
        """``done`` of ``of`` parts of ``what`` are done; at the end both are equal."""


def silent(what: str, done: int, of: int, /) -> None:
    """Says nothing."""
