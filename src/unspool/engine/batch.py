"""Batch plans: how many sequences of a batch are open at once, and which of them share the next pass.

The loop keeps a window of open sequences. Before each pass the plan selects rows whose prompts are in the cache. A row
that ends frees its cache, and the next waiting sequence is opened in its place. The output of a row depends only on
that row, so a plan changes speed and order, never text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class OpenRow:
    """The part of a row that a plan can see.

    Attributes:
        index: of the sequence in the batch.
        length: number of committed tokens, prompt included.
        waited: passes since the row was last in one, or since its prompt was in the cache.
    """

    index: int
    length: int
    waited: int


class BatchPlan(Protocol):
    """A slot of the loop: selects the rows of each pass.

    Attributes:
        window: maximum number of open sequences, at least 1; None: all.
        shortest_first: whether sequences are opened by prompt length instead of in the given order.
    """

    window: int | None
    shortest_first: bool

    def choose(self, rows: Sequence[OpenRow]) -> Sequence[int]:
        """Indices of the rows of the next pass, at least one.

        Args:
            rows: all open rows whose prompts are in the cache, at least one, in the order opened.
        """
        ...


class AllRows:
    """The default: all sequences are open, and every unfinished one is in every pass."""

    window: int | None = None
    shortest_first = False

    def choose(self, rows: Sequence[OpenRow]) -> Sequence[int]:
        """All of them."""
        return [row.index for row in rows]
