"""Threads take turns on a model: one round of one thread at a time.

A pass returns a view that the model's next pass overwrites, and all requests of a model share what methods learn. So a
thread holds the model from the first pass of a round until it has read all results. Turns are first come, first served:
a thread that decodes a long text cannot starve the others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from unspool.errors import UnspoolError


class _Turns:
    """The turns on one model.

    Attributes:
        number: turns on several models are taken in this order, so that threads cannot deadlock.
    """

    _numbers = count()

    def __init__(self) -> None:
        self.number = next(self._numbers)
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False
        self._holder: int | None = None  # the thread whose turn it is

    def take(self) -> None:
        if self._holder == threading.get_ident():
            raise UnspoolError(
                "the model is in the middle of a pass; a shaper, constraint, stop rule or drafter must not run the "
                "model that it serves"
            )
        with self._guard:
            place = threading.Lock()
            if self._taken:
                place.acquire()
                self._waiting.append(place)
            self._taken = True
        try:
            place.acquire()  # released by the previous turn
        except BaseException:  # Ctrl-C while waiting
            with self._guard:
                if place in self._waiting:
                    self._waiting.remove(place)
                    raise
            self.give()  # the turn arrived at that moment
            raise
        self._holder = threading.get_ident()

    def give(self) -> None:
        self._holder = None
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


_guard = threading.Lock()
_turns: WeakKeyDictionary[Any, _Turns] = WeakKeyDictionary()


def _of(model: object) -> _Turns:
    with _guard:
        found = _turns.get(model)
        if found is None:
            found = _turns[model] = _Turns()
        return found


@contextmanager
def turn(*models: object) -> Iterator[None]:
    """Wait for the turn on all of these models and keep it: for one round, never across a ``yield``.

    Raises:
        UnspoolError: if this thread already has the turn; the inner round would overwrite what the outer still reads.
    """
    turns = {one.number: one for one in map(_of, models)}
    with ExitStack() as stack:
        for number in sorted(turns):
            turns[number].take()
            stack.callback(turns[number].give)
        yield
