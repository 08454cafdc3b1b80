"""Fast-dLLM: Training-free Acceleration of Diffusion LLM by Enabling KV Cache and Parallel Decoding (2025), threshold.

Commits every token whose probability reaches a threshold, and at least the best one. Guarantee: lossy; a threshold
above 1 is one token per step exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from unspool.engine.canvas import BlockState, Flags
from unspool.engine.method import UNMASK, Method
from unspool.methods.diffusion._sweep import THRESHOLDS, at


@dataclass(frozen=True)
class ThresholdOptions:
    """The default is the paper's.

    Attributes:
        threshold: least probability.
    """

    threshold: float = 0.9


class Threshold:
    """Commits tokens that are confident enough."""

    def __init__(self, options: ThresholdOptions | None = None) -> None:
        self.options = options or ThresholdOptions()

    def start_block(self, view: BlockState) -> None:
        """Does nothing: the rule has no state."""

    def select(self, view: BlockState) -> Flags:
        chosen: Flags = view.confidence >= self.options.threshold
        return chosen


METHOD = Method(
    kind=UNMASK,
    guarantee="lossy",
    summary="Commits every token whose probability reaches a threshold.",
    paper="Fast-dLLM: Training-free Acceleration of Diffusion LLM (2025)",
    options=ThresholdOptions,
    build=lambda _, options: Threshold(options),
    sweep={"threshold": at(THRESHOLDS, "threshold:threshold={}")},
)
