"""Large Language Diffusion Models (2025): a fixed number of tokens per step, the best first; and its usual variants.

One token per step is the baseline of every speed-up of a masked-diffusion model. Guarantee: lossy above that.

Choices: within a block the numbers per step are as even as possible, larger ones first, as in LLaDA; of equal scores
the first slot wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from unspool.engine import noise
from unspool.engine.canvas import BlockState, Flags
from unspool.engine.method import UNMASK, Method
from unspool.engine.option import Options, option
from unspool.methods.diffusion._sweep import at

Order = Literal["confidence", "margin", "entropy", "random", "left_to_right"]
ORDERS: tuple[Order, ...] = ("confidence", "margin", "entropy", "random", "left_to_right")


@dataclass(frozen=True)
class TopKOptions(Options):
    """Defaults are the reference: one token per step, by confidence.

    Attributes:
        tokens_per_step: most tokens that a step commits, at least 1.
        order: which come first: highest probability, widest gap between the two best probabilities, lowest entropy,
            random, or leftmost.
    """

    tokens_per_step: int = option(1, least=1)
    order: Order = "confidence"


class TopK:
    """Commits the best slots of a block, as many as the step's share."""

    def __init__(self, options: TopKOptions | None = None) -> None:
        self.options = options or TopKOptions()
        self._shares: list[int] = []

    def start_block(self, view: BlockState) -> None:
        masks = int(view.masked.sum())
        steps = -(-masks // self.options.tokens_per_step)
        self._shares = [masks // steps + (i < masks % steps) for i in range(steps)] if steps else []

    def select(self, view: BlockState) -> Flags:
        chosen = np.zeros(len(view.masked), dtype=np.bool_)
        score = np.where(view.masked, self._score(view), -np.inf)
        # A constraint may have refused tokens, so a block can take more steps than planned.
        count = self._shares.pop(0) if self._shares else self.options.tokens_per_step
        chosen[np.argsort(-score, kind="stable")[:count]] = True
        return chosen

    def _score(self, view: BlockState) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        slots = len(view.masked)
        match self.options.order:
            case "confidence":
                return view.confidence
            case "margin":
                return view.margin
            case "entropy":
                return -view.entropy
            case "random":
                # One number per slot of the canvas, so that a block's do not depend on where it begins.
                uniform = noise.canvas_generator(view.seed, view.sight.step).random(view.start + slots)
                return uniform[view.start :]
            case "left_to_right":
                return -np.arange(slots, dtype=np.float64)


METHOD = Method(
    kind=UNMASK,
    guarantee="lossy",
    summary="Commits a fixed number of tokens per step; one per step is the baseline of all others.",
    paper="Large Language Diffusion Models (2025)",
    options=TopKOptions,
    build=lambda _, options: TopK(options),
    sweep={
        "top_k": at((1, 2, 3, 4, 6, 8, 12), "top_k:tokens_per_step={}"),
        "top_k, random order": at((1, 2, 3, 4, 6, 8, 12), "top_k:tokens_per_step={},order=random"),
    },
)
