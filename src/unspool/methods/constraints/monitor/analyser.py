"""The interface of a static analyser, and queries to it: each place once, also with brackets closed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeVar

_REMEMBERED = 4096
"""Places whose answers are cached."""

T = TypeVar("T")


@dataclass(frozen=True)
class Parameter:
    """The part of a signature that a call must know.

    Attributes:
        name: of the parameter.
        required: whether a call that omits it is wrong.
        positional: whether a positional argument can fill it.
    """

    name: str
    required: bool
    positional: bool


Signature = tuple[Parameter, ...]
"""Parameters in order, without those that collect any number of arguments."""


class Analyser(Protocol):
    """A static analyser of one language, over a text that need not be complete."""

    def suggestions(self, text: str, offset: int) -> Sequence[str]:
        """Identifiers that may come at ``offset``, directly after a dot; empty if it does not know.

        Args:
            text: of the file, including what comes after the place.
            offset: of the place, in characters.
        """
        ...

    def signatures(self, text: str, offset: int) -> Sequence[Signature]:
        """What the bracket that ends at ``offset`` may call; empty if it does not know."""
        ...


class Asked:
    """An analyser whose answers are cached.

    Attributes:
        queries: number of places it was asked about.
        ms: milliseconds that it took.
        failures: number of places where it raised an error. Nothing is constrained there.
    """

    def __init__(self, analyser: Analyser) -> None:
        self._analyser = analyser
        self.queries = self.failures = 0
        self.ms = 0.0
        self.names = lru_cache(maxsize=_REMEMBERED)(self._names)
        self.signature = lru_cache(maxsize=_REMEMBERED)(self._signature)

    def _names(self, before: bytes, closers: bytes) -> frozenset[bytes]:
        """Identifiers after the dot that ends ``before``: those for it alone, and those with open brackets closed."""
        text = before.decode("utf-8", "replace")
        names = set(self._ask(lambda: self._analyser.suggestions(text, len(text))) or ())
        if closers:
            balanced = text + closers.decode()
            names |= set(self._ask(lambda: self._analyser.suggestions(balanced, len(text))) or ())
        return frozenset(name.encode() for name in names)

    def _signature(self, before: bytes) -> Signature | None:
        """What the bracket that ends ``before`` calls; None unless there is exactly one."""
        text = before.decode("utf-8", "replace")
        found = self._ask(lambda: self._analyser.signatures(text, len(text))) or ()
        return found[0] if len(found) == 1 else None

    def _ask(self, question: Callable[[], T]) -> T | None:
        start = time.perf_counter()
        self.queries += 1
        try:
            return question()
        except Exception as error:  # analysers raise whatever their internals raise; that must not end a text
            self.failures += 1
            warnings.warn(f"the analyser failed, nothing is constrained there: {error!r}", RuntimeWarning, stacklevel=2)
            return None
        finally:
            self.ms += (time.perf_counter() - start) * 1000
