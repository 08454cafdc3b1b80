"""Fast-dLLM: Training-free Acceleration of Diffusion LLM by Enabling KV Cache and Parallel Decoding (2025), factor.

Commits the n most confident tokens, for the largest n with (n + 1) (1 - c_n) < factor: if n tokens each have a
probability above 1 - e and (n + 1) e <= 1, the most probable tokens one by one are also the most probable ones jointly.
Guarantee: lossy if the factor exceeds that bound or the model's marginals are wrong.

Departs from the released code, which also commits a last remaining token that fails the test: here, as in the paper,
only the best one is exempt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unspool.engine.canvas import BlockState, Flags
from unspool.engine.method import UNMASK, Method
from unspool.engine.option import Options, option
from unspool.methods.diffusion._sweep import at


@dataclass(frozen=True)
class FactorOptions(Options):
    """The default is the released code's.

    Attributes:
        factor: above 0; 1 is the bound of the theory.
    """

    factor: float = option(1.0, above=0)


class Factor:
    """Commits as many of the most confident tokens as the factor allows."""

    def __init__(self, options: FactorOptions | None = None) -> None:
        self.options = options or FactorOptions()

    def start_block(self, view: BlockState) -> None:
        """Does nothing: the rule has no state."""

    def select(self, view: BlockState) -> Flags:
        chosen = np.zeros(len(view.masked), dtype=np.bool_)
        order = np.argsort(-np.where(view.masked, view.confidence, -1.0), kind="stable")[: int(view.masked.sum())]
        n = np.arange(1, len(order) + 1)
        passing = np.flatnonzero((n + 1) * (1 - view.confidence[order]) < self.options.factor)
        chosen[order[: passing[-1] + 1 if len(passing) else 1]] = True
        return chosen


METHOD = Method(
    kind=UNMASK,
    guarantee="lossy",
    summary="Commits more tokens per step the more certain they all are.",
    paper="Fast-dLLM: Training-free Acceleration of Diffusion LLM (2025)",
    options=FactorOptions,
    build=lambda _, options: Factor(options),
    sweep={"factor": at((0.1, 0.25, 0.5, 1.0, 1.5, 2.0), "factor:factor={}")},
)
