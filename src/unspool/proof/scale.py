"""The scores that tokens are chosen by, from raw logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.engine import noise
from unspool.engine.contracts import Logits
from unspool.engine.options import GenerationOptions
from unspool.methods.shaping import _built_in as shaping

Row = NDArray[np.float64]


class Scale:
    """Turns raw logits into the scores that plain decoding takes the largest of.

    Args:
        temperature: 0 is greedy; above 0 the noise of seed and position is added.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self._shapers = shaping.build(GenerationOptions(temperature=temperature))

    def shaped(self, row: Logits) -> Row:
        """Logits [vocabulary] divided by the temperature."""
        for shaper in self._shapers:
            row = shaper(np.empty(0, dtype=np.int64), row)
        return row.astype(np.float64)

    def scores(self, row: Logits, seed: int, position: int) -> Row:
        """Scores [vocabulary] of the token at the absolute ``position``."""
        scores = self.shaped(row)
        if self.temperature:
            scores += noise.gumbel(seed, position, len(scores))
        return scores


def runner_up(scores: NDArray[Any], token: int) -> int:
    """The best token besides ``token``."""
    others = scores.copy()
    others[token] = -np.inf
    return int(others.argmax())
