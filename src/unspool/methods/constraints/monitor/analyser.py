"""What monitors ask of a static analyser, and the asking: every place once, balanced as well, failures told."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeVar

_REMEMBERED = 4096
"""Places whose answers are kept."""

T = TypeVar("T")


@dataclass(frozen=True)
class Parameter:
    """Of a signature, what a call must know.

    Attributes:
        name: of the parameter.
        required: whether a call that does not give it is wrong.
        positional: whether an argument without a name can give it.
    """

    name: str
    required: bool
    positional: bool


Signature = tuple[Parameter, ...]
"""Parameters in their order; those that collect any number of arguments are not among them."""


class Analyser(Protocol):
    """A static analyser of one language, over a text that need not be complete."""

    def suggestions(self, text: str, offset: int) -> Sequence[str]:
        """Identifiers that may stand at ``offset``, directly behind a dot; empty where it does not know.

        Args:
            text: of the file, also what stands behind the place.
            offset: of the place, in characters.
        """
        ...

    def signatures(self, text: str, offset: int) -> Sequence[Signature]:
        """What may be called by the bracket that ends at ``offset``; empty where it does not know."""
        ...


class Asked:
    """An analyser whose answers are kept.

    Attributes:
        queries: places that it was asked about.
        ms: milliseconds that it took.
        failures: places at which it raised an error. Nothing is constrained there.
    """

    def __init__(self, analyser: Analyser) -> None:
        self._analyser = analyser
        self.queries = self.failures = 0
        self.ms = 0.0
        self.names = lru_cache(maxsize=_REMEMBERED)(self._names)
        self.signature = lru_cache(maxsize=_REMEMBERED)(self._signature)

    def _names(self, before: bytes, closers: bytes) -> frozenset[bytes]:
        """Identifiers behind the dot that ends ``before``: those that fit it alone, and with what is open closed."""
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
        except Exception as error:  # analysers raise whatever their internals raise; a text must not end by that
            self.failures += 1
            warnings.warn(f"the analyser failed, nothing is constrained there: {error!r}", RuntimeWarning, stacklevel=2)
            return None
        finally:
            self.ms += (time.perf_counter() - start) * 1000
