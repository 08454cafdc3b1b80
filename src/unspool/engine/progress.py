"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Receives what is being done, how much of it is done, and how much there is."""


def silent(what: str, done: int, of: int) -> None:
    """Says nothing."""
