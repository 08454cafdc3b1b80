"""Plain decoding: one token per pass, no drafts.

It changes nothing, so its guarantee is that of the model itself: every other drafter is verified against it.
"""

from __future__ import annotations

from dataclasses import dataclass

from unspool.engine.contracts import Context, Step
from unspool.engine.method import DRAFTER, Method
from unspool.engine.tree import TokenTree


@dataclass(frozen=True)
class PlainOptions:
    """Plain decoding has no options."""


class Plain:
    """Always proposes the root only."""

    name = "plain"

    def __init__(self, options: PlainOptions | None = None) -> None:
        self.options = options or PlainOptions()

    def start(self, context: Context) -> None:
        """Nothing to prepare."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        """The tree of one node."""
        return TokenTree((context.tokens[-1],), (-1,))

    def observe(self, step: Step) -> None:
        """Nothing to learn."""


METHOD = Method(
    kind=DRAFTER,
    guarantee="identical",
    summary="One token per pass, no drafts: the baseline of every other method.",
    paper="textbook autoregressive decoding",
    options=PlainOptions,
    build=lambda _, options: Plain(options),
)
