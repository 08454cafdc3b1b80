"""EXSPEC: "Batch Speculative Decoding Done Right" (2025), a scheduler that batches rows of equal length.

More sequences are open than a pass has rows. The first ``batch_size`` of equal length form the next pass, which needs
no padding. If no length has enough rows, the pass takes the first rows of the window, padded, as ``eqspec`` does.

What it changes about plain decoding: several sequences share a pass, in the scheduler's order. Guarantee: identical; a
row's text is that of the row alone, with any drafter and acceptance rule, up to the rounding of a batched pass.
``unspool.engine.statistics.grouping_rate`` computes from a trace how many passes had rows of equal length.

Ageing, which the paper's code lacks: without it a row of an odd length could wait forever. A row that has not been in a
pass for ``max_waiting_passes`` goes first: with its group if that fills a pass, else padded with the others that waited
too long and the first rows of the window. So no row waits for more than ``max_waiting_passes + window`` passes.

Differences from the paper's code: those of ``eqspec``. Also, a group is rows of equal length alone, because every open
row's prompt is in its cache; trees of unequal sizes are padded after the text, which moves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unspool.engine.batch import OpenRow
from unspool.engine.method import BATCH, Method
from unspool.errors import UnspoolError


@dataclass(frozen=True)
class ExSpecOptions:
    """Options of ``exspec``.

    Attributes:
        batch_size: rows per pass, at least 1; fewer when fewer are left.
        window: sequences that are open at once, more than ``batch_size``. Each has its own cache.
        shortest_first: whether sequences are opened in order of prompt length. Rows of equal length are then more
            frequent, and long prompts wait longest.
        max_waiting_passes: a row that was left out of this many passes goes first; at least 1.
    """

    batch_size: int = 16
    window: int = 32
    shortest_first: bool = False
    max_waiting_passes: int = 16

    def __post_init__(self) -> None:
        for ok, message in (
            (self.batch_size >= 1, f"batch_size must be at least 1, not {self.batch_size}"),
            (
                self.window > self.batch_size,
                f"window must be above batch_size ({self.batch_size}), not {self.window}; use eqspec for equal values",
            ),
            (self.max_waiting_passes >= 1, f"max_waiting_passes must be at least 1, not {self.max_waiting_passes}"),
        ):
            if not ok:
                raise UnspoolError(message)


class ExSpec:
    """Picks rows of equal length if there are enough, else the first of the window; late rows go first."""

    name = "exspec"

    def __init__(self, options: ExSpecOptions) -> None:
        self.options = options
        self.window: int | None = options.window
        self.shortest_first = options.shortest_first

    def choose(self, rows: Sequence[OpenRow]) -> Sequence[int]:
        """Indices of at most ``batch_size`` rows."""
        size, patience = self.options.batch_size, self.options.max_waiting_passes
        late = sorted((row for row in rows if row.waited >= patience), key=lambda row: -row.waited)
        order = [*late, *(row for row in rows if row.waited < patience)]
        groups: dict[int, list[OpenRow]] = {}
        for row in order:
            groups.setdefault(row.length, []).append(row)
        candidates = list(groups.values())[: 1 if late else None]  # if rows are late, that of the longest waiting one
        chosen = next((group for group in candidates if len(group) >= size), order)
        return [row.index for row in chosen[:size]]


METHOD = Method(
    kind=BATCH,
    guarantee="identical",
    summary="Keeps more rows open than fit in a pass and batches those of equal length.",
    paper="Batch Speculative Decoding Done Right (2025)",
    options=ExSpecOptions,
    build=lambda _, options: ExSpec(options),
)
