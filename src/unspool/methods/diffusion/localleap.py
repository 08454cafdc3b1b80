"""LocalLeap: Accelerating Diffusion LLM Inference via Local Determinism Propagation (2025).

What is predicted next to a very confident slot agrees with the final text even if its own probability is moderate.
So slots near an *anchor*, a masked slot above a strict threshold, are committed at a relaxed one in the same step.
Without an anchor only the best slot is committed. Guarantee: lossy; with equal thresholds, or a radius of 0, it is
``threshold`` exactly.

Choices: anchors are currently masked slots, as in the published code; distance is in slots of the canvas and ends at
the block's edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unspool.engine.canvas import BlockState, Flags
from unspool.engine.method import UNMASK, Method
from unspool.engine.option import Options, option
from unspool.errors import UnspoolError


@dataclass(frozen=True)
class LocalLeapOptions(Options):
    """Defaults are the paper's.

    Attributes:
        threshold: least probability of an anchor, and of slots far from one.
        relaxed_threshold: least probability near an anchor, at most ``threshold``. The paper warns of less than 0.75.
        radius: distance from an anchor that counts as near, in slots, at least 0.
    """

    threshold: float = 0.9
    relaxed_threshold: float = 0.75
    radius: int = option(4, least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.relaxed_threshold > self.threshold:
            raise UnspoolError(
                f"relaxed_threshold must be at most threshold ({self.threshold}), not {self.relaxed_threshold}"
            )


class LocalLeap:
    """Commits at a relaxed threshold near anchors."""

    def __init__(self, options: LocalLeapOptions | None = None) -> None:
        self.options = options or LocalLeapOptions()

    def start_block(self, view: BlockState) -> None:
        """Does nothing: the rule has no state."""

    def select(self, view: BlockState) -> Flags:
        options = self.options
        anchors = view.masked & (view.confidence >= options.threshold)
        near = np.convolve(anchors, np.ones(2 * options.radius + 1), mode="full")
        near = near[options.radius : options.radius + len(anchors)] > 0.5
        chosen: Flags = view.confidence >= np.where(near, options.relaxed_threshold, options.threshold)
        return chosen


METHOD = Method(
    kind=UNMASK,
    guarantee="lossy",
    summary="Commits at a relaxed threshold next to very confident tokens.",
    paper="LocalLeap: Accelerating Diffusion LLM Inference via Local Determinism Propagation (2025)",
    options=LocalLeapOptions,
    build=lambda _, options: LocalLeap(options),
    sweep={
        "localleap": (
            "localleap:threshold=0.95,relaxed_threshold=0.8",
            "localleap:threshold=0.9,relaxed_threshold=0.75",
            "localleap:threshold=0.9,relaxed_threshold=0.5",
            "localleap:threshold=0.8,relaxed_threshold=0.5",
        )
    },
)
