"""Reads the events of a batch."""

from __future__ import annotations

from collections.abc import Iterable

from unspool.engine.trace import Event, StepEvent


def texts(events: Iterable[Event], rows: int) -> list[list[int]]:
    """Emitted tokens of every row."""
    found: list[list[int]] = [[] for _ in range(rows)]
    for event in events:
        if isinstance(event, StepEvent):
            found[event.row] += event.emitted
    return found


def passes(events: Iterable[Event]) -> list[list[int]]:
    """Rows of every pass."""
    found: dict[int, list[int]] = {}
    for event in events:
        if isinstance(event, StepEvent):
            found.setdefault(event.batch_pass, []).append(event.row)
    assert list(found) == list(range(len(found))), "passes are numbered in order"
    return list(found.values())
