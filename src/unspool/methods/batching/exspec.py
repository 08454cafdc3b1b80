"""EXSPEC: "Batch Speculative Decoding Done Right" (2025), a scheduler that lets rows of equal length run together.

More sequences are open than a pass has rows. The first ``batch_size`` of them that have equal length form the next
pass: no text has to be padded. Where no length has enough rows, the pass takes the first rows of the window, padded,
as ``eqspec`` does.

What it changes about plain decoding: several sequences share a pass, in an order of the scheduler's. Guarantee:
identical; a row's text is that of the row alone, with any drafter and acceptance rule, up to the rounding of a batched
pass. ``unspool.engine.statistics.grouping_rate`` says from a trace how many passes were of equal lengths.

Ageing, which the paper's code lacks: a row of an odd length could wait for ever. One that has not been in a pass for
``max_waiting_passes`` goes first: with its group if that fills a pass, else padded with the others that waited too long
and the first rows of the window. So no row waits for more than ``max_waiting_passes + window`` passes.

Other than in the paper's code: what ``eqspec`` lists. Also, a group is rows of equal length alone, because every open
row's prompt is in its cache; trees of unequal sizes are padded behind the text, which moves nothing.
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
        batch_size: rows of a pass, at least 1; fewer when fewer are left.
        window: sequences that are open at once, more than ``batch_size``. Each holds its cache.
        shortest_first: whether sequences are opened by the length of their prompts. Rows of equal length then meet more
            often, and long prompts wait longest.
        max_waiting_passes: a row that was left out of so many passes goes first, at least 1.
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
                f"window must be above batch_size ({self.batch_size}), not {self.window}; for equal ones use eqspec",
            ),
            (self.max_waiting_passes >= 1, f"max_waiting_passes must be at least 1, not {self.max_waiting_passes}"),
        ):
            if not ok:
                raise UnspoolError(message)


class ExSpec:
    """Rows of equal length where there are enough, else the first of the window; who waited too long goes first."""

    name = "exspec"

    def __init__(self, options: ExSpecOptions) -> None:
        self.options = options
        self.window: int | None = options.window
        self.shortest_first = options.shortest_first

    def choose(self, rows: Sequence[OpenRow]) -> Sequence[int]:
        """At most ``batch_size`` of them."""
        size, patience = self.options.batch_size, self.options.max_waiting_passes
        late = sorted((row for row in rows if row.waited >= patience), key=lambda row: -row.waited)
        order = [*late, *(row for row in rows if row.waited < patience)]
        groups: dict[int, list[OpenRow]] = {}
        for row in order:
            groups.setdefault(row.length, []).append(row)
        candidates = list(groups.values())[: 1 if late else None]  # only the longest waiting row's, if there is one
        chosen = next((group for group in candidates if len(group) >= size), order)
        return [row.index for row in chosen[:size]]


METHOD = Method(
    kind=BATCH,
    guarantee="identical",
    summary="Keeps more rows open than a pass holds and lets those of equal length run together.",
    paper="Batch Speculative Decoding Done Right (2025)",
    options=ExSpecOptions,
    build=lambda _, options: ExSpec(options),
)
