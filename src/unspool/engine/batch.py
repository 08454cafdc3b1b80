"""Batch plans: how many sequences of a batch are open at once, and which of them go into the next pass.

The loop keeps a window of open sequences. Before each pass the plan picks from those whose prompts are in the cache; a
row that ends gives its cache back, and the next waiting sequence is opened in its place. What a row emits depends on
nothing but the row, so a plan changes speed and order, never text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class OpenRow:
    """What a plan may look at.

    Attributes:
        index: of the sequence in the batch.
        length: number of committed tokens, prompt and output.
        waited: number of passes since the row was last in one, or since its prompt was read.
    """

    index: int
    length: int
    waited: int


class BatchPlan(Protocol):
    """A slot of the loop.

    Attributes:
        window: most sequences that are open at once, at least 1; None: all of them.
        shortest_first: whether sequences are opened by the length of their prompts instead of in the order given.
    """

    window: int | None
    shortest_first: bool

    def choose(self, rows: Sequence[OpenRow]) -> Sequence[int]:
        """Indices of the rows of the next pass, at least one.

        Args:
            rows: all open rows whose prompts are read, at least one, in the order in which they were opened.
        """
        ...


class AllRows:
    """The default: all sequences are open, and every one that has not ended is in every pass."""

    window: int | None = None
    shortest_first = False

    def choose(self, rows: Sequence[OpenRow]) -> Sequence[int]:
        """All of them."""
        return [row.index for row in rows]
