"""EQSPEC: "Batch Speculative Decoding Done Right" (2025), correct batched speculative decoding.

Rows of a batch accept different numbers of drafted tokens, so their lengths diverge. Every pass still has the same
``batch_size`` rows, each with the positions, mask and cache entries of its own text.

What it changes about plain decoding: several sequences share a pass. Guarantee: identical; a row's text is that of the
row alone, with any drafter and acceptance rule, up to the rounding of a batched pass.

Differences from the paper's code:
- A finished row is replaced by the next sequence at once. The paper keeps it until the batch is done.
- The backend aligns rows. The paper's code shifts the whole cache of every row in every round, so that the rows end in
  the same column; here nodes have columns of their own, and a row's entries stay where they are.
- Every row has a draft of its own length. The paper's is as long as the least that a row may still emit. So here a row
  near its end does not shorten the other drafts.
- A draft that is accepted whole also yields its bonus token, which the code drops.

Left out: drafting for all rows in one pass of a draft model; drafters draft row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unspool.engine.batch import OpenRow
from unspool.engine.method import BATCH, Method
from unspool.errors import UnspoolError


@dataclass(frozen=True)
class EqSpecOptions:
    """Options of ``eqspec``.

    Attributes:
        batch_size: rows per pass, at least 1; fewer when fewer are left.
    """

    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UnspoolError(f"batch_size must be at least 1, not {self.batch_size}")


class EqSpec:
    """Opens as many sequences as a pass has rows; all of them are in every pass."""

    name = "eqspec"
    shortest_first = False

    def __init__(self, options: EqSpecOptions) -> None:
        self.window: int | None = options.batch_size

    def choose(self, rows: Sequence[OpenRow]) -> Sequence[int]:
        """All rows."""
        return [row.index for row in rows]


METHOD = Method(
    kind=BATCH,
    guarantee="identical",
    summary="Runs the same number of rows in every pass; a finished row is replaced at once.",
    paper="Batch Speculative Decoding Done Right (2025)",
    options=EqSpecOptions,
    build=lambda _, options: EqSpec(options),
)
