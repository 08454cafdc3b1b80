"""An example of a third-party unmask policy (no paper): commit a slot whose best token leads the second by enough.

Changes about one token a pass: several slots are filled in a pass. Guarantee: lossy. Left out: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from unspool.engine.canvas import BlockState, Flags
from unspool.engine.method import UNMASK, Method
from unspool.engine.option import Options, option


@dataclass(frozen=True)
class MarginOptions(Options):
    """Options of ``margin``.

    Attributes:
        margin: least lead of the best token's probability over the second's, 0 to 1.
    """

    margin: float = option(0.5, least=0, most=1)


class Margin:
    """The loop commits the surest masked slot besides, so that no pass is in vain."""

    def __init__(self, options: MarginOptions) -> None:
        self.options = options

    def start_block(self, view: BlockState) -> None:
        """Nothing: the rule has no state."""

    def select(self, view: BlockState) -> Flags:
        chosen: Flags = view.margin >= self.options.margin
        return chosen


METHOD = Method(
    kind=UNMASK,
    guarantee="lossy",
    summary="Commits every token that leads the second-best by enough.",
    paper="none",
    options=MarginOptions,
    build=lambda _, options: Margin(options),
    sweep={"margin": tuple(f"margin:margin={margin}" for margin in (0.2, 0.5, 0.8))},
)
