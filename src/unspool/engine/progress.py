"""The progress callback of long work: the same signature everywhere."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Called during long work, in the thread that does it."""

    def __call__(self, what: str, done: int, of: int, /) -> None:
        """Report that ``done`` of ``of`` parts of ``what`` are done; equal at the end."""


def silent(what: str, done: int, of: int, /) -> None:
    """Report nothing."""
