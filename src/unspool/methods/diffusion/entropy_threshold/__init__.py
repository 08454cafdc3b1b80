"""dParallel: Learnable Parallel Decoding for dLLMs (2025): commits every token whose entropy is below a threshold.

The slot with the lowest entropy is always committed. dParallel trains a model for this rule; any model can use it.
Guarantee: lossy; a threshold below 0 is exactly one token per step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unspool.engine.canvas import BlockState, Flags
from unspool.engine.method import UNMASK, Method
from unspool.methods.diffusion._sweep import at


@dataclass(frozen=True)
class EntropyThresholdOptions:
    """The default is the paper's for LLaDA.

    Attributes:
        threshold: maximum entropy, in nats.
    """

    threshold: float = 0.5


class EntropyThreshold:
    """Commits the slots of low entropy."""

    def __init__(self, options: EntropyThresholdOptions | None = None) -> None:
        self.options = options or EntropyThresholdOptions()

    def start_block(self, view: BlockState) -> None:
        """Do nothing: the rule has no state."""

    def select(self, view: BlockState) -> Flags:
        chosen: Flags = view.entropy <= self.options.threshold
        chosen[np.argmin(np.where(view.masked, view.entropy, np.inf))] = True
        return chosen


METHOD = Method(
    kind=UNMASK,
    guarantee="lossy",
    summary="Commits every token whose entropy is low enough; `unspool train entropy_threshold` trains a model for it.",
    paper="dParallel: Learnable Parallel Decoding for dLLMs (2025)",
    options=EntropyThresholdOptions,
    build=lambda _, options: EntropyThreshold(options),
    sweep={"entropy_threshold": at((0.05, 0.1, 0.2, 0.5, 1.0), "entropy_threshold:threshold={}")},
    trainer=".train",
)
