"""Errors that a user can fix. The command line prints their message as one line and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnspoolError(Exception):
    """A mistake in the input or the environment; the message says what is wrong and what to do."""


class UnknownNameError(UnspoolError):
    """A name that is not in a table; the message suggests the nearest one that is."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        choices = sorted(known)
        near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(choices) or 'none'}"
        super().__init__(f"unknown {kind} {name!r}; {hint}")


class UnsupportedError(UnspoolError):
    """Two things that cannot be combined; the message names both and what to use instead."""
