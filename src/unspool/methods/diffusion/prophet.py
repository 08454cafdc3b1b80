"""Diffusion Language Models Know the Answer Before Decoding (2025): Prophet, which stops when the answer is certain.

It reads the gap between the two largest logits over the answer's slots. When the mean gap passes a threshold that falls
with progress, all remaining masks are filled with their argmax. Guarantee: lossy; thresholds of infinity change
nothing, and what was committed before the exit stays.

Choices: the gap is that of raw logits, before transforms and noise, as in the paper. Progress is the share of masks
that were committed, not of scheduled steps, since parallel policies do not know how many steps they will take; with one
token per step the two are the same. Given slots do not count. A pass that did not score the answer and all masks is
skipped (block caches).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unspool.engine.canvas import CanvasState
from unspool.engine.method import STOP, Method
from unspool.errors import UnspoolError


@dataclass(frozen=True)
class ProphetOptions:
    """Thresholds are the paper's.

    Attributes:
        answer: slots (first, end) of the answer, from 0; None: all slots.
        high, middle, low: mean gaps that end decoding in its first, second and last third.
    """

    answer: tuple[int, int] | None = None
    high: float = 7.5
    middle: float = 5.0
    low: float = 2.5


class Prophet:
    """Stops when the answer's gap passes the threshold."""

    def __init__(self, options: ProphetOptions | None = None) -> None:
        self.options = options or ProphetOptions()
        self._masks = 0  # masks of the canvas before anything was committed

    def check(self, slots: int) -> None:
        if self.options.answer is not None:
            first, end = self.options.answer
            if not 0 <= first < end <= slots:
                raise UnspoolError(f"the answer's slots {first} to {end} do not lie in a canvas of {slots} slots")

    def stop(self, sight: CanvasState) -> bool:
        left = int(sight.masked.sum())
        self._masks = self._masks or left  # the first pass scores everything, so it always gets here
        first, end = self.options.answer or (0, len(sight.tokens) - sight.prompt_length)
        rows = sight.logits(sight.prompt_length + first, sight.prompt_length + end)
        if rows is None:
            return False
        best = np.partition(rows.astype(np.float64), -2, axis=1)[:, -2:]
        return float((best[:, 1] - best[:, 0]).mean()) >= self._bar(1 - left / self._masks)

    def _bar(self, progress: float) -> float:
        if progress < 0.33:
            return self.options.high
        return self.options.middle if progress < 0.67 else self.options.low


METHOD = Method(
    kind=STOP,
    guarantee="lossy",
    summary="Fills all remaining masks at once when the answer is certain.",
    paper="Diffusion Language Models Know the Answer Before Decoding (2025)",
    options=ProphetOptions,
    build=lambda _, options: Prophet(options),
    sweep={
        "prophet": (
            "prophet:high=15.0,middle=10.0,low=5.0+top_k",
            "prophet:high=7.5,middle=5.0,low=2.5+top_k",
            "prophet:high=3.75,middle=2.5,low=1.25+top_k",
            "prophet:high=1.875,middle=1.25,low=0.625+top_k",
        )
    },
)
